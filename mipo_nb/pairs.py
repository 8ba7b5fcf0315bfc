"""Contrastive pairs: a response to the real prompt against a response to another one. Builders and their audits.

A pair has `prompt`, `chosen`, `rejected` as message lists (TRL's conversational preference format), `pair_id`,
`negative` (how the rejected side was made) and `user_id`. The prompt is always the real one, context included.
"""

import random

from mipo_nb import prompts
from mipo_nb.base.errors import UserError, require_known

NEGATIVES = ("missing_context", "random_context", "random_prompt")


def positive_conversations(rows):
    """What the chosen side is sampled from: the real prompt x with the user's context c, y+ ~ pi_ref(.|x,c)."""
    return [prompts.messages(r["prompt"], r["context"]) for r in rows]


def negative_conversations(rows, negative, *, seed=0):
    """What the rejected side is sampled from, one conversation per row.

    `missing_context`: y- ~ pi_ref(.|x); `random_context`: y- ~ pi_ref(.|x,c') with c' of another user;
    `random_prompt`: y- ~ pi_ref(.|x',c) with another prompt. Raises `UserError` for another name, or where there is
    only one user or prompt to choose from.
    """
    require_known("negative", negative, NEGATIVES)
    rows = list(rows)
    if negative == "missing_context":
        return [prompts.messages(r["prompt"]) for r in rows]
    rng = random.Random(f"{negative}-{seed}")
    any_user = negative == "random_prompt"
    column = "prompt" if any_user else "context"
    conversations = []
    for row in rows:
        # Same text or same user is never "another", so the row's own context cannot come back as the random one.
        others = [o for o in rows if o[column] != row[column] and (any_user or o["user_id"] != row["user_id"])]
        if not others:
            raise UserError(f"'{negative}' needs at least two different {column}s; add rows, or use another negative.")
        changed = {**row, column: rng.choice(others)[column]}
        conversations.append(prompts.messages(changed["prompt"], changed["context"]))
    return conversations


def shuffled(claims, *, seed=0):
    """A permutation, list [n]: whose response each row gets as its rejected one, y- ~ pi_ref(.|x') by reuse.

    `claims` [n] is what each response claims as its answer, None where it claims nothing. No row gets its own response,
    nor one with its own claim, which would reject what it chooses. Where one claim holds more than half of the rows, a
    random surplus of them keep their own; `build` leaves these out as identical. Right answers are not used: they would
    be labels. Raises `UserError` where nothing is left to exchange.
    """
    n, rng = len(claims), random.Random(f"shuffled-{seed}")
    most_common = max((c for c in claims if c is not None), key=claims.count, default=None)
    holders = [i for i, c in enumerate(claims) if c is not None and c == most_common]
    surplus = set(rng.sample(holders, 2 * len(holders) - n)) if 2 * len(holders) > n else ()
    rows = [i for i in range(n) if i not in surplus]
    if len(rows) < 2:
        raise UserError(
            f"{len(holders)} of {n} responses claim the same answer, so none can get another one's; add problems."
        )
    order, shuffled_rows = list(range(n)), rows.copy()
    rng.shuffle(shuffled_rows)
    for i, k in zip(rows, shuffled_rows, strict=True):
        order[i] = k
    clash = lambda i, j: i == j or (claims[i] is not None and claims[i] == claims[j])  # noqa: E731
    while clashing := [i for i in rows if clash(i, order[i])]:
        i = rng.choice(clashing)
        # An exchange that mends this row and spoils no other; where there is none, any exchange, to leave the impasse.
        partners = [k for k in rows if not clash(i, order[k]) and not clash(k, order[i])]
        k = rng.choice(partners or rows)
        order[i], order[k] = order[k], order[i]
    return order


