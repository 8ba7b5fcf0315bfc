"""Parameters as they are given on the command line: `-p NAME=VALUE`."""

import ast

from mipo_nb.base.errors import UserError
from mipo_nb.lab.notebooks import require_read

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
    `notebooks.require_read`, and for a DRY_RUN that is neither True nor False."""
    for name, value in parameters.items():
        if name in _OPTIONS:
            raise UserError(f"{name} has an option of its own; use {_OPTIONS[name]} in place of -p.")
        require_read(notebooks, [name], profile)
        if name == "DRY_RUN" and not isinstance(value, bool):
            raise UserError(f"DRY_RUN must be True or False, not {value!r}.")
