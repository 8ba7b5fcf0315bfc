"""JSONL files, read a line at a time: whatever stands in them is an object, or is refused with its line."""

import json
import stat
from pathlib import Path

from mipo_nb.base.errors import UserError


def objects(path):
    """(file and line, object) of each line of a JSONL file that is not blank, one at a time, for files larger than memory.

    Raises `UserError`, with file and line, for what is not a JSON object in whole UTF-8 characters, and for no file.
    """
    path = Path(path).expanduser()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a device or a pipe has no end, or can be read only once
            raise OSError(None, "it is a folder, a device or a pipe")
        # A byte that is not UTF-8 becomes half a character, so that `_parsed` finds it and its line can be named.
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if (line := line.removeprefix("\ufeff")).strip():
                    where = f"{path}, line {number}"
                    yield where, _parsed(line, where)
    except (OSError, ValueError) as e:  # no path has a NUL in it
        reason = getattr(e, "strerror", e)
        raise UserError(f"There is no file {path} to read ({reason}); give a JSONL file, or 'own'.") from None


def _parsed(line, where):
    try:
        line.encode()
        row = json.loads(line, object_pairs_hook=_object)
        if "\\u" in line:  # "\ud83d", half an emoji, is JSON; no table, tokenizer or file takes it
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        reason = "a character is not whole (half an emoji, or bytes that are not UTF-8)"
        raise UserError(f"{where}: {reason}; mend it, or save it as UTF-8.") from None
    except (ValueError, RecursionError) as e:
        reason = str(e).partition(": ")[0]
        raise UserError(f"{where}: not valid JSON ({reason}); mend or remove it, each line is one object.") from None
    if not isinstance(row, dict):
        raise UserError(f'{where}: a row must be a JSON object like {{"prompt": ...}}, not {type(row).__name__}.')
    return row


def _object(pairs):
    row = dict(pairs)
    if len(row) < len(pairs):  # the last would win, and nobody would know
        raise ValueError("a key occurs twice")
    return row
