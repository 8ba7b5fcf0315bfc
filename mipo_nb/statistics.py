"""Intervals and tests for paired measurements. Intervals hold 95% and know which rows belong to one user."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import bdtr, nctdtrinc, stdtr, stdtrit

from mipo_nb.base import crossed, resampling

_Z = 1.959963984540054  # 97.5% of a standard normal lie below
_FEW = 20  # users: resampling fewer gives too narrow an interval, of six by a fifth


@dataclass(frozen=True)
class Estimate:
    """A number, its 95% interval and the rows it stands on; `se` and `df` of Student's t, or of a normal as wide."""

    value: float
    low: float
    high: float
    n: int
    se: float | None = field(default=None, compare=False)
    df: float = field(default=1e6, compare=False)

    def __post_init__(self):
        if self.se is None:
            object.__setattr__(self, "se", (self.high - self.low) / (2 * _Z))

    def __format__(self, spec):
        spec = spec or ".2f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __mul__(self, factor):
        low, high = sorted((self.low * factor, self.high * factor))
        return Estimate(self.value * factor, low, high, self.n, self.se * abs(factor), self.df)


def _interval(values, n, clusters, within=(-np.inf, np.inf)):
    """`Estimate` of `values`: the first as the data are, the others resampled; NaNs (one user n times) are left out.
    Where every resample is the same, its ends are as far as a user not seen may move them, `within` what can be."""
    value, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    if high - low <= 1e-9 * max(1.0, abs(value)):
        low, high = np.clip(value + np.array([-1, 1]) * _unseen(value, resampling.users_of(n, clusters)), *within)
    return Estimate(value, float(low), float(high), n)


def _unseen(value, users, unit=1.0):
    """How far a mean of `users` who do not differ may lie off: Wilson's upper limit for none of them, times how far from
    the mean one who was not seen may lie, `|value| + max(|value|, unit)`: 1 for shares that did not change."""
    return (abs(value) + max(unit, abs(value))) * wilson(0, users)[1]


def _complete(table, *columns):
    """`table` as [trainings, n], and `columns` [n] or None, without the rows that hold a NaN."""
    table = np.atleast_2d(np.asarray(table, dtype=float))
    keep = ~np.isnan(table).any(axis=0)
    if not keep.any():
        raise ValueError("No value to average.")
    return table[:, keep], *(None if column is None else np.asarray(column)[keep] for column in columns)


def mean(values, clusters=None, *, seed=0):
    """Mean of `values` [n] with a percentile-bootstrap interval that resamples whole clusters (users: labels [n], None
    for independent rows), as rows of a user go together; of few clusters by `over_seeds`. Leaves out NaNs. Raises
    `ValueError` when nothing is left."""
    kept, clusters = _complete(values, clusters)
    few = resampling.users_of(kept.shape[1], clusters) < _FEW
    return over_seeds(kept, clusters) if few else ratio(kept, np.ones_like(kept), clusters, seed=seed)


def proportion(values, clusters=None, *, seed=0):
    """`mean` of shares [n], its ends from 0 to 1; where all are 0, or all 1, Wilson's interval for a trial per cluster."""
    found, (kept, clusters) = mean(values, clusters, seed=seed), _complete(values, clusters)
    if found.value in (0, 1):
        return Estimate(found.value, *wilson(found.value, resampling.users_of(kept.shape[1], clusters)), found.n)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def paired_difference(after, before, clusters=None, *, seed=0):
    """`mean` of after - before, row by row, both [n]."""
    return mean(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), clusters, seed=seed)


