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

# A refusal speaks in the first person, or of the question; "I can't wait" and "if you are unable to" are none.
_REFUSAL = re.compile(
    r"\bi (?:can(?:no|['’])t|can not|could(?: not|n['’]t))\b(?! wait| help but| stress| imagine| emphasi[sz]e| recommend)"
    r"|\bi(?:['’]m| am) (?:not able|unable|afraid (?:i|that|not)\b|sorry,? but)|\bas an? (?:ai|(?:large )?language model)\b"
    r"|\bi (?:do not|don['’]t) (?:have (?:access|enough|the ability)|know(?: the answer|[.!]|$))"
    r"|\bnot enough information\b|\bcannot be (?:determined|answered)\b"
    r"|\blo siento,? (?:pero )?no\b|\bno puedo (?:ayudar|responder)|\bdésolée?,? (?:mais )?je ne\b|\bje ne peux pas\b",
    re.IGNORECASE,
)


def refuses(text):
    """Whether a text refuses to answer, by the usual words of a refusal; every count of refusals uses this rule."""
    return bool(_REFUSAL.search(text))


def preferences_kept(rows, responses):
    """Array [n]: share of the row's checkable preferences that the response keeps, NaN where a row has none."""
    shares = []
    for row, response in zip(rows, responses, strict=True):
        keeps = [preferences.keeps(response, p, row["name"]) for p in preferences.checkable(row["preferences"])]
        shares.append(np.mean(keeps) if keeps else np.nan)
    return np.array(shares, dtype=float)


def preference_kinds(rows):
    """The kind of each row's first checkable preference, "" where it has none."""
    return [next((p["kind"] for p in preferences.checkable(r["preferences"])), "") for r in rows]


def text_health(rows, responses):
    """`pandas.DataFrame` [n rows]: what must not get worse while another score gets better.

    `repetition`: share of 4-grams of words that occurred before in the response. `refusal`: 0 or 1, by `refuses`.
    `words`: length. `echo`: share of the response's 4-grams that are copied from the context. `asked_short`: whether
    the user asked for at most N words.
    """
    import pandas as pd

    return pd.DataFrame([_health(row, response) for row, response in zip(rows, responses, strict=True)])


def _health(row, response):
    grams, context_grams = n_grams(response), set(n_grams(row["context"]))
    return {
        "repetition": 1 - len(set(grams)) / len(grams) if grams else 0.0,
        "refusal": float(refuses(response)),
        "words": float(len(preferences.words(response))),
        "echo": float(np.mean([gram in context_grams for gram in grams])) if grams else 0.0,
        "asked_short": any(p["kind"] == "at_most_words" for p in row["preferences"]),
    }


def n_grams(text, n=4):
    """The runs of n words of a text, in order and in lower case, as tuples."""
    words = [word.lower() for word in preferences.words(text)]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(responses, n=2):
    """Distinct n-grams over all n-grams of a set of responses (Li et al. 2016, arXiv 1510.03055), 0 to 1."""
    grams = [gram for response in responses for gram in n_grams(response, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def candidate_contexts(rows, k, *, seed=0):
    """n lists of k contexts: the row's own first, then k-1 of other users, drawn without repeats.

    Raises `UserError` when there are fewer than k different contexts.
    """
    owners = {(r["context"], r["user_id"]) for r in rows}
    rng = random.Random(f"contexts-{seed}")
    candidates = []
    for row in rows:
        others = sorted({c for c, _ in owners} - {c for c, user in owners if user == row["user_id"]})
        if k - 1 > len(others):
            raise UserError(f"K is {k} but there are only {len(others) + 1} different contexts; lower K or add users.")
        candidates.append([row["context"], *rng.sample(others, k - 1)])
    return candidates


def identify_by_encoder(encoder, responses, candidates):
    """Array [n, K]: cosine of the response and each candidate context under an independent sentence encoder."""
    contexts = sorted({c for row in candidates for c in row})
    index = {c: i for i, c in enumerate(contexts)}
    context_vectors, vectors = encoder.encode(contexts), encoder.encode(list(responses))
    return np.stack([context_vectors[[index[c] for c in row]] @ v for row, v in zip(candidates, vectors, strict=True)])


def identification(scores):
    """{"auc": [n], "top1": [n]} from scores [n, K] with the true context in column 0; chance is 1/2 and 1/K."""
    return {"auc": area_under_curve(scores), "top1": identified(scores)}


def views(rows, responses, encoder, candidates):
    """{view: array [n]} of one model's responses, without likelihoods: "kept", "identified" (AUC among the `candidates`
    of `candidate_contexts`), "repetition", "refusal", "echo", and "words", NaN where the user asked for few."""
    health = text_health(rows, responses)
    return {
        "kept": preferences_kept(rows, responses),
        "identified": identification(identify_by_encoder(encoder, responses, candidates))["auc"],
        "words": health["words"].where(~health["asked_short"]).to_numpy(),
        **{view: health[view].to_numpy() for view in ("repetition", "refusal", "echo")},
    }
