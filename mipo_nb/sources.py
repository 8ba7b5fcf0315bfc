"""Where rows come from: the project's own users and prompts, or a JSONL file of someone else's.

A *personal prompt* is a row with `prompt`, `context`, `user_id`, and where known `name` (what the user is called) and
`preferences` (a list of `{"text", "kind", "value"}`; `kind` is None or a key of `preferences.KINDS`). Splits are
`train` (pairs come from here), `dev` (choices are made here) and `test` (measured once). No user is in two splits.
"""

import hashlib
import json
import math
import random
from pathlib import Path

from mipo_nb.base.errors import UserError, did_you_mean, require_known
from mipo_nb.preferences import KINDS

SPLITS = ("train", "dev", "test")
OWN = "own"


def read_jsonl(path, required=()):
    """Rows of a JSONL file. Raises `UserError` naming file and line for broken lines and missing columns."""
    rows = list(stream_jsonl(path, required))
    if not rows:
        raise UserError(f"{Path(path).expanduser()} has no rows; write one JSON object per line.")
    return rows


def stream_jsonl(path, required=()):
    """The rows of `read_jsonl` one at a time, for files larger than memory; no rows and no error for an empty file."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {path}; give a JSONL file, or '{OWN}' for the project's own users.")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, required, f"{path}, line {number}")
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text ({e.reason} at byte {e.start}); save it as UTF-8.") from None


def _parsed(line, required, where):
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise UserError(f"{where}: not valid JSON ({e.msg}); mend or remove it.") from None
    if not isinstance(row, dict):
        raise UserError(f'{where}: a row must be a JSON object like {{"prompt": ...}}, not {type(row).__name__}.')
    for column in required:
        if column not in row:
            raise UserError(f"{where}: column '{column}' is missing; rows need {', '.join(required)}.")
        if not isinstance(row[column], str) or not row[column].strip():
            raise UserError(f"{where}: column '{column}' must be text that is not empty, not {row[column]!r}.")
    if not isinstance(row.get("name") or "", str):
        raise UserError(f"{where}: column 'name' must be text, not {row['name']!r}.")
    if not isinstance(row.get("preferences") or [], list):
        raise UserError(f"{where}: column 'preferences' must be a list of objects.")
    for preference in row.get("preferences") or []:
        _check_preference(preference, where)
    if row.get("split", "train") not in SPLITS:
        raise UserError(f"{where}: unknown split '{row['split']}'; {did_you_mean(row['split'], SPLITS)}")
    return row


def _check_preference(preference, where):
    if not isinstance(preference, dict) or not isinstance(preference.get("text"), str):
        raise UserError(f'{where}: a preference must be an object like {{"text": ..., "kind": null, "value": null}}.')
    kind = preference.get("kind")
    if kind is not None and kind not in KINDS:
        raise UserError(f"{where}: unknown kind of preference '{kind}'; {did_you_mean(kind, KINDS)}")
    if kind == "at_most_words" and not isinstance(preference.get("value"), int):
        raise UserError(f"{where}: 'at_most_words. needs a whole number as its value.")


def data_folder():
    """The folder with the project's own data: in a checkout beside the package."""
    folder = Path(__file__).resolve().parent.parent / "data"
    if not (folder / "users.jsonl").is_file():
        raise UserError("The project's data/ folder is not beside the package; install with 'pip install -e .'.")
    return folder


def own_users(split):
    """The project's invented users of one split, as dictionaries."""
    return [u for u in read_jsonl(data_folder() / "users.jsonl") if u["split"] == split]


def own_prompts(split):
    """The project's open prompts of one split, as strings."""
    return [p["prompt"] for p in read_jsonl(data_folder() / "prompts.jsonl") if p["split"] == split]


def personal_prompts(split, *, n, data=OWN, seed=0):
    """A `datasets.Dataset` of at most `n` personal prompts of one split; "own" spreads them evenly over users, prompts.

    `data` is "own", or the path of a JSONL file with columns `prompt`, `context`, `user_id` (and, if wanted, `name`,
    `preferences`, `split`, `reference_response`). Without a `split` column `split_of` decides. Rows of `dev` and `test`
    whose prompt also occurs in training are left out as long as others remain, so that prompts are unseen too. Raises
    `UserError` for an unknown split, a broken file, or a split without rows.
    """
    from datasets import Dataset

    require_known("split", split, SPLITS)
    rows = _own_rows(split, n, seed) if data == OWN else _file_rows(data, split, n, seed)
    if not rows:
        raise UserError(
            f"{data} has no '{split}' rows; add users (10 or more make all three splits) or a split column."
        )
    return Dataset.from_list([columns(r) for r in rows])


def _own_rows(split, n, seed):
    """n rows in which each user occurs equally often (to within one) and so does each prompt."""
    # The context is the user's story and their standing wish, which is worded alike for all users of a kind.
    users = [{**u, "context": f"{u['context']} {u['standing_wish']}"} for u in own_users(split)]
    prompts = own_prompts(split)
    rng = random.Random(f"{split}-{seed}")
    rng.shuffle(users)
    rng.shuffle(prompts)
    # Users and prompts turn like two wheels, which meet again after `cycle` rows: then one is moved on by a tooth.
    cycle, numbers = math.lcm(len(users), len(prompts)), range(min(n, len(users) * len(prompts)))
    return [{**users[i % len(users)], "prompt": prompts[(i + i // cycle) % len(prompts)]} for i in numbers]


def _file_rows(path, split, n, seed):
    rows = read_jsonl(path, required=("prompt", "context", "user_id"))
    split_of_user = {}
    for number, row in enumerate(rows, 1):
        row.setdefault("split", split_of(row["user_id"]))
        if split_of_user.setdefault(row["user_id"], row["split"]) != row["split"]:
            raise UserError(f"{path}: user '{row['user_id']}' (row {number}) is in two splits; keep a user in one.")
    training_prompts = {r["prompt"] for r in rows if r["split"] == "train"}
    split_rows = [r for r in rows if r["split"] == split]
    if split != "train":
        split_rows = [r for r in split_rows if r["prompt"] not in training_prompts] or split_rows
    random.Random(seed).shuffle(split_rows)
    return split_rows[:n]


def split_of(user_id):
    """The split that a hash of the user's id decides: half `train`, a fifth `dev`, three tenths `test`."""
    share = share_of(user_id)
    return "train" if share < 0.5 else "dev" if share < 0.7 else "test"


def share_of(text):
    """A number from 0 to 1, from a hash of the text alone, so that adding rows moves none to another split."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def columns(row):
    """A mapping with `prompt`, `context`, `user_id` as a personal prompt with all its columns and no others."""
    return {
        **{column: row[column] for column in ("prompt", "context", "user_id")},
        "name": row.get("name") or "",
        "preferences": [{k: p.get(k) for k in ("text", "kind", "value")} for p in row.get("preferences") or []],
        "reference_response": row.get("reference_response"),
    }
