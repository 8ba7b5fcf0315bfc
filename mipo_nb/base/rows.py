"""Rows of personal prompts that somebody else wrote: every column as it is used, or refused with file and line."""

import difflib
import math
import reprlib

from mipo_nb.base.errors import UserError, did_you_mean

SPLITS = ("train", "dev", "test")
OPTIONAL = {
    **dict.fromkeys(("name", "reference_response", "biography", "wish"), (str, "text")),
    "preferences": (list, "a list of objects"),
    "history": (list, "a list of turns"),
    "for_somebody_else": (bool, "true or false"),
}
_CALLED_DEV = ("validation", "valid", "val", "development")
_OF_PREFERENCE = ("text", "kind", "value", "example", "pattern", "at_most_words", "in_language")
_LARGEST = 10**15  # tables hold fractions and whole numbers of 64 bits, and this one is exact as both


def checked(row, required, where, kinds):
    """A row of a file as it is used, changed in place; `kinds` are those of wishes (`preferences.KINDS`).

    The columns `required` are text; a number in a required `user_id` becomes text, `split` is one of SPLITS
    ("validation" becomes `dev`), and `reference_response` loses blanks and line breaks before its text. Preferences get
    a `kind` where they are written short, and `messages` become `history` and `prompt`. Raises `UserError`, which begins
    with `where` (file and line), for a column that is missing or of another type.
    """
    known = (*required, *OPTIONAL, "split", "messages")
    for name in row:
        if name not in known and (meant := name.strip().lower()) in known and meant not in row:
            raise UserError(f"{where}: column {reprlib.repr(name)} is not read; call it '{meant}'.")
    if "user_id" in required and _is_number(row.get("user_id")):
        number = row["user_id"]  # tables make 7.0 of 7 where another id is missing
        row["user_id"] = str(int(number) if number == int(number) else number)
    if row.get("messages") is not None:
        if row.get("prompt") is not None or row.get("history"):
            raise UserError(f"{where}: a row has messages or a prompt with its history, not both; leave one out.")
        row["history"], row["prompt"] = _taken_apart(row.pop("messages"), where)
    for column in required:
        if column not in row:
            raise UserError(f"{where}: column '{column}' is missing; rows need {', '.join(required)}.")
        filled = isinstance(row[column], str) and _is_seen(row[column])
        _require(filled, f"{where}: column '{column}' must be text that is not empty", row[column])
    for column, (kind, needed) in OPTIONAL.items():
        value = row.get(column)
        _require(value is None or isinstance(value, kind), f"{where}: column '{column}' must be {needed}", value)
    if row.get("history"):
        _taken_apart([*row["history"], {"role": "user", "content": row.get("prompt", "?")}], where, "history")
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


def _taken_apart(turns, where, column="messages"):
    """(earlier turns, what the user asks now) of the `messages` of a row: turns of user and assistant in turn, the last of
    them the user's. The system message is for the context and belongs to the run, not to a row."""
    last = "user" if column == "messages" else "assistant"
    needed = f'{where}: column \'{column}\' must be turns {{"role": ..., "content": ...}} of user and assistant in turn, from user to {last}'
    _require(isinstance(turns, list) and turns and len(turns) % 2 == 1, needed, turns)
    for number, turn in enumerate(turns):
        whole = isinstance(turn, dict) and turn.keys() == {"role", "content"} and isinstance(turn["content"], str)
        _require(
            whole and turn["role"] == ("user", "assistant")[number % 2] and _is_seen(turn["content"]), needed, turn
        )
    return turns[:-1], turns[-1]["content"]


def _check_preference(preference, where, kinds):
    if not isinstance(preference, dict) or not isinstance(preference.get("text"), str):
        raise UserError(f'{where}: a preference must be an object like {{"text": ..., "kind": null, "value": null}}.')
    _require(_is_seen(preference["text"]), f"{where}: a preference's text must not be empty", preference["text"])
    for key in preference.keys() - _OF_PREFERENCE:
        if near := difflib.get_close_matches(key.lower(), _OF_PREFERENCE, n=1, cutoff=0.75):
            raise UserError(f"{where}: unknown key {reprlib.repr(key)} of a preference; did you mean '{near[0]}'?")
    try:
        preference |= kinds.written_short(preference)
    except UserError as e:
        raise UserError(f"{where}: {e}") from None
    kind, value = preference.get("kind"), preference.get("value")
    if kind is not None and (not isinstance(kind, str) or not (kind in kinds or kind.startswith(kinds.PATTERN))):
        raise UserError(f"{where}: unknown kind of preference {reprlib.repr(kind)}; {did_you_mean(kind, kinds)}")
    if kind and kinds[kind].value is not None:
        counts = type(value) is int and 0 < value <= _LARGEST
        _require(counts, f"{where}: the value of '{kind}' must be a whole number from 1 to 10**15", value)
    stored = value is None or isinstance(value, str) or (_is_number(value) and abs(value) <= _LARGEST)
    _require(stored, f"{where}: a preference's value must be text, null or a number up to 10**15", value)


def _is_seen(text):
    """Whether a text has a sign that a reader sees: control characters, marks of direction and blanks are none."""
    return any(sign.isprintable() and not sign.isspace() for sign in text)


def _is_number(value):
    return type(value) in (int, float) and abs(value) < math.inf  # True is none, nor is NaN


def _require(holds, message, value):
    if not holds:
        raise UserError(f"{message}, not {reprlib.repr(value)}.")


def require_one_type_of_value(located):
    """Raise `UserError` where a file has both numbers and text as values, which no column of a table can hold."""
    kinds = set()
    for where, row in located:
        kinds |= {type(p.get("value")) is str for p in row.get("preferences") or () if p.get("value") is not None}
        if len(kinds) > 1:
            raise UserError(f"{where}: values of preferences are numbers and text up to here; use one type in a file.")
