"""Four views of personalization that can disagree: objective, identification, preferences kept, text health.

All functions take rows of personal prompts and one response text per row, and return arrays row by row, so that
models are compared in pairs (`statistics.paired_difference`), clustered by user.
"""

import math
import random

import numpy as np

from mipo_nb import preferences
from mipo_nb.base.errors import UserError
from mipo_nb.information import area_under_curve, identified
from mipo_nb.wishes import recital
from mipo_nb.wishes.kind import FAMILIES
from mipo_nb.wishes.refusals import refuses

PRICES = ("repetition", "refusal", "echo", "empty", "cut", "words")  # what must not be paid for a gain


def preferences_kept(rows, responses):
    """Array [n]: share of the row's checkable preferences that the response keeps, NaN where a row has none."""
    shares = []
    for row, response in zip(rows, _read(rows, responses), strict=True):
        wished = preferences.checkable(row["preferences"])
        keeps = [preferences.KINDS[p["kind"]].keeps(response, p["value"]) for p in wished]
        shares.append(np.mean(keeps) if keeps else np.nan)
    return np.array(shares, dtype=float)


def kept_matrix(rows, responses):
    """(kinds, array [n responses, kinds] of bool): every rule on every response, whatever its user wished.

    What a user's own kind shows beyond the same column at other users' responses is for the user; the rest is a style for
    everyone. A number (of `at_most_words`) is the user's own, else in turn one of those that other users named.
    """
    kinds, wished = preferences.kinds_among(rows), [preferences.checkable(row["preferences"]) for row in rows]
    own = [{p["kind"]: p["value"] for p in some} for some in wished]
    named = {kind: [values[kind] for values in own if values.get(kind) is not None] or [None] for kind in kinds}
    kept = np.zeros((len(own), len(kinds)), dtype=bool)
    for i, response in enumerate(_read(rows, responses)):
        for j, kind in enumerate(kinds):
            value = own[i].get(kind, named[kind][i % len(named[kind])])
            kept[i, j] = preferences.KINDS[kind].keeps(response, value)
    return kinds, kept


def _read(rows, responses):
    """Each response as its user's `preferences.Response`, with the wishes as the row and its context word them."""
    for row, text in zip(rows, responses, strict=True):
        wishes = recital.wishes_in(row["context"], tuple(p["text"] for p in row["preferences"]))
        yield preferences.Response(text, row["name"] or "", wishes)


def asked_matrix(rows, kinds):
    """Array [n, kinds] of bool: which of the `kinds` each row's user wished."""
    wished = [{p["kind"] for p in preferences.checkable(row["preferences"])} for row in rows]
    return np.array([[kind in some for kind in kinds] for some in wished], dtype=bool)


def for_the_user(asked, kept):
    """{"kept", "for everyone", "for the user"}: arrays [n] whose means are three shares of the wishes, 0 to 1.

    `asked` [n, kinds] says which kinds a row's user wished, `kept` [n, kinds] which its response keeps, asked or not (0
    to 1: several draws may be averaged). "kept" is how often a wish is kept; "for everyone" how often the responses to
    users who did not wish it keep the same kind, a style; "for the user" is the first without the second. The values are
    linear in the responses, so that differences of models can be averaged over users and trainings as any others; a
    kind that nobody, or everybody, wished counts for nothing.
    """
    asked, kept = np.asarray(asked, dtype=float), np.asarray(kept, dtype=float)
    wishes, others = asked.sum(0), (1 - asked).sum(0)
    counted = (wishes > 0) & (others > 0)
    weight = np.where(counted, wishes, 0) / max(wishes[counted].sum(), 1)  # each kind's share of all wishes
    own = asked * kept @ (weight / np.maximum(wishes, 1)) * len(asked)
    style = (1 - asked) * kept @ (weight / np.maximum(others, 1)) * len(asked)
    return {"kept": own, "for everyone": style, "for the user": own - style}


def measured(rows, draws):
    """{view: array [n]} of one model's responses, averaged over `draws`, what `generation.sample_draws` returned.

    The shares of `for_the_user`, of all kinds and (with ", recital-proof") of those that telling a wish back cannot
    keep; "for the user, form" and so on, of one family of kinds; and the prices of `text_health`. Views of wishes are all
    0 where no row has one that a rule can check.
    """
    matrices = [kept_matrix(rows, list(draw["text"])) for draw in draws]
    kinds, kept = matrices[0][0], np.mean([matrix for _, matrix in matrices], axis=0)
    asked, families = asked_matrix(rows, kinds), np.array([preferences.KINDS[kind].family for kind in kinds])
    proof = np.array([preferences.proven(kind, rows) for kind in kinds])
    health = [text_health(rows, list(draw["text"]), draw["finished"]) for draw in draws]
    prices = {price: np.mean([table[price] for table in health], axis=0) for price in PRICES}
    proven = for_the_user(asked[:, proof], kept[:, proof])
    views = for_the_user(asked, kept) | {f"{view}, recital-proof": v for view, v in proven.items()}
    for family in FAMILIES:
        own = families == family
        views[f"for the user, {family}"] = for_the_user(asked[:, own], kept[:, own])["for the user"]
    return views | prices


