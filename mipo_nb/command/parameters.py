"""Parameters as they are given on the command line: `-p NAME=VALUE`."""

import ast

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.lab import settings

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
    except (ValueError, SyntaxError):
        return name, value


def check_parameters(notebooks, parameters, profile):
    """Raise `UserError` for a parameter that none of the notebooks has and that is no number of the profile in capitals, or
    that has an option of its own, and for a DRY_RUN that is neither True nor False."""
    names = {name for book in notebooks for name in (*book.parameters, *settings.in_capitals(profile, book.name))}
    names -= _OPTIONS.keys()
    for name, value in parameters.items():
        if name in _OPTIONS:
            raise UserError(f"{name} has an option of its own; use {_OPTIONS[name]} in place of -p.")
        require_known("parameter", name, names)
        if name == "DRY_RUN" and not isinstance(value, bool):
            raise UserError(f"DRY_RUN must be True or False, not {value!r}.")
