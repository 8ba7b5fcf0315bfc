"""Parameters as they are given on the command line: `-p NAME=VALUE`."""

import ast
import os

from mipo_nb import preferences, sources
from mipo_nb.base.errors import UserError
from mipo_nb.lab.notebooks import require_read
from mipo_nb.lab.settings import DATA_NAMES, located

_PATHS = {"DATA": os.path.isfile, "RULES_FILE": os.path.isfile, "MODEL": os.path.isdir, "ADAPTER": os.path.isdir}
_OPTIONS = {"PROFILE": "--profile", "OUTPUT_DIR": "--output-dir"}  # what the command must know of a run as well


def given(texts):
    """{"NAME": value} from texts NAME=VALUE; values are read as Python literals, else as text. Raises `UserError`."""
    return dict(map(_parameter, texts))


def _parameter(text):
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"-p takes NAME=VALUE, not '{text}'.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value


def check_parameters(notebooks, parameters, profile):
    """Raise `UserError` for a parameter that has an option of its own or that none of the notebooks reads, see
    `notebooks.require_read`, for a DRY_RUN that is neither True nor False, and for rows or rules that cannot be read."""
    for name, value in parameters.items():
        if name in _OPTIONS:
            raise UserError(f"{name} has an option of its own; use {_OPTIONS[name]} in place of -p.")
        require_read(notebooks, [name], profile)
        if name == "DRY_RUN" and not isinstance(value, bool):
            raise UserError(f"DRY_RUN must be True or False, not {value!r}.")
        if name == "RULES_FILE":
            preferences.add_kinds(located(name, value, os.path.isfile))
    if (data := parameters.get("DATA")) is not None and data not in DATA_NAMES:  # read once the rules' kinds are known
        for _ in sources.stream_jsonl(located("DATA", data, os.path.isfile), ("prompt", "context", "user_id")):
            pass


def from_here(parameters):
    """The same, with absolute paths of what lies in the working folder: the kernel works in the project's root, whose own
    come first (`settings.located`)."""
    return {name: _absolute(name, value) for name, value in parameters.items()}


def _absolute(name, value):
    is_there = _PATHS.get(name)
    if not is_there or not isinstance(value, str) or value in DATA_NAMES or not is_there(os.path.expanduser(value)):
        return value
    return located(name, value, is_there)
