"""Contrastive pairs: a response to the real prompt against a response to another one. Builders and their audits.

A pair has `prompt`, `chosen`, `rejected` as message lists (TRL's conversational preference format),
`chosen_ids` and `rejected_ids` (the tokens that are scored and trained on), `pair_id`, `negative` (how the rejected side
was made) and `user_id`. The prompt is always the real one, context included.
"""

import contextlib
import math
import random
import re

from mipo_nb import prompts
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.engine.templates import thinks_aloud

NEGATIVES = ("missing_context", "random_context", "random_prompt", "random_wish", "random_person")
SIDES = ("chosen", "rejected")


def positive_conversations(rows):
    """What the chosen side is sampled from: the real prompt x with the user's context c, y+ ~ pi_ref(.|x,c)."""
    return [prompts.messages(prompts.asked(r), r["context"]) for r in rows]


def negative_conversations(rows, negative, *, seed=0):
    """What the rejected side is sampled from, one conversation per row: what its context lacks is what is learned.

    `missing_context`: y- ~ pi_ref(.|x); `random_context`: y- ~ pi_ref(.|x,c') with c' of another user; `random_prompt`:
    y- ~ pi_ref(.|x',c) with another prompt. Where rows have a `biography` b and a `wish` w, which make the context,
    `random_wish`: y- ~ pi_ref(.|x,b,w') keeps the person and has another's wish, of other kinds as far as known, and
    `random_person`: y- ~ pi_ref(.|x,b',w). Raises `UserError` for another name, for rows without these parts, or where
    there is only one user or prompt to choose from.
    """
    require_known("negative", negative, NEGATIVES)
    rows = list(rows)
    if negative == "missing_context":
        return [prompts.messages(prompts.asked(r)) for r in rows]
    rng = random.Random(f"{negative}-{seed}")
    for column in _PARTS[negative]:
        if not all(r.get(column) for r in rows):
            raise UserError(
                f"'{negative}' needs a {column} in every row, and one is empty; fill it, or use another negative."
            )
    return [prompts.messages(*_exchanged(row, negative, rows, rng)) for row in rows]


def possible_negatives(rows, *, seed=0):
    """{negative: `negative_conversations`} for each of NEGATIVES that these rows have the parts for."""
    found = {}
    for negative in NEGATIVES:
        with contextlib.suppress(UserError):
            found[negative] = negative_conversations(rows, negative, seed=seed)
    return found


# The part that is exchanged, and what else goes into the context then.
_PARTS = {
    "random_context": ("context",),
    "random_prompt": ("prompt",),
    "random_wish": ("wish", "biography"),
    "random_person": ("biography", "wish"),
}


def _exchanged(row, negative, rows, rng):
    """(prompt, context) of a row with one part of another row."""
    column = _PARTS[negative][0]
    # Same text or same user is never "another", so the row's own context cannot come back as the random one.
    any_user = negative == "random_prompt"
    others = [o for o in rows if o[column] != row[column] and (any_user or o["user_id"] != row["user_id"])]
    if negative == "random_wish":
        others = [o for o in others if not _kinds(o) & _kinds(row)] or others
    if not others:
        raise UserError(f"'{negative}' needs at least two different {column}s; add rows, or use another negative.")
    other = rng.choice(others)
    if negative == "random_wish":
        return prompts.asked(row), f"{row['biography']} {_renamed(other['wish'], other, row)}"
    if negative == "random_person":
        return prompts.asked(row), f"{other['biography']} {_renamed(row['wish'], row, other)}"
    return prompts.asked(other if any_user else row), (row if any_user else other)["context"]


def _kinds(row):
    return {p["kind"] for p in row.get("preferences") or () if p.get("kind")}


