"""For whom was it written? Candidates that share the wish or the person with the row, names masked; and probes.

A response is compared with contexts of which only one part differs: another's biography with the same wish, or another's
wish with the same biography. What tells them apart can then be only the one or the other.
"""

import random
import re

import numpy as np

from mipo_nb import prompts, scoring, sources, statistics
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.preferences import KINDS, Response

PARTS = ("biography", "wish")
NAME = "Kim"  # what everyone is called where names are masked


def masked(text, name):
    """A text in which a user's name is `NAME`; as it is where the name is empty."""
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", NAME, text) if name else text


def crossed_contexts(rows, k, part, *, seed=0):
    """n lists of k contexts, names masked: the row's own first, then k-1 with another user's `part`, "biography" or "wish",
    and the rest as the row has it. Raises `UserError` for rows without parts or with too few users."""
    require_known("part", part, PARTS)
    if not all(row.get("biography") and row.get("wish") for row in rows):
        raise UserError("Crossed contexts need rows with a biography and a wish; add both columns.")
    rng, found = random.Random(f"crossed-{part}-{seed}"), []
    people = {row["user_id"]: {name: masked(row[name], row["name"] or "") for name in PARTS} for row in rows}
    for row in rows:
        own = people[row["user_id"]]
        others = sorted({p[part] for p in people.values()} - {own[part]})
        if len(others) < k - 1:
            raise UserError(f"K is {k} but there are only {len(others) + 1} different {part}s; lower K or add users.")
        all_ = [own, *({**own, part: other} for other in rng.sample(others, k - 1))]
        found.append([f"{each['biography']} {each['wish']}" for each in all_])
    return found


def recognized(model, tokenizer, rows, responses, contexts, *, batch_size=16, folder=None):
    """Array [n, K]: log p(response | prompt, context) in nats under `model`, names masked in the response too."""
    plain = [masked(text, row["name"] or "") for row, text in zip(rows, responses, strict=True)]
    asked = list(map(prompts.asked, rows))
    return scoring.context_matrix(model, tokenizer, asked, contexts, plain, batch_size=batch_size, folder=folder)


def probe_rows(split, *, seed=0):
    """`datasets.Dataset`: each of the project's probes put to a user of the split who wished its kind, with `probe_id`,
    `kind`, an answer that `keeps` the wish and one that `breaks` it, as the user's rule says; the user's name in both."""
    from datasets import Dataset

    rng, rows = random.Random(f"probes-{split}-{seed}"), []
    users = sources.own_users(split)
    rng.shuffle(users)
    for probe in sources.own_probes():
        for user in users:
            answers = {side: _called(probe[side], probe["name"], user["name"]) for side in ("keeps", "breaks")}
            if _kept(probe["kind"], user, answers["keeps"]) and not _kept(probe["kind"], user, answers["breaks"]):
                row = sources.columns({**user, "prompt": probe["prompt"]})
                rows.append({**row, "probe_id": probe["probe_id"], "kind": probe["kind"], **answers})
                users.append(users.pop(users.index(user)))  # the next probe goes to somebody else
                break
    return Dataset.from_list(rows)


def _kept(kind, user, text):
    """Whether a text keeps a user's wish of this kind; False for a user without one."""
    wished = [p for p in user["preferences"] if p["kind"] == kind]
    return any(KINDS[kind].keeps(Response(text, user["name"], (user["wish"],)), p["value"]) for p in wished)


def _called(text, name, other):
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", other, text) if name else text


def probed(model, tokenizer, rows, *, batch_size=16, folder=None):
    """Array [n]: log p(the answer that keeps the wish) - log p(its twin that breaks it), in nats; nothing is sampled."""
    texts = [list(rows[side]) for side in ("keeps", "breaks")]
    contexts = [[context] for context in rows["context"]]
    found = scoring.context_matrix(
        model, tokenizer, list(map(prompts.asked, rows)) * 2, contexts * 2, texts[0] + texts[1], batch_size=batch_size, folder=folder
    )[:, 0]  # fmt: skip
    keeps, breaks = np.split(found, 2)
    return keeps - breaks


def rules_against_readings():
    """`pandas.DataFrame`, a row for each wish in `labelled.jsonl` on which both readings agree, of the topics' sample the
    topic alone: `sample`, `model`, `kind`, whether it was `read` as kept, whether its rule says `kept`, and the `weight`
    of the row: how many responses it stands for."""
    import pandas as pd

    table = []
    for row in sources.read_jsonl(sources.data_folder() / "labelled.jsonl"):
        told = tuple(wish["text"] for wish in row["wishes"])
        response, weight = Response(row["response"], row["name"], told), row.get("weight", 1.0)
        for wish, first, second in zip(row["wishes"], *row["kept"], strict=True):
            if first == second and wish["kind"] == row.get("topic", wish["kind"]):
                found = {"read": first, "kept": KINDS[wish["kind"]].keeps(response, wish["value"]), "weight": weight}
                table.append({"sample": row["sample"], "model": row["model"], "kind": wish["kind"], **found})
    return pd.DataFrame(table)


def precision_and_recall(some):
    """{"precision", "recall"} of rules on rows of `rules_against_readings`, each a `statistics.Estimate` with Wilson's
    interval. Precision is a share of what the rules call kept; in recall rows count by their weight, its interval by
    their number."""
    both = some[some["read"] & some["kept"]]
    precision = statistics.share(len(both), int(some["kept"].sum()))
    read = some[some["read"]]
    recall = both["weight"].sum() / read["weight"].sum()
    return {
        "precision": precision,
        "recall": statistics.Estimate(recall, *statistics.wilson(recall, len(read)), len(read)),
    }
