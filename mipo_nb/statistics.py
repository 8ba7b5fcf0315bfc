"""Intervals and tests for paired measurements. Intervals hold 95% and know which rows belong to one user."""

from dataclasses import dataclass

import numpy as np

_RESAMPLES = 4000
_Z = 1.959963984540054  # 97.5% of a standard normal lie below


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval and the rows it stands on."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec):
        spec = spec or ".2f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __mul__(self, factor):
        low, high = sorted((self.low * factor, self.high * factor))
        return Estimate(self.value * factor, low, high, self.n)


def resampled(tables, clusters=None, *, seed=0, resamples=_RESAMPLES):
    """Array [1 + resamples, k]: column sums of `tables` [trainings, n, k], averaged over trainings; first as they are, then
    with whole clusters (users), and the trainings where there are several, drawn with replacement.

    `clusters` [n] are labels, or None for independent rows. The users are the same in all trainings, and are drawn once
    for all of them. With few trainings their part is coarse; it widens the interval, as it should.
    """
    tables = np.asarray(tables, dtype=float)
    trainings, n, k = tables.shape
    labels = _labels(n, clusters)
    sums = np.zeros((trainings, labels.max(initial=-1) + 1, k))
    np.add.at(sums, (slice(None), labels), tables)
    rng = np.random.default_rng(seed)
    users = _drawn(sums.shape[1], rng, resamples)
    if trainings == 1:
        drawn = users @ sums[0]
    else:
        seeds = _drawn(trainings, rng, resamples) / trainings
        drawn = np.einsum("bs,suk,bu->bk", seeds, sums, users, optimize=True)
    return np.concatenate([sums.sum(1).mean(0, keepdims=True), drawn])


def _labels(n, clusters):
    return np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]


def _drawn(count, rng, resamples):
    """[resamples, count]: how often each of `count` is drawn when as many are drawn with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)


def _interval(values, n):
    """`Estimate` of `values`, the first of them as the data are, the others resampled; those that are NaN are left out (one
    user drawn n times has no correlation)."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high), n)


def _ratio_of_sums(columns, clusters, seed):
    """The first of the `columns`, [2][trainings, n], over the second: `_interval` of their sums."""
    sums = resampled(np.stack(columns, axis=-1), clusters, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan), columns[0].shape[1])


def mean(values, clusters=None, *, seed=0):
    """Mean with a percentile-bootstrap interval that resamples whole clusters (users), as rows of one user go together.

    `values` [n]; `clusters` [n] of labels, or None for independent rows. NaNs are left out. Raises `ValueError` when
    nothing is left.
    """
    return over_seeds(np.asarray(values, dtype=float)[None], clusters, seed=seed)


def proportion(values, clusters=None, *, seed=0):
    """`mean` of values that are shares, 0 to 1.

    Where every one is 0, or every one is 1, resampling cannot show how uncertain that is; the interval is then Wilson's
    for as many trials as there are clusters.
    """
    estimate = mean(values, clusters, seed=seed)
    if estimate.value not in (0, 1):
        return estimate
    keep = ~np.isnan(np.asarray(values, dtype=float))
    trials = estimate.n if clusters is None else len(np.unique(np.asarray(clusters)[keep]))
    interval = share(estimate.value * trials, trials)
    return Estimate(estimate.value, interval.low, interval.high, estimate.n)


def paired_difference(after, before, clusters=None, *, seed=0):
    """Mean of after - before, row by row, with the interval of `mean`. Both arrays have shape [n]."""
    return mean(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), clusters, seed=seed)


def ratio(parts, wholes, clusters=None, *, seed=0):
    """Sum of `parts` over the sum of `wholes`, both [n], resampling whole clusters (users). Nothing may be NaN."""
    return _ratio_of_sums([np.asarray(column, dtype=float)[None] for column in (parts, wholes)], clusters, seed)