def _renamed(text, of, to):
    """A text about one user as it would be said of another."""
    return re.sub(rf"\b{re.escape(of['name'])}\b", to["name"], text) if of.get("name") and to.get("name") else text


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

    `chosen` and `rejected` are what `generation.sample` returns, or lists of texts, row by row; the prompt is
    `conversations[i]`, by default from `positive_conversations` for rows of personal prompts. Left out, in this order:
    a side that is None, which was not asked (`with_room`), an empty side, one that thinks aloud, sides of one text, a side
    with which the prompt exceeds `max_length` tokens
    (TRL would cut or drop it silently). "cut" counts the responses, two a row, that reached the limit of their tokens.
    Sampled tokens go with the pair as `chosen_ids` and `rejected_ids`: with an end only where it was sampled. Raises
    `UserError` when fewer than `at_least` pairs are left.
    """
    from datasets import Dataset

    pairs, counts = [], {"rows": len(rows), "empty": 0, "thinking": 0, "identical": 0, "over-long": 0}
    conversations = positive_conversations(rows) if conversations is None else conversations
    chosen, rejected = list(map(_response, chosen)), list(map(_response, rejected))
    for number, (row, conversation, *sides) in enumerate(zip(rows, conversations, chosen, rejected, strict=True)):
        plus, minus = (side["text"].strip() if side else None for side in sides)
        if None in (plus, minus):
            counts["over-long"] += 1
        elif not plus or not minus:
            counts["empty"] += 1
        elif any(thinks_aloud(tokenizer, said) for y in sides for said in (y["text"], y.get("tokens") or "")):
            counts["thinking"] += 1
        elif plus == minus:
            counts["identical"] += 1
        elif (ids := _tokens(tokenizer, conversation, sides, max_length)) is None:
            counts["over-long"] += 1
        else:
            labels = {"pair_id": f"{negative}-{number:05d}", "negative": negative, "user_id": row.get("user_id", "")}
            answers = {name: _answer(side["text"]) for name, side in zip(SIDES, sides, strict=True)}
            pairs.append({"prompt": conversation, **answers, **ids, **labels})
    counts |= {"pairs": len(pairs), "cut": sum(not side["finished"] for side in chosen + rejected if side)}
    if len(pairs) < at_least:
        raise UserError(
            f"Only {len(pairs)} of {len(rows)} rows make a usable pair ({counts['empty']} empty, {counts['thinking']} "
            f"thinking aloud, {counts['identical']} identical, {counts['over-long']} over-long) and {at_least} are needed; add rows or raise max_length."
        )
    return Dataset.from_list(pairs), counts


def with_room(tokenizer, asked, others, *, max_length, window, response):
    """The numbers of the rows whose prompts leave room for a response of so many tokens in the `window` that the model reads
    at once (None: no end), in the conversations of both sides. The pair is trained on the first, so it is to be shorter
    than `max_length` too."""
    fit = []
    for i, both in enumerate(zip(asked, others, strict=True)):
        trained, other = (len(prompts.prompt_ids(tokenizer, conversation)) for conversation in both)
        if (max_length is None or trained < max_length) and (not window or max(trained, other) + response <= window):
            fit.append(i)
    return fit


def _response(of):
    return of if of is None or isinstance(of, dict) else {"text": of, "finished": True}


def _tokens(tokenizer, conversation, sides, max_length):
    """{"chosen_ids", "rejected_ids"} of two responses, None where the prompt with one of them is too long."""
    room = (max_length or math.inf) - len(prompts.prompt_ids(tokenizer, conversation))
    said = [side["text"] if side.get("tokens") is None else side["tokens"] for side in sides]
    ids = [prompts.completion_ids(tokenizer, conversation, response) for response in said]
    return None if max(map(len, ids)) > room else {f"{name}_ids": y for name, y in zip(SIDES, ids, strict=True)}


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

    other = {
        name: name.replace(*order) for order in (SIDES, SIDES[::-1]) for name in pairs.column_names if order[0] in name
    }

    def exchange(row, index):
        return {name: row[other[name]] for name in other} if index in swapped else {}

    return pairs.map(exchange, with_indices=True)


def audit(pairs, tokenizer):
    """A `pandas.DataFrame`, one row per pair: tokens of both sides, their gap, word overlap, shared opening words.

    `overlap` is the Jaccard index of the two word sets. Where `gap` is nearly always on one side of 0, length alone tells the
    sides apart.
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