def misapplied(rows, responses):
    """Array [n]: share of the user's wishes that must not act on the row (its `must_not`, a list of kinds) and do; NaN
    where the user has none of these. What a response to somebody else's letter owes to nobody's wish."""
    kinds, kept = kept_matrix(rows, responses)
    asked = asked_matrix(rows, kinds) & np.array([[kind in row["must_not"] for kind in kinds] for row in rows])
    with np.errstate(invalid="ignore"):
        return (asked & kept).sum(1) / asked.sum(1)


def preference_kinds(rows):
    """The kind of each row's first checkable preference, "" where it has none."""
    return [next((p["kind"] for p in preferences.checkable(r["preferences"])), "") for r in rows]


def text_health(rows, responses, finished=None):
    """`pandas.DataFrame` [n rows]: what must not get worse while another score gets better.

    `repetition`: share of 4-grams of words that occurred before in the response. `refusal`: 0 or 1, by `refuses`.
    `words`: length. `echo`: share of the response's 4-grams that are copied from the context. `empty`: 0 or 1.
    `asked_short`: whether the user asked for a short answer. `cut`: 0 or 1, where `finished` [n] says which responses
    ended by themselves.
    """
    import pandas as pd

    table = pd.DataFrame([_health(row, response) for row, response in zip(rows, responses, strict=True)])
    return table if finished is None else table.assign(cut=1.0 - np.asarray(finished, dtype=float))


def _health(row, response):
    grams, context_grams = n_grams(response), set(n_grams(row["context"]))
    return {
        "repetition": 1 - len(set(grams)) / len(grams) if grams else 0.0,
        "refusal": float(refuses(response)),
        "words": float(len(preferences.words(response))),
        "echo": float(np.mean([gram in context_grams for gram in grams])) if grams else 0.0,
        "empty": float(not response.strip()),
        "asked_short": any(p["kind"] in ("at_most_words", "one_sentence") for p in row["preferences"]),
    }


def n_grams(text, n=4):
    """The runs of n words of a text, in order and in lower case, as tuples."""
    words = [word.lower() for word in preferences.words(text)]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(responses, n=2):
    """Distinct n-grams over all n-grams of a set of responses (Li et al. 2016, arXiv 1510.03055), 0 to 1."""
    grams = [gram for response in responses for gram in n_grams(response, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def best_of(values, n):
    """Array [rows]: expected best of `n` draws without replacement, from all the draws `values` [rows, N] of each row.
    Unbiased for the best of n fresh draws: E = sum_i v_(i) C(i-1, n-1) / C(N, n) over the values in rising order. For
    values 0 and 1 it is pass@n (Chen et al. 2021, arXiv 2107.03374). Raises `ValueError` for n outside 1 to N."""
    values = np.sort(np.asarray(values, dtype=float), axis=1)
    size = values.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"The best of {n} cannot be had from {size} draws.")
    weights = np.array([math.comb(i, n - 1) / math.comb(size, n) for i in range(size)])  # of whole numbers of any size
    return values @ weights


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


def told_apart(encoder, rows, responses, *, k=4, seed=0):
    """Array [n], 0 to 1: how often a response is nearer to its own user's context than to that of one of k - 1 others, under
    an independent sentence encoder; chance is 1/2. Needs no rule. Fewer others where there are not so many; NaN for all
    where there are none."""
    contexts, own = {row["context"] for row in rows}, {}
    for row in rows:
        own.setdefault(row["user_id"], set()).add(row["context"])
    k = min(k, 1 + min(len(contexts - of_user) for of_user in own.values()))
    if k < 2:
        return np.full(len(rows), np.nan)
    candidates = candidate_contexts(rows, k, seed=seed)
    return identification(identify_by_encoder(encoder, responses, candidates))["auc"]


def identification(scores):
    """{"auc": [n], "top1": [n]} from scores [n, K] with the true context in column 0; chance is 1/2 and 1/K."""
    return {"auc": area_under_curve(scores), "top1": identified(scores)}