def correlation(x, y, clusters=None, *, seed=0):
    """Pearson's correlation of x and y [n], resampling whole clusters (users). Nothing may be NaN."""
    # Centred first, so that differences of large squares lose no digits.
    x, y = (np.asarray(v, dtype=float) - np.mean(v) for v in (x, y))
    columns = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=-1)
    n, a, b, aa, bb, ab = resampled(columns[None], clusters, seed=seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval((ab - a * b / n) / np.sqrt((aa - a**2 / n) * (bb - b**2 / n)), len(x))


def change_in_share(after, before, *, seed=0):
    """`paired_difference` of arrays [n] of right or wrong, 1 or 0 (or shared credit), one row a problem.

    Where no row changed, resampling cannot show how uncertain that is; the interval then reaches as far to either side
    as Wilson's upper limit for none of n.
    """
    estimate = paired_difference(after, before, seed=seed)
    if estimate.low < estimate.high or estimate.value:
        return estimate
    reach = share(0, estimate.n).high
    return Estimate(0.0, -reach, reach, estimate.n)


def over_seeds(differences, clusters=None, *, seed=0):
    """Mean over rows and training seeds of an array [seeds, n], bootstrapping users and seeds together: see `resampled`.

    Rows with a NaN in any seed are left out. Raises `ValueError` when nothing is left.
    """
    differences = np.asarray(differences, dtype=float)
    keep = ~np.isnan(differences).any(axis=0)
    if not keep.any():
        raise ValueError("No value to average.")
    differences = differences[:, keep]
    clusters = None if clusters is None else np.asarray(clusters)[keep]
    return _ratio_of_sums([differences, np.ones_like(differences)], clusters, seed)


def change_over_seeds(after, before):
    """`over_seeds` of arrays [seeds, n] of right or wrong, 1 or 0, one column a problem.

    Resampling cannot pass what it saw: where no problem was lost in any training (or none gained), that end reaches
    further by Wilson's upper limit for none of n, which is on the safe side.
    """
    gap = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    estimate, missed = over_seeds(gap), share(0, gap.shape[1]).high
    low, high = estimate.low - missed * (not (gap < 0).any()), estimate.high + missed * (not (gap > 0).any())
    return Estimate(estimate.value, low, high, estimate.n)


def bootstrap(estimator, n, clusters=None, *, seed=0, resamples=1000):
    """Any number with a percentile-bootstrap interval that resamples whole clusters (users).

    `estimator` takes weights [resamples, n], how often each of the n rows was drawn, and gives an array [resamples];
    all weights 1 are the data as they are. Resamples in which it is NaN are left out of the interval.
    """
    labels = _labels(n, clusters)
    drawn = _drawn(labels.max() + 1, np.random.default_rng(seed), resamples)
    weights = np.concatenate([np.ones((1, n)), drawn[:, labels]])
    return _interval(estimator(weights), n)


def share(successes, n):
    """Binomial proportion with Wilson's 95% interval. Raises `ValueError` for n = 0."""
    return Estimate(successes / n if n else np.nan, *wilson(successes / n if n else 0, n), int(n))


def wilson(share, n):
    """(low, high): Wilson's 95% interval of a share of n, each from 0 to 1; `share` x n need not be whole.

    The values of p from which the share is no more than 1.96 standard errors away, with the error that p implies
    (Wilson 1927). Raises `ValueError` for n = 0.
    """
    if n < 1:
        raise ValueError("A share of nothing has no interval.")
    middle = share + _Z**2 / (2 * n)
    reach = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = (middle - reach) / (1 + _Z**2 / n), (middle + reach) / (1 + _Z**2 / n)
    return max(0.0, float(low)), min(1.0, float(high))  # rounding passes none and all


def paired_p_value(after, before, clusters=None, *, seed=0):
    """Two-sided p-value of no paired difference, by flipping the sign of whole clusters (users) at random; NaNs left out."""
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    labels = _labels(len(difference), clusters)
    keep = ~np.isnan(difference)
    sums = np.bincount(labels[keep], weights=difference[keep])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_RESAMPLES, len(sums)))
    extreme = np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-9)
    return float((extreme.sum() + 1) / (_RESAMPLES + 1))


def mcnemar(after, before):
    """(gained, lost, p): rows right only after, rows right only before, and the exact two-sided p of McNemar's test.

    Arrays [n] of right or wrong on the same problems. Rows on which both agree say nothing of a difference; of the others
    half would be gained if there were none (McNemar 1947; the exact binomial form). p is 1 where there are no such rows.
    """
    from scipy.stats import binomtest

    after, before = np.asarray(after, dtype=bool), np.asarray(before, dtype=bool)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained, lost, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def corrected(p_values):
    """Holm's correction for several metrics at once: adjusted p-values in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def relative_gain(after, before, *, seed=0):
    """Sum of `after` over sum of `before`, less 1: an `Estimate` that resamples questions and training seeds together.

    Both are arrays [seeds, n] of right or wrong on the same n questions, row k of one belonging to row k of the other.
    Resamples in which `before` is 0 throughout are left out; all is NaN where it is 0 everywhere.
    """
    after, before = (np.atleast_2d(np.asarray(a, dtype=float)) for a in (after, before))
    gain = _ratio_of_sums([after, before], None, seed)
    return Estimate(gain.value - 1, gain.low - 1, gain.high - 1, gain.n)


def components(values):
    """Variances of an array [seeds, n]: (between questions, between seeds, what is left), none below 0.

    From the mean squares of a table with one value in each cell; unbiased but for the cut at 0. What is left is the
    interaction of seed and question with chance. Raises `ValueError` for fewer than two seeds or questions.
    """
    values = np.asarray(values, dtype=float)
    k, n = values.shape
    if k < 2 or n < 2:
        raise ValueError(f"{k} seeds and {n} questions have no variance between them; use two of each at least.")
    by_seed, by_question = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    left = ((values - by_seed - by_question + values.mean()) ** 2).sum() / ((k - 1) * (n - 1))
    questions = (k * by_question.var(ddof=1) - left) / k
    seeds = (n * by_seed.var(ddof=1) - left) / n
    return tuple(max(0.0, float(v)) for v in (questions, seeds, left))
