"""Parameters as they are given on the command line: `-p NAME=VALUE`."""

import ast
import os

from mipo_nb import preferences, sources
from mipo_nb.base.errors import UserError
from mipo_nb.lab.notebooks import require_read
from mipo_nb.lab.settings import DATA_NAMES, located

_PATHS = ("DATA", "RULES_FILE", "MODEL", "ADAPTER")
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
    if (data := parameters.get("DATA", "own")) not in DATA_NAMES:  # read once the rules' kinds are known
        for _ in sources.stream_jsonl(located("DATA", data, os.path.isfile), ("prompt", "context", "user_id")):
            pass


def from_here(parameters):
    """The same, a path that lies in the working folder and not in the project's root as an absolute one: the kernel works
    in the root."""
    return {name: _absolute(name, value) if name in _PATHS else value for name, value in parameters.items()}


def _absolute(name, value):
    if not isinstance(value, str) or not os.path.exists(os.path.expanduser(value)):
        return value
    return located(name, value, os.path.exists)