def build(rows, chosen, rejected, tokenizer, *, negative, max_length, at_least=1, conversations=None):
    """(pairs, counts): the usable pairs as a `datasets.Dataset`, and how many rows went where.

    `chosen` and `rejected` are lists of response texts, row by row; the prompt is `conversations[i]`, by default from
    `positive_conversations` for rows of personal prompts. Left out, in this order: an empty side, one that thinks aloud, sides
    of one text, a side with which the prompt exceeds `max_length` tokens (TRL would cut or drop it silently). Raises `UserError` when
    fewer than `at_least` pairs are left.
    """
    from datasets import Dataset

    pairs, counts = [], {"rows": len(rows), "empty": 0, "thinking": 0, "identical": 0, "over-long": 0}
    conversations = positive_conversations(rows) if conversations is None else conversations
    for number, (row, conversation, plus, minus) in enumerate(zip(rows, conversations, chosen, rejected, strict=True)):
        if not plus.strip() or not minus.strip():
            counts["empty"] += 1
        elif any(mark in plus + minus for mark in ("<think>", "</think>")):
            counts["thinking"] += 1
        elif plus.strip() == minus.strip():
            counts["identical"] += 1
        elif any(_n_tokens(tokenizer, conversation, side) > max_length for side in (plus, minus)):
            counts["over-long"] += 1
        else:
            labels = {"pair_id": f"{negative}-{number:05d}", "negative": negative, "user_id": row.get("user_id", "")}
            sides = {"chosen": _answer(plus), "rejected": _answer(minus)}
            pairs.append({"prompt": conversation, **sides, **labels})
    counts["pairs"] = len(pairs)
    if len(pairs) < at_least:
        raise UserError(
            f"Only {len(pairs)} of {len(rows)} rows make a usable pair ({counts['empty']} empty, {counts['thinking']} "
            f"thinking aloud, {counts['identical']} identical, {counts['over-long']} over-long) and {at_least} are needed; add rows or raise max_length."
        )
    return Dataset.from_list(pairs), counts


def _n_tokens(tokenizer, conversation, response):
    prompt = prompts.prompt_ids(tokenizer, conversation)
    return len(prompt) + len(prompts.completion_ids(tokenizer, conversation, response))


def _answer(text):
    return [{"role": "assistant", "content": text}]


def texts(pairs, side):
    """The response texts of one side, "chosen" or "rejected"."""
    return [row[-1]["content"] for row in pairs[side]]


def with_reference(pairs, reference):
    """Pairs with the columns from which TRL reads the reference's log-probs: `reference` is [pairs, 2], in nats."""
    for name, values in zip(("ref_chosen_logps", "ref_rejected_logps"), reference.T.tolist(), strict=True):
        pairs = pairs.add_column(name, values)
    return pairs


def swap_sides(pairs, *, seed=0):
    """The control: the same pairs with the sides of a random half exchanged, so that nothing is left to learn."""
    order = list(range(len(pairs)))
    random.Random(f"swap-{seed}").shuffle(order)
    swapped = set(order[: len(order) // 2])

    def exchange(row, index):
        return {"chosen": row["rejected"], "rejected": row["chosen"]} if index in swapped else {}

    return pairs.map(exchange, with_indices=True)


def audit(pairs, tokenizer):
    """A `pandas.DataFrame`, one row per pair: tokens of both sides, their gap, word overlap, shared opening words.

    `overlap` is the Jaccard index of the two word sets. `longer_is_chosen` of `gap` far from one half warns that length
    alone tells the sides apart.
    """
    import pandas as pd

    table = []
    for pair_id, plus, minus in zip(pairs["pair_id"], texts(pairs, "chosen"), texts(pairs, "rejected"), strict=True):
        chosen, rejected = (len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in (plus, minus))
        lengths = {"chosen_tokens": chosen, "rejected_tokens": rejected, "gap": chosen - rejected}
        a, b = set(plus.lower().split()), set(minus.lower().split())
        likeness = {"overlap": len(a & b) / len(a | b), "same_opening": plus.split()[:3] == minus.split()[:3]}
        table.append({"pair_id": pair_id, **lengths, **likeness})
    return pd.DataFrame(table)


def longer_is_chosen(gaps):
    """Accuracy of the rule "the longer response is the chosen one", ties counting half."""
    import numpy as np

    gaps = np.asarray(gaps)
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
