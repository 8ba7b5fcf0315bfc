"""Creative prompts (stories, poems, letters), who is asked what, and how different the texts for one prompt are.

The texts of an experiment form a grid [groups, kinds, users, draws]. Groups of users have equal size; all users of a
group get the same prompts, one of each kind, and no prompt goes to two groups. So texts to one prompt can be compared
across users, and no prompt weighs more than another.
"""

import numpy as np

from mipo_nb import sources
from mipo_nb.base.errors import UserError
from mipo_nb.paper import diversity

KINDS = ("story", "poem", "letter")


def prompts(split):
    """{kind: list of prompts} of `data/creative.jsonl` in one split, "train" or "test"."""
    rows = sources.read_jsonl(sources.data_folder() / "creative.jsonl", required=("prompt", "kind"))
    return {kind: [r["prompt"] for r in rows if r["split"] == split and r["kind"] == kind] for kind in KINDS}


def asked(people, by_kind):
    """One row per person of `people` (mappings with the columns of `sources.columns`), its prompt replaced. The prompts
    of all kinds are taken in turn, so that each is used about equally often."""
    turns = [prompt for texts in zip(*by_kind.values(), strict=True) for prompt in texts]
    return [{**dict(person), "prompt": turns[i % len(turns)]} for i, person in enumerate(people)]


def grid(people, by_kind, *, groups, size):
    """The rows of a grid without its draws, [groups, kinds, users] flattened; each has `kind` and `group` as well.

    `people` are at least groups x size mappings with the columns of `sources.columns`, one per user; group g has the
    g-th prompt of each kind. Raises `UserError` where there are too few people or prompts.
    """
    people, needed = list(people)[: groups * size], groups * size
    users = len({person["user_id"] for person in people})
    if users < needed:
        raise UserError(
            f"{groups} groups of {size} need {needed} different users, and there are {users} in the first {len(people)}"
            " rows; give one row per user, or lower n_groups or group_size."
        )
    if groups > min(map(len, by_kind.values())):
        raise UserError(f"There are not {groups} prompts of each kind; lower n_groups.")
    return [
        {**dict(person), "prompt": texts[g], "kind": kind, "group": g}
        for g in range(groups)
        for kind, texts in by_kind.items()
        for person in people[g * size : (g + 1) * size]
    ]


def per_user(values, shape):
    """Array [..., users] of means over everything a user was asked, from values [..., rows of a grid] of this shape
    (groups, kinds, users, draws)."""
    values = np.asarray(values, dtype=float)
    means = values.reshape(*values.shape[:-1], *shape).mean(axis=(-3, -1))
    return means.reshape(*values.shape[:-1], -1)


def by_prompt(texts, vectors, shape):
    """{way: {measure: [prompts]}} of a grid's texts, with the measures of `diversity.by_group`.

    `draws`: how different the draws for one user and prompt are, averaged over users. `users`: how different the texts
    for all users of a group are, one draw of each, averaged over draws. `shape` is (groups, kinds, users, draws).
    Sets are of different size in the two ways, so that only `spread`, a mean over pairs, can be compared between them.
    Raises `UserError` for a set of one.
    """
    if min(shape[2:]) < 2:
        raise UserError("One text has no other to differ from; set n_draws and group_size to 2 or more.")
    numbers = np.arange(np.prod(shape)).reshape(-1, *shape[2:])  # [prompts, users, draws]

    def means(sets):
        measures = diversity.by_group(texts, vectors, sets.reshape(-1, sets.shape[-1]))
        return {name: values.reshape(len(numbers), -1).mean(1) for name, values in measures.items()}

    return {"draws": means(numbers), "users": means(numbers.transpose(0, 2, 1))}
