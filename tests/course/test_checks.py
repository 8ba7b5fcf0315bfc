"""Self-checks of the exercises: right answers pass, the usual wrong ones do not, and nothing is ever raised."""

import inspect
import itertools
import math
import re
from collections import Counter
from functools import reduce
from operator import or_
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import logit, logsumexp
from scipy.stats import binom

from mipo_nb import pairs
from mipo_nb.base.files import project_root
from mipo_nb.course import baseline_checks, checks, practice_checks, reproduction_checks, study_checks
from mipo_nb.information import contrastive_bound, donsker_varadhan_bound
from mipo_nb.objectives import sami_loss
from mipo_nb.paper import win_rates
from mipo_nb.studies import creative, sweeps
from mipo_nb.verifiable import decomposition

# --- right answers ---


def differing(chosen, rejected):
    return [part for part in chosen if chosen[part] != rejected.get(part)]


def told(table):
    own, exchanged = table
    return own - exchanged


def moved_by_the_other_wish(p, beta):
    log_p = np.log(p)
    best = log_p[:, 0] + (log_p[:, 0] - log_p[:, 1]) / beta
    return (best[0] - best[1]) - (log_p[0, 0] - log_p[1, 0])


def half_for_ties(gaps):
    return np.mean([1.0 if g > 0 else 0.5 if g == 0 else 0.0 for g in gaps])


def tilted(reference, ratio, exponent):
    weight = reference * ratio**exponent
    return weight / weight.sum()


def other(rows, i, *, own_prompt_first=True, last=False):
    found = [j for j, r in enumerate(rows) if r["user_id"] != rows[i]["user_id"]]
    same = [j for j in found if rows[j]["prompt"] == rows[i]["prompt"]]
    return ((own_prompt_first and same) or found)[-1 if last else 0]


def dealt(claims, turn=None):
    order = sorted(range(len(claims)), key=lambda i: claims[i])
    turn = turn or max(claims.count(claim) for claim in claims)
    return [order[(order.index(i) + turn) % len(order)] for i in range(len(claims))]


def shapley_of_two(b, a, i):
    return float(decomposition.split(b, a)[i])


def between_minus_within(grid):
    places = list(itertools.product(range(grid.shape[0]), range(grid.shape[1])))
    pairs_of = [(a, b, 1 - grid[a] @ grid[b]) for a, b in itertools.permutations(places, 2)]
    return np.mean([d for a, b, d in pairs_of if a[0] != b[0]]) - np.mean([d for a, b, d in pairs_of if a[0] == b[0]])


