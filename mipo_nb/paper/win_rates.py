"""From ratings and verdicts of judges to win rates: as the paper counts them, and more strictly; and how far judges agree.

The paper's (arXiv 2603.19294) is `win_rate(outcomes(policy_scores, reference_scores, ties=TIES_WIN), users)`: **ties count
as wins**. Ours counts a tie as half a win, compares with the base model instead of a fixed response, in both orders
(`judges.compare`), and asks what would be left if both responses were equally long (`length_controlled`). All are in
percent, with intervals that resample users.
"""

from functools import reduce

import numpy as np

from mipo_nb import statistics
from mipo_nb.base.errors import UserError

TIES_WIN, TIES_SPLIT = 1.0, 0.5
_RIDGE = 0.1  # a prior worth a tenth of a response or so: a judge that always says the same has a finite log-odds


def outcomes(scores, references, *, ties=TIES_SPLIT):
    """Array [n]: 1 where the score is higher than the reference's, 0 where lower, `ties` where equal, NaN where either is.

    `scores`, `references`: arrays [n] of mean ratings. Raises `ValueError` for arrays of different shape.
    """
    scores, references = np.asarray(scores, dtype=float), np.asarray(references, dtype=float)
    if scores.shape != references.shape:
        raise ValueError(f"{scores.shape} scores cannot be compared with {references.shape} references.")
    won = np.where(scores == references, ties, (scores > references).astype(float))
    return np.where(np.isnan(scores) | np.isnan(references), np.nan, won)


def win_rate(won, users=None, *, seed=0):
    """`statistics.Estimate` in percent of outcomes [n] between 0 and 1, clustered by `users` [n]; NaNs are left out.
    Raises `UserError` where no outcome is left."""
    won = np.asarray(won, dtype=float)
    if np.isnan(won).all():
        raise UserError("No reply of the judge could be read; look at what it replies, or take a stronger judge.")
    return statistics.proportion(won, users, seed=seed) * 100


def chance(probabilities, *, preferences=1, ties=TIES_WIN):
    """The win rate in percent of a model that is no better: (1 - P(tie)) / 2 + ties P(tie).

    Both sides' ratings are drawn independently with the `probabilities` [k] of 1 to k, and a score is the mean over so
    many `preferences`, whose sum has as distribution q the convolution of as many p; P(tie) = sum_s q(s)^2. With ties as
    wins that is (1 + P(tie)) / 2, well above a half: 60 for five equally likely ratings, 76 where one rating takes 70%
    and the others share the rest, 100 for a judge that always says 4. Raises `ValueError` for what is no distribution.
    """
    p = np.asarray(probabilities, dtype=float)
    if p.ndim != 1 or (p < 0).any() or not np.isclose(p.sum(), 1) or preferences < 1:
        raise ValueError("`probabilities` must be at least 0 and sum to 1, for 1 preference or more.")
    q = reduce(np.convolve, [p] * preferences)
    tie = float(q @ q)
    return 100 * ((1 - tie) / 2 + ties * tie)


