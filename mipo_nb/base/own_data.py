"""The project's own invented people and prompts (data/README.md): who asks what, spread evenly."""

import math
import random
from pathlib import Path

from mipo_nb.base import jsonl
from mipo_nb.base.errors import UserError


def data_folder():
    """The folder with the project's own data: in a checkout beside the package."""
    folder = Path(__file__).resolve().parent.parent.parent / "data"
    if not (folder / "users.jsonl").is_file():
        raise UserError("The project's data/ folder is not beside the package; install with 'pip install -e .'.")
    return folder


def _read(name):
    return [row for _, row in jsonl.objects(data_folder() / name)]


def own_users(split):
    """The project's invented users of one split, as dictionaries; `wish` and `context` are put together of their parts."""
    users = (u for u in _read("users.jsonl") if u["split"] == split)
    return [{**u, "wish": (wish := wish_of(u)), "context": f"{u['biography']} {wish}"} for u in users]


def wish_of(user):
    """What a user's preferences say, one sentence after another."""
    return " ".join(preference["text"] for preference in user["preferences"])


def own_prompts(split):
    """The project's open prompts of one split, as strings."""
    return [p["prompt"] for p in _read("prompts.jsonl") if p["split"] == split]


def own_probes():
    """The project's probes: a `kind` of wish, a `prompt`, an answer that `keeps` it and one that `breaks` it."""
    return _read("probes.jsonl")


def own_rows(split, n, seed):
    """n rows in which each user occurs equally often (to within one) and so does each prompt."""
    users, prompts = own_users(split), own_prompts(split)
    rng = random.Random(f"{split}-{seed}")
    rng.shuffle(users)
    rng.shuffle(prompts)
    # Users and prompts turn like two wheels, which meet again after `cycle` rows: then one is moved on by a tooth.
    cycle, numbers = math.lcm(len(users), len(prompts)), range(min(n, len(users) * len(prompts)))
    return [{**users[i % len(users)], "prompt": prompts[(i + i // cycle) % len(prompts)]} for i in numbers]


def own_rows_for_others(split, n, seed):
    """n rows of users who ask for a text on which those wishes of theirs must not act that `must_not` names."""
    users, others = own_users(split), _read("prompts_for_others.jsonl")
    others = [o for o in others if (o["split"] == "train") == (split == "train")]
    rng, rows = random.Random(f"others-{split}-{seed}"), []
    rng.shuffle(users)
    for user in (users[i % len(users)] for i in range(n)):
        kinds = {p["kind"] for p in user["preferences"]}
        other = rng.choice([o for o in others if kinds & set(o["must_not"])])
        rows.append({**user, "prompt": other["prompt"], "must_not": sorted(kinds & set(other["must_not"]))})
    return rows
