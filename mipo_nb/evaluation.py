"""Four views of personalization that can disagree: objective, identification, preferences kept, text health.

All functions take rows of personal prompts and one response text per row, and return arrays row by row, so that
models are compared in pairs (`statistics.paired_difference`), clustered by user.
"""

import random
import re

import numpy as np

from mipo_nb import preferences
from mipo_nb.base.errors import UserError
from mipo_nb.information import area_under_curve, identified

_REFUSAL = re.compile(
    r"\b(?:i['’]?m sorry|i am sorry|i can(?:no|['’])t|i cannot|unable to|i['’]?m afraid|as an ai|i don['’]t have (?:access|enough)"
    r"|i['’]?m not able)\b",
    re.IGNORECASE,
)


def preferences_kept(rows, responses):
    """Array [n]: share of the row's checkable preferences that the response keeps, NaN where a row has none."""
    shares = []
    for row, response in zip(rows, responses, strict=True):
        own = preferences.checkable(row["preferences"])
        kept = [preferences.keeps(response, p, row["name"]) for p in own]
        shares.append(np.mean(kept) if kept else np.nan)
    return np.array(shares, dtype=float)


def preference_kinds(rows):
    """The kind of each row's first checkable preference, "" where it has none."""
    return [next((p["kind"] for p in preferences.checkable(r["preferences"])), "") for r in rows]


def text_health(rows, responses):
    """`pandas.DataFrame` [n rows]: what a better score must not be paid with.

    `repetition`: share of 4-grams of words that occurred before in the response. `refusal`: 0 or 1 by its usual words.
    `words`: length. `echo`: share of the response's 4-grams that are copied from the context. `asked_short`: whether
    the user asked for at most so many words.
    """
    import pandas as pd

    table = []
    for row, response in zip(rows, responses, strict=True):
        grams = _four_grams(response)
        source = set(_four_grams(row["context"]))
        table.append(
            {
                "repetition": 1 - len(set(grams)) / len(grams) if grams else 0.0,
                "refusal": float(bool(_REFUSAL.search(response))),
                "words": float(len(preferences.words(response))),
                "echo": float(np.mean([g in source for g in grams])) if grams else 0.0,
                "asked_short": any(p["kind"] == "at_most_words" for p in row["preferences"]),
            }
        )
    return pd.DataFrame(table)


def _four_grams(text):
    found = [w.lower() for w in preferences.words(text)]
    return [tuple(found[i : i + 4]) for i in range(len(found) - 3)]


def distinct(responses, n=2):
    """Distinct n-grams over all n-grams of a set of responses (Li et al. 2016, arXiv 1510.03055), 0 to 1."""
    grams = []
    for response in responses:
        found = [w.lower() for w in preferences.words(response)]
        grams += [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def candidate_contexts(rows, k, *, seed=0):
    """n lists of k contexts: the row's own first, then k-1 of other users, drawn without repeats.

    Raises `UserError` when there are fewer than k different contexts.
    """
    owners = sorted({(r["context"], r["user_id"]) for r in rows})
    rng = random.Random(f"contexts-{seed}")
    drawn = []
    for row in rows:
        own = {c for c, u in owners if u == row["user_id"]}
        others = sorted({c for c, _ in owners} - own)
        if k - 1 > len(others):
            raise UserError(f"K is {k} but there are only {len(others) + 1} different contexts; lower K or add users.")
        drawn.append([row["context"], *rng.sample(others, k - 1)])
    return drawn


def identify_by_encoder(encoder, responses, candidates):
    """Array [n, K]: cosine of the response and each candidate context under an independent sentence encoder."""
    flat = sorted({c for row in candidates for c in row})
    place = {c: i for i, c in enumerate(flat)}
    contexts, vectors = encoder.encode(flat), encoder.encode(list(responses))
    return np.stack([contexts[[place[c] for c in row]] @ v for row, v in zip(candidates, vectors, strict=True)])


def identification(scores):
    """{"auc": [n], "top1": [n]} from scores [n, K] with the true context in column 0; chance is 1/2 and 1/K."""
    return {"auc": area_under_curve(scores), "top1": identified(scores)}


def views(rows, responses, encoder, candidates):
    """{view: array [n]} of one model's responses, those that need no likelihoods: "kept", "identified" (AUC among the
    `candidates` of `candidate_contexts`), "repetition", "refusal", "echo", and "words", NaN where few were asked for."""
    health = text_health(rows, responses)
    return {
        "kept": preferences_kept(rows, responses),
        "identified": identification(identify_by_encoder(encoder, responses, candidates))["auc"],
        "words": health["words"].where(~health["asked_short"]).to_numpy(),
        **{view: health[view].to_numpy() for view in ("repetition", "refusal", "echo")},
    }