def ratio(parts, wholes, clusters=None, *, seed=0):
    """Sum of `parts` over that of `wholes`, both [n] or [trainings, n]; see `base.resampling`. Nothing may be NaN."""
    columns = np.stack([np.atleast_2d(np.asarray(column, dtype=float)) for column in (parts, wholes)], axis=-1)
    above, below = resampling.resampled(columns, clusters, seed=seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(below > 0, above / below, np.nan)
    return _interval(found, columns.shape[1], clusters)


def relative_gain(after, before, *, seed=0):
    """Sum of `after` over sum of `before`, less 1: an `Estimate` that resamples questions and training seeds together.
    Both are arrays [seeds, n] of right or wrong on the same n questions, row k of one belonging to row k of the other.
    Resamples in which `before` is 0 throughout are left out; all is NaN where it is 0 everywhere."""
    gain = ratio(after, before, seed=seed)
    return replace(gain, value=gain.value - 1, low=gain.low - 1, high=gain.high - 1)


def correlation(x, y, clusters=None, *, seed=0):
    """Pearson's correlation of x and y [n], resampling whole clusters (users). Nothing may be NaN."""
    x, y = (np.asarray(v, dtype=float) - np.mean(v) for v in (x, y))  # differences of large squares lose digits
    columns = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=-1)
    n, a, b, aa, bb, ab = resampling.resampled(columns[None], clusters, seed=seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (ab - a * b / n) / np.sqrt((aa - a**2 / n) * (bb - b**2 / n))
    return _interval(found, len(x), clusters, (-1, 1))


def over_seeds(differences, clusters=None, *, strata=None, unit=1.0):
    """Mean of an array [trainings, n]: a t-interval with users (`clusters` [n], or the rows) and trainings both random;
    with one training over users only. Rows with a NaN are left out. Raises `ValueError` when nothing is left.
    The variance is that of crossed random effects by mean squares (`base.crossed`), of linearised sums of each user's
    rows. It covers 93 to 98% with 3 to 10 trainings (simulated in the tests), 90 to 97% with two. `strata` [n, p] say
    what was designed of a user, such as which kinds were wished: differences that they explain are no chance. Where
    no user differs from another, each end reaches further by Wilson's upper limit for none of the users, times how far
    from the mean one not seen may lie: `|mean| + max(|mean|, unit)`, 1 for shares; give that of other scales."""
    table, clusters, strata = _complete(differences, clusters, strata)
    value, sums = float(table.mean()), resampling.sums_of(table - table.mean(), clusters)
    n, users = table.shape[1], sums.shape[1]
    if strata is not None:
        labels = resampling.labels_of(n, clusters)
        strata = np.stack([np.bincount(labels, column) for column in strata.T.astype(float)], axis=1)
    squares, free = crossed.mean_squares(sums * users / n, strata)
    se, df = crossed.error(squares, len(sums), users, free)
    if users == 1 or se <= 1e-12 * np.abs(table).max():
        se += _unseen(value, users, unit) / stdtrit(df, 0.975)
    reach = float(se * stdtrit(df, 0.975))
    return Estimate(value, value - reach, value + reach, n, float(se), float(df))


def next_training(differences, *, unit=1.0):
    """Where the mean of one more training on the same users will lie with 95%: the mean of an array [trainings, n], give
    or take t of the trainings' own means, over users who have a value in each. Where no training differs from another, as
    far as `over_seeds` says of users. Raises `ValueError` for fewer than two trainings."""
    means = _complete(differences)[0].mean(axis=1)
    if (k := len(means)) < 2:
        raise ValueError("One training does not say how far another may lie; use two at least.")
    value, se, t = float(means.mean()), float(means.std(ddof=1) * np.sqrt(1 + 1 / k)), float(stdtrit(k - 1, 0.975))
    se = se if se > 1e-12 * abs(value) else _unseen(value, k, unit) / t
    return Estimate(value, value - se * t, value + se * t, k, se, k - 1)


def equivalent(differences, margin, clusters=None):
    """(outcome, `Estimate` with a 90% interval): is the change no larger than `margin`? Two one-sided tests at 5%.
    True: the interval lies within -margin to margin (Schuirmann 1987); False: outside, the change is larger; None:
    undecided. `differences` are as for `over_seeds`, or [n], or an `Estimate`. Raises `ValueError` for margin 0."""
    found = differences if isinstance(differences, Estimate) else over_seeds(differences, clusters)
    if not (margin > 0 and found.se > 0):
        raise ValueError(f"Margin {margin} and standard error {found.se} must be above 0.")
    part = stdtrit(found.df, 0.95) / stdtrit(found.df, 0.975)  # of each end's own way: not all lie alike
    low, high = (float(found.value + (end - found.value) * part) for end in (found.low, found.high))
    outcome = True if -margin < low and high < margin else False if low > margin or high < -margin else None
    return outcome, replace(found, low=low, high=high)


def detectable(found, trainings=None, users=None, *, power=0.8):
    """Smallest true mean that a two-sided test at 5% finds with this power, in the unit of the data: with the error of
    `found`, an `Estimate`, or of a design of so many trainings and users, `found` being variances of `components`."""
    if not isinstance(found, Estimate):
        squares = found[2] + users * found[1], found[2] + trainings * found[0], found[2]
        found = Estimate(0.0, 0.0, 0.0, users, *crossed.error(squares, trainings, users))
    return float(found.se * nctdtrinc(found.df, 1 - power, stdtrit(found.df, 0.975)))


def change_over_seeds(after, before):
    """`over_seeds` of arrays [seeds, n] of right or wrong, 1 or 0, one column a problem. Where no problem was lost in
    any training (or none gained), that end is on the safe side: further by Wilson's upper limit for none of n."""
    gap, *_ = _complete(np.asarray(after, dtype=float) - np.asarray(before, dtype=float))
    found, least, most = over_seeds(gap), gap.min(), gap.max()
    low, high = wilson(0, gap.shape[1])[1] * np.array([least >= 0 < most, least < 0 >= most])
    return Estimate(found.value, found.low - low, found.high + high, found.n) if low or high else found


def bootstrap(estimator, n, clusters=None, *, within=(-np.inf, np.inf), seed=0, resamples=1000):
    """Any number with a percentile-bootstrap interval that resamples whole clusters (users). `estimator` takes weights
    [resamples, n], how often each row was drawn (all 1 are the data), and gives [resamples], all `within` two bounds;
    its NaNs are left out."""
    labels, users = resampling.labels_of(n, clusters), resampling.users_of(n, clusters)
    drawn = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=resamples)
    return _interval(estimator(np.concatenate([np.ones((1, n)), drawn[:, labels]])), n, clusters, within)


