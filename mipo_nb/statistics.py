"""Intervals and tests for paired measurements. Intervals hold 95% and know which rows belong to one user."""

from dataclasses import dataclass

import numpy as np

_RESAMPLES = 4000


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


def mean(values, clusters=None, *, seed=0):
    """Mean with a percentile-bootstrap interval that resamples whole clusters (users), as rows of one user go together.

    `values` [n]; `clusters` [n] of labels, or None for independent rows. NaNs are left out. Raises `ValueError` when
    nothing is left.
    """
    values = np.asarray(values, dtype=float)
    labels = np.arange(len(values)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    keep = ~np.isnan(values)
    values, labels = values[keep], labels[keep]
    if not len(values):
        raise ValueError("No value to average.")
    labels = np.unique(labels, return_inverse=True)[1]
    sums, sizes = np.bincount(labels, weights=values), np.bincount(labels)
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
    means = weights @ sums / (weights @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


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
    sums, sizes = _moments([parts, wholes], clusters, seed)
    return _interval(lambda m: m[..., 0] / m[..., 1], sums, sizes)


def correlation(x, y, clusters=None, *, seed=0):
    """Pearson's correlation of x and y [n], resampling whole clusters (users). Nothing may be NaN."""
    # Centred first, so that differences of large squares lose no digits.
    x, y = (np.asarray(v, dtype=float) - np.mean(v) for v in (x, y))

    def pearson(m):
        n, a, b, aa, bb, ab = np.moveaxis(m, -1, 0)
        return (ab - a * b / n) / np.sqrt((aa - a**2 / n) * (bb - b**2 / n))

    sums, sizes = _moments([np.ones(len(x)), x, y, x * x, y * y, x * y], clusters, seed)
    return _interval(pearson, sums, sizes)


def _moments(columns, clusters, seed):
    """Sums of each column [k] in every resample of clusters [resamples, k], the sample itself first, and n."""
    columns = np.stack([np.asarray(c, dtype=float) for c in columns])
    n = columns.shape[1]
    labels = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums = np.stack([np.bincount(labels, weights=c) for c in columns], axis=1)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
    return np.concatenate([sums.sum(0, keepdims=True), weights @ sums]), n


def _interval(function, sums, n):
    """`Estimate` of a function of sums; resamples in which it is not defined (one user drawn n times) are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = function(sums)
    low, high = np.nanquantile(found[1:], [0.025, 0.975])
    return Estimate(float(found[0]), float(low), float(high), n)


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
    """Mean over rows and training seeds of an array [seeds, n], bootstrapping users and seeds together.

    With few seeds the seed part is coarse; it widens the interval, as it should. The same users are resampled in all
    seeds, for they are the same users. Rows with a NaN in any seed are left out.
    """
    differences = np.asarray(differences, dtype=float)
    labels = np.unique(np.arange(differences.shape[1]) if clusters is None else clusters, return_inverse=True)[1]
    keep = ~np.isnan(differences).any(axis=0)
    differences, labels = differences[:, keep], np.unique(labels[keep], return_inverse=True)[1]
    sizes = np.bincount(labels)
    sums = np.stack([np.bincount(labels, weights=row) for row in differences])
    rng = np.random.default_rng(seed)
    n_seeds, n_users = sums.shape
    users = rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=_RESAMPLES)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=_RESAMPLES) / n_seeds
    means = np.einsum("bs,su,bu->b", seeds, sums, users) / (users @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(differences.mean()), float(low), float(high), differences.shape[1])


def change_over_seeds(after, before):
    """`over_seeds` of arrays [seeds, n] of right or wrong, 1 or 0, one column a problem.

    Resampling cannot pass what it saw: where no problem was lost in any training (or none gained), that end reaches
    further by Wilson's upper limit for none of n, which is on the safe side.
    """
    gap = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    found, missed = over_seeds(gap), share(0, gap.shape[1]).high
    low, high = found.low - missed * (not (gap < 0).any()), found.high + missed * (not (gap > 0).any())
    return Estimate(found.value, low, high, found.n)


def bootstrap(estimator, n, clusters=None, *, seed=0, resamples=1000):
    """Any number with a percentile-bootstrap interval that resamples whole clusters (users).

    `estimator` takes weights [resamples, n], how often each of the n rows was drawn, and gives an array [resamples];
    all weights 1 are the data as they are. Resamples in which it is NaN are left out of the interval.
    """
    labels = np.unique(np.arange(n) if clusters is None else np.asarray(clusters), return_inverse=True)[1]
    count = labels.max() + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    found = estimator(drawn[:, labels].astype(float))
    found = found[~np.isnan(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return Estimate(float(estimator(np.ones((1, n)))[0]), float(low), float(high), n)


def share(successes, n):
    """Binomial proportion with Wilson's 95% interval. Raises `ValueError` for n = 0."""
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), int(n))


def paired_p_value(after, before, clusters=None, *, seed=0):
    """Two-sided p-value of no paired difference, by flipping the sign of whole clusters (users) at random; NaNs left out."""
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    labels = np.unique(np.arange(len(difference)) if clusters is None else clusters, return_inverse=True)[1]
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
    if not before.sum():
        return Estimate(np.nan, np.nan, np.nan, before.shape[1])
    rng = np.random.default_rng(seed)
    rows, columns = (rng.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES) for size in before.shape)
    totals = [np.einsum("bs,sn,bn->b", rows, a, columns, optimize=True) for a in (after, before)]
    keep = totals[1] > 0
    low, high = np.quantile(totals[0][keep] / totals[1][keep] - 1, [0.025, 0.975])
    return Estimate(float(after.sum() / before.sum() - 1), float(low), float(high), before.shape[1])


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