def an_equal(scores, users=None, *, ties=TIES_WIN, seed=0):
    """The win rate in percent that a model has against itself, from anybody's own `scores`, an `Estimate`.

    `scores` [n, k]: a judge's scores of k >= 2 responses of one model to each of n prompts; each response stands against
    every other to its prompt. Or [n], one response each: then against all others, whatever they answer, with fewer ties than
    responses to one prompt would have. Far from 50, the way of counting and not the model makes the difference. `ties` as in
    `outcomes`, `users` as in `win_rate`. Raises `ValueError` for fewer than two responses, `UserError` without any score.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim not in (1, 2) or scores.shape[-1] < 2:
        raise ValueError("`scores` must be [n], or [n, k] with two responses or more to each prompt.")
    rows = scores if scores.ndim == 2 else np.broadcast_to(scores, (len(scores), len(scores)))
    responses = scores if scores.ndim == 2 else scores[:, None]
    won = outcomes(*np.broadcast_arrays(responses[:, :, None], rows[:, None, :]), ties=ties)
    own = np.eye(rows.shape[1], dtype=bool)  # no response stands against itself
    won[np.broadcast_to(own if scores.ndim == 2 else own[:, None], won.shape)] = np.nan
    counted = (~np.isnan(won)).sum((1, 2))
    sums = np.nansum(won, (1, 2))
    return win_rate(np.divide(sums, counted, out=np.full(len(sums), np.nan), where=counted > 0), users, seed=seed)


def length_controlled(won, lengths, other_lengths, users=None, *, seed=0):
    """`statistics.Estimate` in percent: the win rate expected if both responses were equally long.

    A logistic regression of the outcomes [n] on x = tanh(d / sd(d)), d the difference of lengths [n] in words, tokens or
    characters: P(win) = sigmoid(a + b x). The answer is sigmoid(a). Our own, simpler version of AlpacaEval's (Dubois et
    al. 2024, arXiv 2404.04475), without its term for how hard a prompt is, which needs many models; a little shrinkage
    towards 50 keeps it finite. Users are resampled and the line fitted anew each time.

    Where hardly any pair has similar lengths the answer is an extrapolation. A response that is longer because it is
    better loses by it too: read it beside the raw rate. Raises `ValueError` for outcomes outside 0 to 1, `UserError`
    where none is left.
    """
    won, difference = np.asarray(won, dtype=float), np.subtract(lengths, other_lengths, dtype=float)
    keep = ~np.isnan(won)
    if not keep.any():
        raise UserError("No reply of the judge could be read; look at what it replies, or take a stronger judge.")
    won, difference = won[keep], difference[keep]
    if (won < 0).any() or (won > 1).any():
        raise ValueError("Outcomes must lie between 0 and 1.")
    spread = difference.std()
    x = np.tanh(difference / spread) if spread else np.zeros_like(difference)
    users = None if users is None else np.asarray(users)[keep]
    intercept = lambda weights: _logistic(x, won, weights)[0]  # noqa: E731
    log_odds = statistics.bootstrap(intercept, len(won), users, seed=seed)
    value, low, high = (100 / (1 + np.exp(-np.array([log_odds.value, log_odds.low, log_odds.high])))).tolist()
    return statistics.Estimate(value, low, high, log_odds.n)


def _logistic(x, y, weights):
    """(a, b), arrays [m], of sigmoid(a + b x) fitted to y [n] with each row of weights [m, n], by Newton's method."""
    from scipy.special import expit

    a = b = np.zeros(len(weights))
    for _ in range(100):
        p = expit(a[:, None] + b[:, None] * x)
        slack, curve = weights * (y - p), weights * p * (1 - p)
        to_a, to_b = slack.sum(1) - _RIDGE * a, slack @ x - _RIDGE * b
        aa, ab, bb = curve.sum(1) + _RIDGE, curve @ x, curve @ (x * x) + _RIDGE
        determinant = aa * bb - ab**2
        steps = np.array([bb * to_a - ab * to_b, aa * to_b - ab * to_a]) / determinant
        a, b = a + steps[0], b + steps[1]
        if np.abs(steps).max() < 1e-8:
            break
    return a, b


def agreement(first, second, users=None, *, quadratic=False, seed=0):
    """Cohen's kappa of two judges' verdicts [n] as a `statistics.Estimate`, clustered by users; NaNs are left out.

    kappa = 1 - observed / expected disagreement: 1 is full agreement, 0 what two judges reach who do not read but keep
    their own shares of verdicts (Cohen 1960). Any difference counts 1; with `quadratic` its square, for ratings and their
    means (Cohen 1968). NaN where both always say the same. Raises `UserError` where no row has a verdict of both.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    keep = ~(np.isnan(first) | np.isnan(second))
    if not keep.any():
        raise UserError("The two judges have no verdict in common; give them the same rows and look at their replies.")
    verdicts, indices = np.unique(np.stack([first[keep], second[keep]]), return_inverse=True)
    first, second = indices.reshape(2, -1)
    gap = np.subtract.outer(verdicts, verdicts)
    cost = gap**2 if quadratic else (gap != 0).astype(float)
    one_hot = np.eye(len(verdicts))

    def kappa(weights):
        total = weights.sum(1)
        observed = weights @ cost[first, second] / total
        expected = np.einsum("mi,ij,mj->m", weights @ one_hot[first], cost, weights @ one_hot[second]) / total**2
        return 1 - np.divide(observed, expected, out=np.full(len(total), np.nan), where=expected > 0)

    users = None if users is None else np.asarray(users)[keep]
    return statistics.bootstrap(kappa, int(keep.sum()), users, within=(-1, 1), seed=seed)