def net_gain(n, moved, least):
    return sum(binom.pmf(k, n, moved) * binom.sf((least + k - 1) // 2, k, 0.5) for k in range(n + 1))


def net_gain_by_steps(n, moved, least):
    walk = np.array([1.0])
    for _ in range(n):
        walk = np.convolve(walk, [moved / 2, 1 - moved, moved / 2])
    return walk[n + least :].sum()


ANA, BEN = np.array([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]])
ANYONE = (ANA + BEN) / 2


def of_swim(beta):
    weight = ANA * (ANA / ANYONE) ** (1 / beta)
    return weight[0] / weight.sum()


def bounds_of_16(n=4000, dimensions=10):
    """The game of notebook 02, played."""
    rng, found = np.random.default_rng(0), []
    for nats in (0.5, 2.0, 8.0):
        rho2 = 1 - math.exp(-2 * nats / dimensions)
        x = rng.standard_normal((16, n, dimensions))
        y = math.sqrt(rho2) * x[0] + math.sqrt(1 - rho2) * rng.standard_normal((n, dimensions))
        pmi = (x * y * math.sqrt(rho2) - (x**2 + y**2) * rho2 / 2).sum(-1) / (1 - rho2)
        found.append(contrastive_bound(pmi.T))
    return found


RIGHT = {
    "weights_in_gigabytes": [lambda n, bits: n * bits / 8 / 1e9, lambda n, bits: np.float64(n) * (bits / 8) * 1e-9],
    "steps_of": [lambda n, size, epochs: math.ceil(n / size) * epochs, lambda n, s, e: e * ((n + s - 1) // s)],
    "times_likelier": [math.exp, lambda nats: 10 ** (nats / math.log(10))],
    "best_of": [
        lambda n, m, d: np.random.default_rng(1).normal(m, d, (40_000, n)).max(axis=1).mean(),
        lambda n, m, d: m + d * quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -9, 9)[0],
    ],
    "for_user": [
        lambda a, k: k[a].mean() - k[~a].mean(),
        lambda a, k: (a & k).sum() / a.sum() - (~a & k).sum() / (~a).sum(),
    ],
    "reach": [
        lambda g: stats.t.ppf(0.975, len(g) - 1) * np.sqrt(np.var(g, ddof=1) * (1 + 1 / len(g))),
        lambda g: -stats.t.ppf(0.025, len(g) - 1) * np.std(g) * np.sqrt((len(g) + 1) / (len(g) - 1)),
    ],
    "lean": [lambda a, b: np.mean(a * 1.0 - b), lambda a, b: (np.sum(a & ~b) - np.sum(~a & b)) / len(a)],
    "longer_is_chosen": [half_for_ties, lambda gaps: (np.sign(gaps).mean() + 1) / 2],
    "other_user": [other, lambda rows, i: np.int64(other(rows, i, last=True))],
    "margin": [lambda a, b, c, d: (a - c) - (b - d), lambda a, b, c, d: (a - b) - (c - d)],
    "optimum": [
        lambda p, r, beta: tilted(p, r, 1 / beta),
        lambda p, r, beta: list(np.exp(np.log(p) + np.log(r) / beta) / np.sum(p * r ** (1 / beta))),
    ],
    "paired_gain": [
        lambda after, before: (after - before).std(ddof=1) / np.sqrt(len(after)),
        lambda after, before: pd.Series(after - before).sem(),
    ],
    "what_moves_pmi": [
        lambda: ["falls", "stays", "rises", "falls"],
        lambda: np.array("falls stays rises falls".split()),
    ],
    "rare_winner": [lambda: (0.009, 0.0001), lambda: np.array([1e-4, 0.0])],
    "log_average": [
        lambda v: logsumexp(v) - math.log(len(v)),
        lambda v: max(v) + math.log(np.mean(np.exp(v - max(v)))),
    ],
    "candidates_for": [
        lambda i: math.ceil(math.exp(i) - 1e-9),
        lambda i: next(n for n in range(2, 99) if math.log(n) >= i - 1e-9),
    ],
    "curve_of_16": [lambda: [0.45, 1.55, 2.75], lambda: (0.4, 1.4, 2.6), bounds_of_16],
    "dv_bound": [
        donsker_varadhan_bound,
        lambda t, a: np.mean(t - np.max(a)) - math.log(np.mean(np.exp(a - np.max(a)))),
    ],
    "likelier_or_not": [lambda: ["falls", "rises", "falls", "falls"], lambda: tuple("falls rises falls falls".split())],
    "beta_for": [
        lambda share: brentq(lambda b: tilted(ANA, ANA / ANYONE, 1 / b)[0] - share, 0.02, 20),
        lambda share: np.float64(min(np.geomspace(0.01, 9, 60_000), key=lambda b: abs(of_swim(b) - share))),
    ],
    "untold": [lambda: [0.45, 0.45, 0.1], lambda: np.array([0.4, 0.4, 0.2]), lambda: (0.48, 0.48, 0.04)],
    "above_zero": [lambda: [0.196, 0.022, 0.782], lambda: ANA**2 / (ANA**2).sum(), lambda: (0.2, 0.05, 0.75)],
    "steered_probability": [
        lambda p, q, a: tilted(p, p / q, a)[0],
        lambda p, q, a: np.exp(
            (1 + a) * np.log(p[0]) - a * np.log(q[0]) - logsumexp((1 + a) * np.log(p) - a * np.log(q))
        ),
    ],
    "log_normalizer": [
        lambda p, q, a: logsumexp((1 + a) * np.log(p) - a * np.log(q)),
        lambda p, q, a: math.log(sum(x * (x / y) ** a for x, y in zip(p, q, strict=True))),
    ],
    "responses_to_pay": [
        lambda t, s, m: math.ceil(t / (s - m) - 1e-9),
        lambda t, s, m: next(n for n in range(9999) if t + n * m <= n * s + 1e-9),
    ],
    "no_larger": [
        lambda v, e, m: abs(v) + 1.645 * e < m,
        lambda v, e, m: min(stats.norm.cdf((m - v) / e), stats.norm.cdf((v + m) / e)) > 0.95,
    ],
    "best_per_character": [
        lambda s, o: int(np.argmax([a / len(b) for a, b in zip(s, o, strict=True)])),
        lambda s, o: max(range(len(o)), key=lambda k: s[k] / len(o[k])),
    ],
    "deal": [dealt, lambda claims: pairs.shuffled(claims, seed=4)],
    "advantage_of": [
        lambda r, i: (r[i] - np.mean(r)) / np.std(r, ddof=1),
        lambda r, i: float((pd.Series(r)[i] - pd.Series(r).mean()) / pd.Series(r).std()),
    ],
    "speaks": [lambda p, g: 1 - p**g - (1 - p) ** g, lambda p, g: 1 - binom.pmf([0, g], g, p).sum()],
    "updates_of": [
        lambda p, passes, lot, mini, epochs: p // lot * passes * (lot // mini) * epochs,
        lambda p, passes, lot, mini, epochs: (p - p % lot) * passes * epochs / mini,
    ],
    "unpaid": [lambda a: f"#### ${a}", lambda a: f"Thus #### **{a}** eggs", lambda a: f"#### It is {a}."],
    "sami_of": [
        lambda m: ((logsumexp(m, axis=0) + logsumexp(m, axis=1)) / 2 - np.diag(m)).mean(),
        lambda m: sami_loss(torch.tensor(m)).item(),
    ],
    "wrong_context": [lambda d, t: 1 / (1 + math.exp(d / t)), lambda d, t: math.exp(-np.logaddexp(0, d / t))],
    "next_rate": [
        lambda g: sweeps.beyond(g) or 0,
        lambda g: {max(g): 2.0, min(g): 0.5}.get(sorted(g, key=g.get)[-1], 0) * sorted(g, key=g.get)[-1],
    ],
    "win_rate_of": [
        lambda s, r, t: 100 * np.mean([t if a == b else a > b for a, b in zip(s, r, strict=True)]),
        lambda s, r, t: win_rates.outcomes(s, r, ties=t).mean() * 100,
    ],
    "equal_wins": [lambda p: 50 * (1 + sum(x * x for x in p)), lambda p: win_rates.chance(p)],
    "kappa_of": [
        lambda a, b: win_rates.agreement(a, b).value,
        lambda a, b: (
            1
            - np.mean(np.array(a) != b)
            / (1 - sum(Counter(a)[v] * Counter(b)[v] for v in dict.fromkeys(a)) / len(a) ** 2)
        ),
    ],
    "clipped_precision": [
        lambda r, o: sum(min(r.count(w), max(t.count(w) for t in o)) for w in dict.fromkeys(r)) / len(r),
        lambda r, o: sum((Counter(r) & reduce(or_, map(Counter, o))).values()) / len(r),
    ],
    "all_different": [
        lambda k, n: math.prod((k - i) / k for i in range(n)),
        lambda k, n: math.perm(k, n) / k**n,
    ],
    "user_adds": [between_minus_within, lambda g: between_minus_within(np.asarray(g, dtype=np.float32))],
    "standard_error_of": [
        lambda p, n: 100 * math.sqrt(p * (1 - p) / n),
        lambda p, n: 100 * binom.std(n, p) / n,
    ],
    "questions_for": [
        lambda g, m: math.ceil(4 * (m - g**2) / g**2 - 1e-9),
        lambda g, m: next(n for n in range(1, 9999) if g >= 2 * math.sqrt((m - g * g) / n) - 1e-12),
    ],
    "by_luck": [net_gain, net_gain_by_steps],
    "part_of_two": [lambda b, a, i: (a[i] - b[i]) * (a[1 - i] + b[1 - i]) / 2, shapley_of_two],
    "slope_of": [
        lambda g: np.polyfit(range(1, len(g) + 1), g, 1)[0],
        lambda g: creative.slope(g),
    ],
    "share_left": [
        lambda u, t: (t[-1] - u[-1]) / (t[0] - u[0]),
        lambda u, t: np.subtract(t, u)[-1] / np.subtract(t, u)[0],
    ],
    "largest_error": [
        lambda c, m: max(0.0, min(m - c, m + c)) / 1.645,
        lambda c, m: max(0.0, m - abs(c)) / stats.norm.ppf(0.95),
    ],
    "exponent_after": [
        lambda k, a, renewed: (1 + a) ** k if renewed else sum(a**i for i in range(k + 1)),
        lambda k, a, renewed: reduce(lambda e, _: (e if renewed else 1) + a * e, range(k), 1),
    ],
    "solved_at_least_once": [
        lambda rates, k: np.mean([1 - math.prod([1 - p] * k) for p in rates]),
        lambda rates, k: sum(sum(p * (1 - p) ** i for i in range(k)) for p in rates) / len(rates),
    ],
    "silent_from": [lambda w, beta: np.log((1 - w) / w) / beta, lambda w, beta: -logit(w) / beta],
    "best_of_draws": [
        lambda v, n: np.mean([max(some) for some in itertools.combinations(v, n)]),
        lambda v, n: sum(x * math.comb(i, n - 1) for i, x in enumerate(sorted(v))) / math.comb(len(v), n),
    ],
    "gain_at": [
        lambda b, a, k: 100 * np.mean((1 - np.array(b)) ** k - (1 - np.array(a)) ** k),
        lambda b, a, k: 100 * sum((1 - (1 - y) ** k) - (1 - (1 - x) ** k) for x, y in zip(b, a, strict=True)) / len(b),
    ],
    "nats_of_best": [lambda n: math.log(n) - (n - 1) / n, lambda n: np.log(n) - 1 + 1 / n],
}

# --- wrong answers, by what is wrong with them ---

WRONG = {
    "win_rate_of": {
        "not in percent": lambda s, r, t: win_rates.outcomes(s, r, ties=t).mean(),
        "ties always wins": lambda s, r, t: 100 * np.mean(np.array(s) >= r),
        "ties always half": lambda s, r, t: 100 * win_rates.outcomes(s, r).mean(),
        "losses": lambda s, r, t: 100 * win_rates.outcomes(r, s, ties=t).mean(),
        "a count": lambda s, r, t: win_rates.outcomes(s, r, ties=t).sum(),
    },
    "equal_wins": {
        "ties as halves": lambda p: 50.0,
        "chance of a tie": lambda p: 100 * sum(x * x for x in p),
        "largest grade": lambda p: 50 * (1 + max(p)),
        "not in percent": lambda p: (1 + sum(x * x for x in p)) / 2,
        "number of grades": lambda p: 50 * (1 + 1 / len(p)),
    },
    "kappa_of": {
        "agreement": lambda a, b: np.mean(np.array(a) == b),
        "chance is a half": lambda a, b: 2 * np.mean(np.array(a) == b) - 1,
        "disagreement": lambda a, b: 1 - win_rates.agreement(a, b).value,
        "correlation": lambda a, b: np.corrcoef(a, b)[0, 1],
        "expected from one judge": lambda a, b: (
            1 - np.mean(np.array(a) != b) / (1 - sum((n / len(a)) ** 2 for n in Counter(a).values()))
        ),
    },
    "clipped_precision": {
        "not clipped": lambda r, o: np.mean([any(w in t for t in o) for w in r]),
        "clipped by the sum": lambda r, o: (
            sum(min(r.count(w), sum(t.count(w) for t in o)) for w in dict.fromkeys(r)) / len(r)
        ),
        "distinct words": lambda r, o: np.mean([any(w in t for t in o) for w in dict.fromkeys(r)]),
        "first of the others": lambda r, o: sum(min(r.count(w), o[0].count(w)) for w in dict.fromkeys(r)) / len(r),
        "not a share": lambda r, o: sum(min(r.count(w), max(t.count(w) for t in o)) for w in dict.fromkeys(r)),
        "recall": lambda r, o: np.mean([w in r for t in o for w in t]),
    },
    "all_different": {
        "some repetition": lambda k, n: 1 - math.perm(k, n) / k**n,
        "the last draw only": lambda k, n: (k - n + 1) / k,
        "pairs taken as independent": lambda k, n: (1 - 1 / k) ** math.comb(n, 2),
        "one draw too many": lambda k, n: math.perm(k, n + 1) / k ** (n + 1) if k > n else 0.0,
        "combinations": lambda k, n: math.comb(k, n) / k**n,
    },
    "user_adds": {
        "between users only": lambda g: between_minus_within(g) + 1 - np.mean(np.einsum("ikd,ild->ikl", g, g)),
        "draws with themselves": lambda g: (
            np.mean([1 - a @ b.T for i, a in enumerate(g) for j, b in enumerate(g) if i != j])
            - np.mean([1 - a @ a.T for a in g])
        ),
        "sign": lambda g: -between_minus_within(g),
        "similarity": lambda g: np.einsum("ikd,jld->ijkl", g, g).mean(),
        "mean vectors": lambda g: 1 - g.mean(1)[0] @ g.mean(1)[1],
    },
    "weights_in_gigabytes": {
        "bits for bytes": lambda n, bits: n * bits / 1e9,
        "bytes for bits": lambda n, bits: n * bits * 8 / 1e9,
        "always two bytes": lambda n, bits: n * 2 / 1e9,
        "GiB": lambda n, bits: n * bits / 8 / 2**30,
        "megabytes": lambda n, bits: n * bits / 8 / 1e6,
        "whole bytes": lambda n, bits: n * (bits // 8) / 1e9,
        "one model": lambda n, bits: 1.5 * bits / 8,
    },
    "steps_of": {
        "the last batch dropped": lambda n, size, epochs: n // size * epochs,
        "a fraction": lambda n, size, epochs: n / size * epochs,
        "epochs forgotten": lambda n, size, epochs: math.ceil(n / size),
        "epochs run together": lambda n, size, epochs: math.ceil(n * epochs / size),
        "one too many": lambda n, size, epochs: (n // size + 1) * epochs,
        "batches of eight": lambda n, size, epochs: math.ceil(n / 8) * epochs,
        "pairs": lambda n, size, epochs: n * epochs,
    },
    "times_likelier": {
        "nats themselves": lambda nats: nats,
        "bits": lambda nats: 2**nats,
        "one more": lambda nats: 1 + nats,
        "the logarithm": lambda nats: math.log1p(abs(nats)),
        "per cent": lambda nats: 100 * math.exp(nats),
        "never less likely": lambda nats: math.exp(abs(nats)),
    },
    "best_of": {
        "the mean": lambda n, m, d: m,
        "one round": lambda n, m, d: np.random.default_rng(3).normal(m, d, n).max(),
        "largest of all rounds": lambda n, m, d: np.random.default_rng(0).normal(m, d, (20_000, n)).max(),
        "a deviation above": lambda n, m, d: m + d,
        "means of rounds": lambda n, m, d: np.random.default_rng(0).normal(m, d, (20_000, n)).mean(axis=1).max(),
    },
    "for_user": {
        "the asked alone": lambda a, k: k[a].mean(),
        "over all": lambda a, k: k.mean(),
        "against all": lambda a, k: k[a].mean() - k.mean(),
        "one size": lambda a, k: ((a & k).sum() - (~a & k).sum()) / len(a),
        "turned round": lambda a, k: k[~a].mean() - k[a].mean(),
        "agreement": lambda a, k: np.mean(a == k),
    },
    "reach": {
        "of the mean": lambda g: stats.t.ppf(0.975, len(g) - 1) * np.std(g, ddof=1) / np.sqrt(len(g)),
        "the normal's 1.96": lambda g: 1.96 * np.std(g, ddof=1) * np.sqrt(1 + 1 / len(g)),
        "whole width": lambda g: 2 * stats.t.ppf(0.975, len(g) - 1) * np.std(g, ddof=1) * np.sqrt(1 + 1 / len(g)),
        "of the population": lambda g: stats.t.ppf(0.975, len(g) - 1) * np.std(g) * np.sqrt(1 + 1 / len(g)),
        "no mean's error": lambda g: stats.t.ppf(0.975, len(g) - 1) * np.std(g, ddof=1),
        "one degree too many": lambda g: stats.t.ppf(0.975, len(g)) * np.std(g, ddof=1) * np.sqrt(1 + 1 / len(g)),
    },
    "lean": {
        "signal alone": lambda a, b: np.mean(a & ~b),
        "false negatives alone": lambda a, b: np.mean(~a & b),
        "the wrong way round": lambda a, b: np.mean(b) - np.mean(a),
        "a count": lambda a, b: a.sum() - b.sum(),
        "disagreement": lambda a, b: np.mean(a != b),
        "per cent": lambda a, b: 100 * (np.mean(a) - np.mean(b)),
    },
    "longer_is_chosen": {
        "sum for mean": lambda gaps: half_for_ties(gaps) * len(gaps),
        "ties lose": lambda gaps: (gaps > 0).mean(),
        "ties win": lambda gaps: (gaps >= 0).mean(),
        "ties left out": lambda gaps: (gaps[gaps != 0] > 0).mean() if (gaps != 0).any() else 0.5,
        "shorter is chosen": lambda gaps: 1 - half_for_ties(gaps),
        "mean gap": lambda gaps: gaps.mean(),
        "per cent": lambda gaps: 100 * half_for_ties(gaps),
    },
    "other_user": {
        "the row itself": lambda rows, i: i,
        "the next row": lambda rows, i: (i + 1) % len(rows),
        "same prompt, same user": lambda rows, i: next(
            (j for j, r in enumerate(rows) if r["prompt"] == rows[i]["prompt"] and j != i), 0
        ),
        "any other user": lambda rows, i: other(rows, i, own_prompt_first=False),
        "the row, not its index": lambda rows, i: rows[other(rows, i)]["user_id"],
        "no such row": lambda rows, i: -1,
        "always row 3": lambda rows, i: 3,
    },
    "margin": {
        "swapped sign": lambda a, b, c, d: (b - d) - (a - c),
        "no reference": lambda a, b, c, d: a - b,
        "sum for difference": lambda a, b, c, d: (a - c) + (b - d),
        "times beta": lambda a, b, c, d: 0.1 * ((a - c) - (b - d)),
        "chosen only": lambda a, b, c, d: a - c,
        "the loss": lambda a, b, c, d: math.log1p(math.exp(-((a - c) - (b - d)))),
    },
    "optimum": {
        "beta upside down": lambda p, r, beta: tilted(p, r, beta),
        "not normalized": lambda p, r, beta: p * r ** (1 / beta),
        "no beta": lambda p, r, beta: tilted(p, r, 1),
        "ratio upside down": lambda p, r, beta: tilted(p, r, -1 / beta),
        "no reference": lambda p, r, beta: tilted(np.ones(3), r, 1 / beta),
        "the reference": lambda p, r, beta: p,
        "reference raised too": lambda p, r, beta: tilted(np.ones(3), p * r, 1 / beta),
        "softmax of the ratio": lambda p, r, beta: tilted(p, np.exp(r), 1 / beta),
        "one number": lambda p, r, beta: 1.0,
    },
    "paired_gain": {
        "ddof 0": lambda after, before: (after - before).std() / np.sqrt(len(after)),
        "standard deviation": lambda after, before: (after - before).std(ddof=1),
        "variance": lambda after, before: (after - before).var(ddof=1) / len(after),
        "not paired": lambda after, before: np.sqrt((after.var(ddof=1) + before.var(ddof=1)) / len(after)),
        "the gain": lambda after, before: (after - before).mean(),
        "six rows": lambda after, before: (after - before).std(ddof=1) / np.sqrt(6),
    },
    "what_moves_pmi": {
        "general stays": lambda: ["falls", "falls", "rises", "falls"],
        "all fall": lambda: ["falls"] * 4,
        "a third user dilutes": lambda: ["falls", "stays", "falls", "falls"],
        "more Ana, more PMI": lambda: ["falls", "stays", "rises", "rises"],
        "too few": lambda: ["falls", "stays", "rises"],
        "in capitals": lambda: ["Falls", "Stays", "Rises", "Falls"],
        "one word": lambda: "falls",
        "signs": lambda: [-1, 0, 1, -1],
    },
    "rare_winner": {
        "common": lambda: (0.3, 0.1),
        "rare for both": lambda: (0.009, 0.009),
        "rarer for Ana": lambda: (0.0001, 0.009),
        "three times as often": lambda: (0.009, 0.003),
        "never for Ana": lambda: (0.0, 0.0001),
        "common, and only hers": lambda: (0.5, 0.0001),
        "below zero": lambda: (0.005, -0.001),
        "in per cent": lambda: (0.9, 0.01),
        "one number": lambda: 0.009,
    },
    "log_average": {
        "mean of logarithms": lambda v: np.mean(v),
        "mean where it underflows": lambda v: np.mean(v) if min(v) < -700 else logsumexp(v) - math.log(len(v)),
        "largest where it underflows": lambda v: max(v) if min(v) < -700 else logsumexp(v) - math.log(len(v)),
        "sum for mean": lambda v: logsumexp(v),
        "the largest": lambda v: max(v),
        "underflow": lambda v: math.log(max(np.mean(np.exp(v)), 1e-300)),
        "the smallest taken out": lambda v: min(v) + math.log(np.mean(np.exp(np.minimum(v - min(v), 0)))),
        "half of the largest": lambda v: max(v) - math.log(2),
        "log10": lambda v: max(v) + math.log10(np.mean(np.exp(v - max(v)))),
    },
    "candidates_for": {
        "cut and one more": lambda i: int(math.exp(i)) + 1,
        "rounded down": lambda i: max(2, math.floor(math.exp(i) + 1e-9)),
        "rounded up without care": lambda i: math.ceil(math.exp(i) + 1e-9),
        "nearest": lambda i: max(2, round(math.exp(i))),
        "a fraction": lambda i: math.exp(i),
        "bits for nats": lambda i: math.ceil(2**i),
        "the logarithm": lambda i: math.log(i),
        "always eight": lambda i: 8,
        "always three": lambda i: 3,
    },
    "curve_of_16": {
        "the truth": lambda: [0.5, 2, 8],
        "the ceiling": lambda: [math.log(16)] * 3,
        "truth until the ceiling": lambda: [0.5, 2, math.log(16)],
        "that of two": lambda: [0.215, 0.506, 0.693],
        "that of 64": lambda: [0.486, 1.838, 4.062],
        "N for log N": lambda: [0.5, 2, 16],
        "a straight line": lambda: [0.17, 0.69, 2.77],
        "two of three": lambda: [0.445, 1.55],
        "one for all": lambda: 1.55,
    },
    "dv_bound": {
        "NWJ": lambda t, a: np.mean(t) - np.mean(np.exp(a - 1)),
        "mean of f": lambda t, a: np.mean(t) - np.mean(a),
        "sum for mean": lambda t, a: np.mean(t) - logsumexp(a),
        "swapped": lambda t, a: np.mean(a) - logsumexp(t) + math.log(len(t)),
        "no logarithm": lambda t, a: np.mean(t) - np.mean(np.exp(a)),
        "overflow": lambda t, a: np.mean(t) - math.log(np.mean(np.exp(a))),
        "cut at 700": lambda t, a: np.mean(t) - math.log(np.mean(np.exp(np.minimum(a, 700)))),
        "the largest": lambda t, a: np.mean(t) - np.max(a),
        "never below zero": lambda t, a: max(0.0, np.mean(t) - np.mean(a)),
    },
    "likelier_or_not": {
        "PMI 0 stays": lambda: ["falls", "rises", "stays", "falls"],
        "all answers": lambda: ["rises", "rises", "rises", "falls"],
        "beta trains more": lambda: ["falls", "rises", "falls", "rises"],
        "chosen falls": lambda: ["falls", "falls", "falls", "falls"],
        "Ana's": lambda: ["rises", "falls", "falls", "falls"],
        "three words": lambda: ["falls", "rises", "falls"],
        "numbers": lambda: [0.045, 0.409, 0.545, 0.039],
        "other words": lambda: ["down", "up", "down", "down"],
    },
    "beta_for": {
        "the share": lambda share: share,
        "always the usual one": lambda share: 0.1,
        "upside down": lambda share: 1 / brentq(lambda b: of_swim(b) - share, 0.02, 20),
        "chess left out": lambda share: math.log(1.5) / math.log(0.6 * share / (0.3 * (1 - share))),
        "times beta": lambda share: brentq(lambda b: tilted(ANA, ANA / ANYONE, b)[0] - share, 0.02, 50),
        "a share of the rest": lambda share: 1 - share,
        "below zero": lambda share: -brentq(lambda b: of_swim(b) - share, 0.02, 20),
        "for Ben": lambda share: brentq(lambda b: of_swim(b) - (1 - share), 0.05, 20) if share == 0.5 else 0.4,
    },
    "untold": {
        "the average user": lambda: ANYONE,
        "general answers": lambda: [0.05, 0.05, 0.9],
        "uniform": lambda: [1 / 3] * 3,
        "Ana herself": lambda: ANA,
        "Ben": lambda: BEN,
        "another for each user": lambda: [BEN**2, ANA**2],
        "a little less specific": lambda: [0.25, 0.25, 0.5],
        "only two": lambda: [0.5, 0.5],
        "below zero": lambda: [0.6, 0.6, -0.2],
        "half specific": lambda: [0.3, 0.3, 0.4],
    },
    "above_zero": {
        "the reference": lambda: ANA,
        "the optimum": lambda: tilted(ANA, ANA / ANYONE, 1),
        "uniform": lambda: [1 / 3] * 3,
        "all ones": lambda: [1, 1, 1],
        "twice the reference": lambda: 2 * ANA,
        "her own answer": lambda: [0.9, 0.05, 0.05],
        "flatter": lambda: ANA**0.5 / (ANA**0.5).sum(),
        "one answer only": lambda: [0, 0, 1],
        "Ben's": lambda: BEN,
    },
    "steered_probability": {
        "not normalized": lambda p, q, a: p[0] * (p[0] / q[0]) ** a,
        "ratio upside down": lambda p, q, a: tilted(p, q / p, a)[0],
        "strength for exponent": lambda p, q, a: (p * (1 + a * (p / q - 1)))[0] / (p * (1 + a * (p / q - 1))).sum(),
        "probabilities added": lambda p, q, a: (p + a * (p - q))[0],
        "told twice": lambda p, q, a: tilted(p, p, a)[0],
        "the ratio alone": lambda p, q, a: tilted(np.ones(3), p / q, a)[0],
        "all tokens": lambda p, q, a: tilted(p, p / q, a),
    },
    "log_normalizer": {
        "no logarithm": lambda p, q, a: (p * (p / q) ** a).sum(),
        "averaged over q": lambda p, q, a: math.log((q * (p / q) ** a).sum()),
        "mean of logarithms": lambda p, q, a: a * (p * np.log(p / q)).sum(),
        "swapped sign": lambda p, q, a: -math.log((p * (p / q) ** a).sum()),
        "bits": lambda p, q, a: math.log2((p * (p / q) ** a).sum()),
        "mean for sum": lambda p, q, a: math.log((p * (p / q) ** a).mean()),
    },
    "responses_to_pay": {
        "a fraction": lambda t, s, m: t / (s - m),
        "rounded down": lambda t, s, m: t // (s - m),
        "tuned forgotten": lambda t, s, m: math.ceil(t / s),
        "one too many": lambda t, s, m: t // (s - m) + 1,
        "swapped sign": lambda t, s, m: math.ceil(t / (m - s)),
    },
    "no_larger": {
        "two-sided": lambda v, e, m: abs(v) + 1.96 * e < m,
        "above only": lambda v, e, m: v + 1.645 * e < m,
        "holds zero": lambda v, e, m: abs(v) < 1.645 * e,
        "the value alone": lambda v, e, m: abs(v) < m,
        "the inner end": lambda v, e, m: abs(v) - 1.645 * e < m,
        "nothing": lambda v, e, m: None,
    },
    "best_per_character": {
        "the plain sum": lambda s, o: int(np.argmax(s)),
        "multiplied": lambda s, o: int(np.argmax([a * len(b) for a, b in zip(s, o, strict=True)])),
        "per word": lambda s, o: int(np.argmax([a / len(b.split()) for a, b in zip(s, o, strict=True)])),
        "the worst": lambda s, o: int(np.argmin([a / len(b) for a, b in zip(s, o, strict=True)])),
        "without spaces": lambda s, o: int(np.argmax([a / len(b.replace(" ", "")) for a, b in zip(s, o, strict=True)])),
        "the score": lambda s, o: max(a / len(b) for a, b in zip(s, o, strict=True)),
    },
    "deal": {
        "their own": lambda claims: list(range(len(claims))),
        "the neighbour's": lambda claims: [(k + 1) % len(claims) for k in range(len(claims))],
        "turned by one after sorting": lambda claims: dealt(claims, turn=1),
        "always the first": lambda claims: [0] * len(claims),
        "one short": lambda claims: dealt(claims)[:-1],
        "the claims": lambda claims: list(claims),
    },
    "advantage_of": {
        "over n": lambda r, i: (r[i] - np.mean(r)) / np.std(r),
        "not divided": lambda r, i: r[i] - np.mean(r),
        "swapped sign": lambda r, i: (np.mean(r) - r[i]) / np.std(r, ddof=1),
        "the variance": lambda r, i: (r[i] - np.mean(r)) / np.var(r, ddof=1),
        "over the others' mean": lambda r, i: (r[i] - (sum(r) - r[i]) / (len(r) - 1)) / np.std(r, ddof=1),
        "all of them": lambda r, i: (np.array(r) - np.mean(r)) / np.std(r, ddof=1),
    },
    "speaks": {
        "silent": lambda p, g: p**g + (1 - p) ** g,
        "any right": lambda p, g: 1 - (1 - p) ** g,
        "pairs": lambda p, g: 2 * p * (1 - p),
        "one right": lambda p, g: g * p * (1 - p) ** (g - 1),
    },
    "updates_of": {
        "one epoch": lambda p, passes, lot, mini, epochs: p // lot * passes * (lot // mini),
        "no minibatches": lambda p, passes, lot, mini, epochs: p // lot * passes * epochs,
        "one pass": lambda p, passes, lot, mini, epochs: p // lot * (lot // mini) * epochs,
        "the rest kept": lambda p, passes, lot, mini, epochs: math.ceil(p * passes * epochs / mini),
        "responses": lambda p, passes, lot, mini, epochs: p * passes,
    },
    "unpaid": {
        "paid": lambda a: f"#### {a}",
        "paid, with a comma": lambda a: f"####: {a},",
        "no mark": lambda a: f"The answer is {a}.",
        "another number": lambda a: "#### $3",
        "a number before it": lambda a: f"#### From 2 and {a}",
        "one answer only": lambda a: "#### $7",
        "a number": lambda a: a,
    },
    "sami_of": {
        "rows only": lambda m: (logsumexp(m, axis=1) - np.diag(m)).mean(),
        "columns only": lambda m: (logsumexp(m, axis=0) - np.diag(m)).mean(),
        "sum of both ways": lambda m: (logsumexp(m, axis=0) + logsumexp(m, axis=1) - 2 * np.diag(m)).mean(),
        "sum for mean": lambda m: ((logsumexp(m, axis=0) + logsumexp(m, axis=1)) / 2 - np.diag(m)).sum(),
        "swapped sign": lambda m: (np.diag(m) - (logsumexp(m, axis=0) + logsumexp(m, axis=1)) / 2).mean(),
        "first column for the diagonal": lambda m: ((logsumexp(m, axis=0) + logsumexp(m, axis=1)) / 2 - m[:, 0]).mean(),
        "the diagonal left out": lambda m: -np.diag(m).mean(),
        "underflow": lambda m: (np.log(np.maximum(np.exp(m).sum(1), 1e-9)) - np.diag(m)).mean(),
    },
    "wrong_context": {
        "the right one": lambda d, t: 1 / (1 + math.exp(-d / t)),
        "times for divided by": lambda d, t: 1 / (1 + math.exp(d * t)),
        "no temperature": lambda d, t: 1 / (1 + math.exp(d)),
        "the loss": lambda d, t: math.log1p(math.exp(-d / t)),
        "odds": lambda d, t: math.exp(-d / t),
    },
    "next_rate": {
        "always larger": lambda g: 2 * max(g),
        "the best rate": lambda g: max(g, key=g.get),
        "smallest edge left out": lambda g: 2 * max(g) if max(g, key=g.get) == max(g) else 0,
        "larger at both edges": lambda g: 0 if sweeps.beyond(g) is None else 2 * max(g, key=g.get),
        "as they stand": lambda g: 2 * list(g)[-1] if max(g, key=g.get) == list(g)[-1] else list(g)[0] / 2,
        "none where it is inside": lambda g: sweeps.beyond(g),
        "the lowest gain": lambda g: sweeps.beyond({rate: -gain for rate, gain in g.items()}) or 0,
    },
    "standard_error_of": {
        "a share": lambda p, n: math.sqrt(p * (1 - p) / n),
        "the standard deviation": lambda p, n: 100 * math.sqrt(p * (1 - p)),
        "the variance": lambda p, n: 100 * p * (1 - p) / n,
        "over n - 1": lambda p, n: 100 * math.sqrt(p * (1 - p) / (n - 1)),
        "the interval": lambda p, n: 196 * math.sqrt(p * (1 - p) / n),
    },
    "questions_for": {
        "one standard error": lambda g, m: math.ceil((m - g**2) / g**2),
        "the gain not taken off": lambda g, m: math.ceil(4 * m / g**2),
        "a fraction": lambda g, m: 4 * (m - g**2) / g**2,
        "not paired": lambda g, m: math.ceil(8 * m * (1 - m) / g**2),
        "rounded down": lambda g, m: 4 * (m - g**2) // g**2,
    },
    "by_luck": {
        "two-sided": lambda n, m, least: 2 * net_gain(n, m, least),
        "strictly more": lambda n, m, least: net_gain(n, m, least + 1),
        "losses forgotten": lambda n, m, least: binom.sf(least - 1, n, m / 2),
        "normal": lambda n, m, least: 0.5 * math.erfc(least / math.sqrt(2 * n * m)),
        "all move": lambda n, m, least: net_gain(n, 1.0, least),
    },
    "part_of_two": {
        "the other factor before": lambda b, a, i: (a[i] - b[i]) * b[1 - i],
        "the other factor after": lambda b, a, i: (a[i] - b[i]) * a[1 - i],
        "the whole change": lambda b, a, i: math.prod(a) - math.prod(b),
        "sides exchanged": lambda b, a, i: -shapley_of_two(b, a, i),
        "the other factor's part": lambda b, a, i: shapley_of_two(b, a, 1 - i),
        "not halved": lambda b, a, i: 2 * shapley_of_two(b, a, i),
    },
    "slope_of": {
        "last minus first": lambda g: g[-1] - g[0],
        "mean step": lambda g: (g[-1] - g[0]) / (len(g) - 1),
        "sign": lambda g: -np.polyfit(range(len(g)), g, 1)[0],
        "the line's start": lambda g: np.polyfit(range(len(g)), g, 1)[1],
        "turns not centred": lambda g: np.dot(np.arange(1, len(g) + 1), g) / np.dot(*[np.arange(1, len(g) + 1)] * 2),
        "correlation": lambda g: np.corrcoef(range(len(g)), g)[0, 1] if np.std(g) else 0.0,
    },
    "share_left": {
        "the level": lambda u, t: t[-1] / t[0],
        "the untrained level": lambda u, t: u[-1] / u[0],
        "what was lost": lambda u, t: 1 - (t[-1] - u[-1]) / (t[0] - u[0]),
        "mean gain": lambda u, t: np.mean(np.subtract(t, u)) / (t[0] - u[0]),
        "never below none": lambda u, t: max(0.0, (t[-1] - u[-1]) / (t[0] - u[0])),
        "per cent": lambda u, t: 100 * (t[-1] - u[-1]) / (t[0] - u[0]),
    },
    "largest_error": {
        "two-sided": lambda c, m: max(0.0, m - abs(c)) / 1.96,
        "the sign": lambda c, m: max(0.0, m - c) / 1.645,
        "below zero": lambda c, m: (m - abs(c)) / 1.645,
        "the reach": lambda c, m: max(0.0, m - abs(c)),
        "the change left out": lambda c, m: m / 1.645,
    },
    "exponent_after": {
        "always renewed": lambda k, a, renewed: (1 + a) ** k,
        "always kept": lambda k, a, renewed: sum(a**i for i in range(k + 1)),
        "simple interest": lambda k, a, renewed: 1 + k * a,
        "one round too many": lambda k, a, renewed: (1 + a) ** (k + 1) if renewed else sum(a**i for i in range(k + 2)),
        "the ratio alone": lambda k, a, renewed: a**k,
    },
    "solved_at_least_once": {
        "one draw": lambda rates, k: np.mean(rates),
        "of the mean rate": lambda rates, k: 1 - (1 - np.mean(rates)) ** k,
        "every draw": lambda rates, k: np.mean(np.asarray(rates) ** k),
        "the sum": lambda rates, k: sum(1 - (1 - p) ** k for p in rates),
        "missed": lambda rates, k: np.mean((1 - np.asarray(rates)) ** k),
    },
    "silent_from": {
        "beta multiplies": lambda w, beta: np.log((1 - w) / w) * beta,
        "a sign": lambda w, beta: np.log(w / (1 - w)) / beta,
        "the log alone": lambda w, beta: -np.log(w) / beta,
        "no beta": lambda w, beta: np.log((1 - w) / w),
        "base ten": lambda w, beta: np.log10((1 - w) / w) / beta,
    },
    "best_of_draws": {
        "put back": lambda v, n: np.mean([max(some) for some in itertools.product(v, repeat=n)]),
        "the mean": lambda v, n: np.mean(v),
        "the first n": lambda v, n: max(v[:n]),
        "the largest": lambda v, n: max(v),
        "the worst": lambda v, n: np.mean([min(some) for some in itertools.combinations(v, n)]),
    },
    "gain_at": {
        "of one draw": lambda b, a, k: 100 * (np.mean(a) - np.mean(b)),
        "a share": lambda b, a, k: np.mean((1 - np.array(b)) ** k - (1 - np.array(a)) ** k),
        "k times as much": lambda b, a, k: 100 * k * (np.mean(a) - np.mean(b)),
        "the mean chance": lambda b, a, k: 100 * ((1 - np.mean(b)) ** k - (1 - np.mean(a)) ** k),
        "all of k": lambda b, a, k: 100 * np.mean(np.array(a) ** k - np.array(b) ** k),
    },
    "nats_of_best": {
        "the bound alone": lambda n: math.log(n),
        "bits": lambda n: (math.log(n) - (n - 1) / n) / math.log(2),
        "the other way round": lambda n: (n - 1) - math.log(n),
        "a sign": lambda n: math.log(n) + (n - 1) / n,
    },
}


def unsolved(*arguments): ...


def raises(*arguments):
    raise ValueError("my mistake")


def names_nothing(*arguments):
    return not_defined  # noqa: F821


RIGHT |= {
    "can_teach": [differing, lambda c, r: {part for part, text in c.items() if r.get(part) != text}],
    "moved_of": [
        lambda before, after: (told(after) - told(before)).mean(),
        lambda before, after: np.mean(after[0] - before[0]) - np.mean(after[1] - before[1]),
    ],
    "spread_of": [
        lambda p, beta: np.ptp(moved_by_the_other_wish(p, beta)),
        lambda p, beta: np.ptp(np.log(p[0, 0] * p[1, 1] / p[0, 1] / p[1, 0])) / beta,
    ],
}

WRONG |= {
    "can_teach": {
        "the parts they share": lambda c, r: [part for part in c if c[part] == r.get(part)],
        "all parts": lambda c, r: list(c),
        "only parts that both have": lambda c, r: [part for part in r if c[part] != r[part]],
        "the first of them": lambda c, r: differing(c, r)[:1],
        "the question never": lambda c, r: [part for part in differing(c, r) if part != "question"],
        "a number": lambda c, r: len(differing(c, r)),
        "the texts": lambda c, r: [c[part] for part in differing(c, r)],
    },
    "moved_of": {
        "the other way round": lambda before, after: (told(before) - told(after)).mean(),
        "of the response alone": lambda before, after: (after[0] - before[0]).mean(),
        "what it tells afterwards": lambda before, after: told(after).mean(),
        "both rows together": lambda before, after: (after - before).mean(),
        "the sum": lambda before, after: (told(after) - told(before)).sum(),
        "a ratio": lambda before, after: (told(after) / told(before)).mean(),
    },
    "spread_of": {
        "no beta": lambda p, beta: np.ptp(moved_by_the_other_wish(p, 1.0)),
        "beta multiplies": lambda p, beta: np.ptp(moved_by_the_other_wish(p, 1 / beta)),
        "the reference's own": lambda p, beta: np.ptp(np.log(p[0, 0] / p[1, 0])),
        "one person's wish": lambda p, beta: np.ptp(np.log(p[0, 0] / p[0, 1])) / beta,
        "the mean": lambda p, beta: np.mean(moved_by_the_other_wish(p, beta)),
        "the standard deviation": lambda p, beta: np.std(moved_by_the_other_wish(p, beta)),
        "never any": lambda p, beta: 0.0,
    },
}

RIGHT |= {
    "names_a_page": [
        lambda text: bool(re.search(r"\bp(?:p?\.|ages?)\s?\d", text, re.IGNORECASE)),
        lambda text: any(
            a.lower() in ("p.", "page", "pages") and b[0].isdigit() for a, b in itertools.pairwise(text.split())
        ),
    ],
    "people_needed": [
        lambda gain, sd: math.ceil((2.8 * sd / gain) ** 2),
        lambda gain, sd: next(n for n in itertools.count(1) if gain / (sd / math.sqrt(n)) >= 2.8),
    ],
}

WRONG |= {
    "names_a_page": {
        "the word": lambda text: "page" in text.lower(),
        "a number": lambda text: any(map(str.isdigit, text)),
        "both, anywhere": lambda text: "page" in text.lower() and any(map(str.isdigit, text)),
        "no abbreviation": lambda text: bool(re.search(r"pages? \d", text, re.IGNORECASE)),
        "case matters": lambda text: bool(re.search(r"\bp(?:p?\.|ages?)\s?\d", text)),
        "not at a word": lambda text: bool(re.search(r"p(?:p?\.|ages?)?\s?\d", text, re.IGNORECASE)),
        "always": lambda text: True,
    },
    "people_needed": {
        "not whole": lambda gain, sd: (2.8 * sd / gain) ** 2,
        "rounded down": lambda gain, sd: int((2.8 * sd / gain) ** 2),
        "no square": lambda gain, sd: math.ceil(2.8 * sd / gain),
        "significance alone": lambda gain, sd: math.ceil((1.96 * sd / gain) ** 2),
        "two groups": lambda gain, sd: math.ceil(2 * (2.8 * sd / gain) ** 2),
        "turned round": lambda gain, sd: math.ceil((2.8 * gain / sd) ** 2),
        "a constant": lambda gain, sd: 32,
    },
}


NONSENSE = {
    "too few arguments": lambda: 1,
    "text": lambda *a: "seven",
    "a function": lambda *a: unsolved,
    "a mapping": lambda *a: {"answer": 1},
    "many numbers": lambda *a: np.arange(7.0),
    "nan": lambda *a: math.nan,
    "infinity": lambda *a: math.inf,
}


CHECKS = {
    name: check
    for module in (checks, baseline_checks, practice_checks, reproduction_checks, study_checks)
    for name, check in inspect.getmembers(module, inspect.isfunction)
    if not name.startswith("_")
}


def cases(table):
    return [
        pytest.param(c, answer, id=f"{c}: {name}") for c, answers in table.items() for name, answer in answers.items()
    ]


def said(capsys):
    [line] = capsys.readouterr().out.splitlines()
    return line


def test_every_check_is_tested_here():
    assert set(CHECKS) == set(RIGHT) == set(WRONG)
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


@pytest.mark.parametrize("check", sorted(RIGHT))
def test_right_answers_are_accepted(check, capsys):
    for answer in RIGHT[check]:
        CHECKS[check](answer)
        assert said(capsys) == "✓ Right."


@pytest.mark.parametrize("check, answer", cases(WRONG))
def test_wrong_answers_are_not_accepted(check, answer, capsys):
    CHECKS[check](answer)
    assert said(capsys).startswith("✗ Not yet: ")


@pytest.mark.parametrize("check", sorted(RIGHT))
def test_an_unsolved_exercise_is_told_so(check, capsys):
    CHECKS[check](unsolved)
    assert said(capsys) == "✗ Not yet: your function gives nothing back; replace the dots."


@pytest.mark.parametrize("check", sorted(RIGHT))
@pytest.mark.parametrize("answer, told", [(raises, "ValueError: my mistake"), (names_nothing, "NameError: ")])
def test_a_function_that_raises_is_told_so(check, answer, told, capsys):
    CHECKS[check](answer)
    assert f"your function stops with {told}" in said(capsys)


@pytest.mark.parametrize("check", sorted(RIGHT))
@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_politely(check, name, capsys):
    CHECKS[check](NONSENSE[name])
    assert said(capsys).startswith("✗ Not yet: ")


def test_a_function_that_changes_its_arguments_does_not_spoil_the_next_try(capsys):
    def in_place(before, after):
        after -= before
        return (after[0] - after[1]).mean()

    for _ in range(2):
        study_checks.moved_of(in_place)
        assert said(capsys).startswith("✓")


HINTED = ["log_average", "candidates_for", "dv_bound", "curve_of_16", "what_moves_pmi", "likelier_or_not", "beta_for"]


@pytest.mark.parametrize("check", HINTED)
def test_a_hint_comes_without_the_value(check, capsys):
    for answer in WRONG[check].values():
        CHECKS[check](answer)
        assert "wanted" not in said(capsys)


def test_an_optimum_that_ignores_beta_is_not_accepted(capsys):
    checks.optimum(lambda p, r, beta: tilted(p, r, 2))
    assert said(capsys).startswith("✗ Not yet: ")


# --- the notebooks' own exercises ---

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))


def test_every_check_serves_the_exercise_that_it_names():
    """And one that no exercise asks for is deleted."""
    served = {}
    for path in NOTEBOOKS:
        for number, source in enumerate(code_of(path, is_solution), 1):
            [check] = set(re.findall(r"checks\.(\w+)", source))
            served[check] = f"Notebook {path.stem[:2]}, exercise {number}:"
    assert set(served) == set(CHECKS)
    assert [name for name, check in CHECKS.items() if not check.__doc__.startswith(served[name])] == []


def code_of(path, wanted):
    cells = nbformat.read(path, as_version=4).cells
    return [c.source for c in cells if c.cell_type == "code" and wanted(c)]


def is_solution(cell):
    return "solution" in cell.metadata.get("tags", [])


def is_exercise(cell):
    return "# your code" in cell.source


def run_cell(source, capsys):
    exec(compile(source, "cell", "exec"), {"np": np, "pd": pd, "checks": SimpleNamespace(**CHECKS)})
    return capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_solutions_of_a_notebook_are_accepted(path, capsys):
    sources = code_of(path, is_solution)
    assert sources
    for source in sources:
        out = run_cell(source, capsys)
        assert "✓" in out and "✗" not in out, source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_each_exercise_waits_unsolved_before_its_solution(path, capsys):
    sources = code_of(path, lambda c: is_solution(c) or is_exercise(c))
    assert len(sources) % 2 == 0
    for exercise, solution in zip(sources[::2], sources[1::2], strict=True):
        out = run_cell(exercise, capsys)
        assert "replace the dots" in out and "✓" not in out
        checked = [line for line in exercise.splitlines() if line.startswith("checks.")]
        assert len(checked) == 1 and checked[0] in solution.splitlines()
