"""Where rows come from: the project's own users and prompts, or a JSONL file of someone else's.

A *personal prompt* is a row with `prompt`, `context`, `user_id`, and where known `name` (what the user is called),
`preferences` (a list of `{"text", "kind", "value"}`; `kind` is None or a key of `preferences.KINDS`), `history` (earlier
turns, where rows have any), and the parts of its context: `biography` (who the user is), `wish` (how the user likes to be answered). Splits are
`train` (pairs come from here), `dev` (choices are made here) and `test` (measured once). No user is in two splits.
"""

import json
import random
from pathlib import Path

from mipo_nb.base import jsonl
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.own_data import data_folder, own_probes, own_prompts, own_rows, own_rows_for_others, own_users
from mipo_nb.base.rows import SPLITS, checked, require_one_type_of_value
from mipo_nb.base.splits import splits_of_users
from mipo_nb.preferences import KINDS, checkable
from mipo_nb.prompts import asked

__all__ = ["OWN", "columns", "data_folder", "own_probes", "own_prompts", "own_users", "personal_prompts",
           "prompts_for_others", "read_jsonl", "stream_jsonl"]  # fmt: skip
OWN = "own"


def read_jsonl(path, required=()):
    """The rows of `stream_jsonl` as a list. Raises `UserError` as it does, and for a file without rows."""
    return [row for _, row in _all_rows(path, required)]


def stream_jsonl(path, required=()):
    """The rows of a JSONL file one at a time, for files larger than memory; none and no error for an empty file.

    The columns `required` are text; a number in a required `user_id` becomes text. What a row has of the other columns
    of a personal prompt is checked: `split` is one of SPLITS ("validation" becomes `dev`), and `reference_response`
    loses blanks and line breaks before its text. Raises `UserError`, with file and line, for what is not a JSON object
    in whole UTF-8 characters and for a column that is missing or of another type.
    """
    return (row for _, row in _rows(path, required))


def _all_rows(path, required):
    rows = list(_rows(path, required))
    if not rows:
        raise UserError(f"{Path(path).expanduser()} has no rows; write one JSON object per line.")
    return rows


def _rows(path, required):
    """(file and line, checked row) of each line that is not blank."""
    return ((where, checked(row, required, where, KINDS)) for where, row in jsonl.objects(path))


def prompts_for_others(split, *, n, data=OWN, seed=0):
    """A `datasets.Dataset` of `n` rows of users of one split who ask for a text on which a wish of theirs must not act, such
    as a letter to somebody else; `must_not` are those kinds of wishes. Of a file, its rows with `for_somebody_else`: true,
    where no wish of the user may act; None where it has none in this split.

    The project's training users have prompts of their own; those of the others are for measuring.
    """
    if data == OWN:
        rows = own_rows_for_others(split, n, seed)
    else:
        rows = [row for row in _split_rows(data, split, seed) if row.get("for_somebody_else")]
        rows = [{**row, "must_not": sorted({p["kind"] for p in checkable(row.get("preferences"))})} for row in rows]
        rows = [row for row in rows if row["must_not"]][:n]
    return _table(rows, "must_not") if rows else None


def _table(rows, *more):
    """Rows as a `datasets.Dataset` with their `columns`, those named, and `history` where one of them has earlier turns."""
    from datasets import Dataset

    more += ("history",) if any(row.get("history") for row in rows) else ()
    return Dataset.from_list([{**columns(row), **{name: row.get(name) for name in more}} for row in rows])


def personal_prompts(split, *, n, data=OWN, seed=0):
    """A `datasets.Dataset` of at most `n` personal prompts of one split; "own" spreads them evenly over users, prompts.

    `data` is "own", or the path of a JSONL file with columns `prompt` (or `messages`: turns, the last one the user's),
    `context`, `user_id` (and, if wanted, `name`, `preferences`, `split`, `reference_response`, `biography`, `wish`), which
    `stream_jsonl` reads; `base.splits.divide` gives a split to users without.
    Rows of `dev` and `test` whose prompt also occurs in training are left out as long as others remain, so that prompts
    are unseen too. Raises `UserError` for an unknown split, a broken file, or a split without rows.
    """
    require_known("split", split, SPLITS)
    rows = own_rows(split, n, seed) if data == OWN else _file_rows(data, split, n, seed)
    if not rows:
        raise UserError(f"{data} has no '{split}' rows; add users (three make all three splits) or a split column.")
    return _table(rows)


def _file_rows(path, split, n, seed):
    rows = _split_rows(path, split, seed)
    asked_for = [row for row in rows if not row.get("for_somebody_else")]
    if rows and not asked_for:
        raise UserError(f"{path}: all '{split}' rows are for_somebody_else; add rows that are for the user.")
    return asked_for[:n]


def _split_rows(path, split, seed):
    """The rows of one split of a file, in an order that `seed` decides."""
    located = _all_rows(path, required=("prompt", "context", "user_id"))
    require_one_type_of_value(located)
    splits = splits_of_users(located)
    rows = [{**row, "split": splits[row["user_id"]]} for _, row in located]
    training_prompts = {_text(r) for r in rows if r["split"] == "train" and not r.get("for_somebody_else")}
    split_rows = [r for r in rows if r["split"] == split]
    if split != "train":  # of open prompts, and of texts for others: the unseen ones, where there are some
        kinds = [(bool(r.get("for_somebody_else")), _text(r) in training_prompts) for r in split_rows]
        split_rows = [
            r for r, (kind, seen) in zip(split_rows, kinds, strict=True) if not (seen and (kind, False) in kinds)
        ]
    random.Random(seed).shuffle(split_rows)
    return split_rows


def _text(row):
    """What was asked, history included, as text that can be looked up."""
    return json.dumps(asked(row), sort_keys=True)


def columns(row):
    """A mapping with `prompt`, `context`, `user_id` as a personal prompt with all its columns and no others."""
    return {
        **{column: row[column] for column in ("prompt", "context", "user_id")},
        "name": row.get("name") or "",
        "preferences": [{k: p.get(k) for k in ("text", "kind", "value")} for p in row.get("preferences") or []],
        **{column: row.get(column) for column in ("reference_response", "biography", "wish")},
    }
