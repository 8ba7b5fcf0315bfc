"""Rows of personal prompts that somebody else wrote: every column as it is used, or refused with file and line."""

import math
import reprlib

from mipo_nb.base.errors import UserError, did_you_mean

SPLITS = ("train", "dev", "test")
OPTIONAL = {
    **dict.fromkeys(("name", "reference_response", "biography", "wish"), (str, "text")),
    "preferences": (list, "a list of objects"),
}
_CALLED_DEV = ("validation", "valid", "val", "development")
_LARGEST = 10**15  # tables hold fractions and whole numbers of 64 bits, and this one is exact as both


def checked(row, required, where, kinds):
    """A row of a file as it is used, changed in place; `kinds` are those of wishes (`preferences.kinds`).

    The columns `required` are text; a number in a required `user_id` becomes text, `split` is one of SPLITS
    ("validation" becomes `dev`), and `reference_response` loses blanks and line breaks before its text. Raises
    `UserError`, which begins with `where` (file and line), for a column that is missing or of another type.
    """
    if "user_id" in required and _is_number(row.get("user_id")):
        row["user_id"] = str(row["user_id"]).removesuffix(".0")  # tables make 7.0 of 7 where another id is missing
    for column in required:
        if column not in row:
            raise UserError(f"{where}: column '{column}' is missing; rows need {', '.join(required)}.")
        filled = isinstance(row[column], str) and row[column].strip()
        _require(filled, f"{where}: column '{column}' must be text that is not empty", row[column])
    for column, (kind, needed) in OPTIONAL.items():
        value = row.get(column)
        _require(value is None or isinstance(value, kind), f"{where}: column '{column}' must be {needed}", value)
    for preference in row.get("preferences") or ():
        _check_preference(preference, where, kinds)
    if row.get("reference_response") is not None:
        row["reference_response"] = row["reference_response"].lstrip() or None
    if "split" in row:
        name = str(row["split"])
        row["split"] = "dev" if name in _CALLED_DEV else name
        if row["split"] not in SPLITS:
            raise UserError(f"{where}: unknown split {reprlib.repr(name)}; {did_you_mean(name, SPLITS)}")
    return row


def _check_preference(preference, where, kinds):
    if not isinstance(preference, dict) or not isinstance(preference.get("text"), str):
        raise UserError(f'{where}: a preference must be an object like {{"text": ..., "kind": null, "value": null}}.')
    kind, value = preference.get("kind"), preference.get("value")
    if kind is not None and (not isinstance(kind, str) or kind not in kinds):
        raise UserError(f"{where}: unknown kind of preference {reprlib.repr(kind)}; {did_you_mean(kind, kinds)}")
    if kind and kinds[kind].value is not None:
        counts = type(value) is int and 0 < value <= _LARGEST
        _require(counts, f"{where}: the value of '{kind}' must be a whole number from 1 to 10**15", value)
    stored = value is None or isinstance(value, str) or (_is_number(value) and abs(value) <= _LARGEST)
    _require(stored, f"{where}: a preference's value must be text, null or a number up to 10**15", value)


def _is_number(value):
    return type(value) in (int, float) and abs(value) < math.inf  # True is none, nor is NaN


def _require(holds, message, value):
    if not holds:
        raise UserError(f"{message}, not {reprlib.repr(value)}.")
