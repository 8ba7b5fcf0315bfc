"""Where rows come from: the project's own users and prompts, or a JSONL file of someone else's.

A *personal prompt* is a row with `prompt`, `context`, `user_id`, and where known `name` (what the user is called),
`preferences` (a list of `{"text", "kind", "value"}`; `kind` is None or a key of `preferences.KINDS`), and the parts of
its context: `biography` (who the user is) and `wish` (how the user likes to be answered). Splits are
`train` (pairs come from here), `dev` (choices are made here) and `test` (measured once). No user is in two splits.
"""

import math
import random
import reprlib
from pathlib import Path

from mipo_nb.base import jsonl
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.rows import OPTIONAL, SPLITS, checked
from mipo_nb.base.splits import divide, split_of
from mipo_nb.preferences import KINDS

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


def data_folder():
    """The folder with the project's own data: in a checkout beside the package."""
    folder = Path(__file__).resolve().parent.parent / "data"
    if not (folder / "users.jsonl").is_file():
        raise UserError("The project's data/ folder is not beside the package; install with 'pip install -e .'.")
    return folder


def own_users(split):
    """The project's invented users of one split, as dictionaries; `wish` and `context` are put together of their parts."""
    users = (u for u in read_jsonl(data_folder() / "users.jsonl") if u["split"] == split)
    return [{**u, "wish": (wish := wish_of(u)), "context": f"{u['biography']} {wish}"} for u in users]


def wish_of(user):
    """What a user's preferences say, one sentence after another."""
    return " ".join(preference["text"] for preference in user["preferences"])


def own_prompts(split):
    """The project's open prompts of one split, as strings."""
    return [p["prompt"] for p in read_jsonl(data_folder() / "prompts.jsonl") if p["split"] == split]


def own_probes():
    """The project's probes: a `kind` of wish, a `prompt`, an answer that `keeps` it and one that `breaks` it."""
    return read_jsonl(data_folder() / "probes.jsonl")


def prompts_for_others(split, *, n, seed=0):
    """A `datasets.Dataset` of `n` rows of own users of one split who ask for a text on which a wish of theirs must not
    act, such as a letter to somebody else; `must_not` are those kinds of wishes. Training users have prompts of their
    own; those of the others are for measuring."""
    from datasets import Dataset

    users, others = own_users(split), read_jsonl(data_folder() / "prompts_for_others.jsonl")
    others = [o for o in others if (o["split"] == "train") == (split == "train")]
    rng, rows = random.Random(f"others-{split}-{seed}"), []
    rng.shuffle(users)
    for i in range(n):
        user = users[i % len(users)]
        kinds = {p["kind"] for p in user["preferences"]}
        other = rng.choice([o for o in others if kinds & set(o["must_not"])])
        row = columns({**user, "prompt": other["prompt"]})
        rows.append({**row, "must_not": sorted(kinds & set(other["must_not"]))})
    return Dataset.from_list(rows)


def personal_prompts(split, *, n, data=OWN, seed=0):
    """A `datasets.Dataset` of at most `n` personal prompts of one split; "own" spreads them evenly over users, prompts.

    `data` is "own", or the path of a JSONL file with columns `prompt`, `context`, `user_id` (and, if wanted, `name`,
    `preferences`, `split`, `reference_response`), which `stream_jsonl` reads; `divide` gives a split to users without.
    Rows of `dev` and `test` whose prompt also occurs in training are left out as long as others remain, so that prompts
    are unseen too. Raises `UserError` for an unknown split, a broken file, or a split without rows.
    """
    from datasets import Dataset

    require_known("split", split, SPLITS)
    rows = _own_rows(split, n, seed) if data == OWN else _file_rows(data, split, n, seed)
    if not rows:
        raise UserError(f"{data} has no '{split}' rows; add users (three make all three splits) or a split column.")
    return Dataset.from_list([columns(r) for r in rows])


def _own_rows(split, n, seed):
    """n rows in which each user occurs equally often (to within one) and so does each prompt."""
    users, prompts = own_users(split), own_prompts(split)
    rng = random.Random(f"{split}-{seed}")
    rng.shuffle(users)
    rng.shuffle(prompts)
    # Users and prompts turn like two wheels, which meet again after `cycle` rows: then one is moved on by a tooth.
    cycle, numbers = math.lcm(len(users), len(prompts)), range(min(n, len(users) * len(prompts)))
    return [{**users[i % len(users)], "prompt": prompts[(i + i // cycle) % len(prompts)]} for i in numbers]


def _file_rows(path, split, n, seed):
    located = _all_rows(path, required=("prompt", "context", "user_id"))
    _check_values(located)
    splits = _splits_of_users(located)
    rows = [{**row, "split": splits[row["user_id"]]} for _, row in located]
    training_prompts = {r["prompt"] for r in rows if r["split"] == "train"}
    split_rows = [r for r in rows if r["split"] == split]
    if split != "train":
        split_rows = [r for r in split_rows if r["prompt"] not in training_prompts] or split_rows
    random.Random(seed).shuffle(split_rows)
    return split_rows[:n]


def _check_values(located):
    """Raise `UserError` where a file has both numbers and text as values, which no column of a table can hold."""
    kinds = set()
    for where, row in located:
        kinds |= {type(p.get("value")) is str for p in row.get("preferences") or () if p.get("value") is not None}
        if len(kinds) > 1:
            raise UserError(f"{where}: values of preferences are numbers and text up to here; use one type in a file.")


def _splits_of_users(located):
    """{user: split}, as the rows say, and by `divide` for users of whom none says it."""
    named = {}
    for where, row in located:
        user, split = row["user_id"], row.get("split")
        if split and named.setdefault(user, split) != split:
            raise UserError(f"{where}: user {reprlib.repr(user)} is in two splits; keep a user in one.")
    by_hash = {row["user_id"]: split_of(row["user_id"]) for _, row in located if row["user_id"] not in named}
    # Rows of one split that were written with all `columns`, to be handed on, are still of that split.
    handed_on = len(set(by_hash.values())) == 1 and all(row.keys() >= OPTIONAL.keys() for _, row in located)
    return (by_hash if handed_on else divide(by_hash)) | named


def columns(row):
    """A mapping with `prompt`, `context`, `user_id` as a personal prompt with all its columns and no others."""
    return {
        **{column: row[column] for column in ("prompt", "context", "user_id")},
        "name": row.get("name") or "",
        "preferences": [{k: p.get(k) for k in ("text", "kind", "value")} for p in row.get("preferences") or []],
        **{column: row.get(column) for column in ("reference_response", "biography", "wish")},
    }