def share(successes, n):
    """Binomial proportion with Wilson's 95% interval. Raises `ValueError` for n = 0."""
    return Estimate(successes / n if n else np.nan, *wilson(successes / n if n else 0, n), int(n))


def wilson(share, n):
    """(low, high): Wilson's 95% interval (1927) of a share of n, each from 0 to 1: the values of p no more than 1.96 of
    their standard errors away; `share` x n need not be whole. Raises `ValueError` for n = 0, or what is no share."""
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"A share of nothing, or one of {share}, has no interval.")
    middle, whole = share + _Z**2 / (2 * n), 1 + _Z**2 / n
    reach = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = float((middle - reach) / whole), float((middle + reach) / whole)
    return 0.0 if share == 0 else max(0.0, low), 1.0 if share == 1 else min(1.0, high)  # no rounding: 0 is not above 0


def paired_p_value(after, before, clusters=None, *, trainings_given=False, seed=0):
    """Two-sided p-value of no paired difference of arrays [n], or [trainings, n]; rows with a NaN are left out.
    With [n], or a flag that takes the trainings as given (averaged), users alone are random: whole clusters (users)
    change sign by chance. Else it is the t-test of `over_seeds`: below 0.05 where that interval leaves out 0."""
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if difference.ndim == 2 and not trainings_given:
        found = over_seeds(difference, clusters)
        return float(2 * stdtr(found.df, -abs(found.value) / found.se))
    difference, clusters = _complete(difference, clusters)
    sums = resampling.sums_of(difference.mean(axis=0, keepdims=True), clusters)[0]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resampling.RESAMPLES, len(sums)))
    extreme = np.abs(signs @ sums) >= abs(sums.sum()) * (1 - 1e-9)  # rounding parts no ties
    return float((extreme.sum() + 1) / (resampling.RESAMPLES + 1))


def mcnemar(after, before):
    """(gained, lost, p): rows [n] right only after, only before, and McNemar's exact two-sided p (1947): of rows that
    changed, half would be gained if nothing differed. p is 1 where none changed. Leaves out NaNs."""
    after, before = _complete(np.asarray([after, before], dtype=float))[0].astype(bool)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained, lost, min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def components(values):
    """Variances of an array [seeds, n]: (between questions, between seeds, what is left: both together, chance), none
    below 0, from the mean squares; unbiased but for the cut. Raises `ValueError` for fewer than two of either, or a NaN."""
    (k, n), (seeds, questions, left) = np.shape(values), crossed.mean_squares(np.asarray(values, dtype=float))[0]
    if k < 2 or n < 2 or np.isnan(values).any():
        raise ValueError(f"{k} seeds and {n} questions, each with a value, have no variance; use two of each at least.")
    return tuple(max(0.0, float(v)) for v in ((questions - left) / k, (seeds - left) / n, left))
