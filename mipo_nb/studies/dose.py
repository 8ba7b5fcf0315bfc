"""One training saved at several doses, and how well a dose explains what was measured at it.

The dose of a training is what is set (learning rate times steps) or what is reached: the mean log-ratio margin on pairs
that training never saw (`objectives.log_ratio_margin`, in nats). Notebook 40 compares the two.
"""

import numpy as np

from mipo_nb import statistics, training


def train(model_name, pairs, reference, *, steps, folder, **numbers):
    """`training.train` at a constant rate, with the adapter saved after each of `steps`, a rising list of whole
    numbers.

    The rate rises in the first `warmup` (a share) of the longest training and stays: a shorter training is the start of
    a longer one and costs nothing extra. `numbers` are those of a `training.Recipe`. Returns {"steps", "adapters": a
    path for each of `steps`, "log": metrics per step, "initial_adapter"}. Raises `UserError` as `training.train` does.
    """
    numbers = {"epochs": 1, "final_rate": 1.0, **numbers}
    result = training.train(model_name, pairs, reference, folder=folder, keep_at=steps, **numbers)
    return {"steps": list(steps), **{name: result[name] for name in ("adapters", "log", "initial_adapter")}}


def left_out_weights(dose, width=1.5):
    """Array [n, n]: row i has the weights with which the other n - 1 settings, by their dose, predict setting i.

    Only the order of `dose` [n] counts, equal doses having equal ranks: the weight of j is exp(-d^2 / 2 width^2), d the
    distance of the ranks of i and j (Nadaraya 1964 and Watson 1964, on ranks). Rows sum to 1, the diagonal is 0. Raises
    `ValueError` for fewer than two settings.
    """
    from scipy.stats import rankdata

    ranks = rankdata(dose)
    if len(ranks) < 2:
        raise ValueError("One setting has no other to be predicted from.")
    squares = (np.subtract.outer(ranks, ranks) / width) ** 2 / 2
    np.fill_diagonal(squares, np.inf)
    weights = np.exp(squares.min(axis=1, keepdims=True) - squares)  # the nearest counts 1, however far it is
    return weights / weights.sum(axis=1, keepdims=True)


def left_out_error(means, dose, width=1.5):
    """Root mean square, over settings, of what `left_out_weights` leaves unexplained: [...] from `means` [..., n]."""
    means = np.asarray(means, dtype=float)
    residuals = means - means @ left_out_weights(dose, width).T
    return np.sqrt((residuals**2).mean(axis=-1))


def error_ratio(views, first, second, users=None, *, width=1.5, seed=0):
    """`statistics.Estimate`: left-out error by one dose over that by another, the geometric mean over views.

    `views` is a list of arrays [settings, n], the same n rows in each; columns with a NaN are left out of their view.
    `first` and `second` are doses [settings]. Users are resampled; doses and trainings are fixed. Below 1 where `first`
    explains the settings better. A view that does not differ between settings, in all rows or in those of a resample,
    is left out; all is NaN where none differs.
    """
    views = [np.asarray(values, dtype=float) for values in views]

    def ratio(weights):
        logs = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for values in views:
                complete = ~np.isnan(values).any(axis=0)
                drawn = weights[:, complete]
                means = drawn @ values[:, complete].T / drawn.sum(axis=1, keepdims=True)
                ratios = left_out_error(means, first, width) / left_out_error(means, second, width)
                differs = np.ptp(means, axis=1) > 1e-9 * np.abs(means).max(axis=1)  # beyond rounding
                logs.append(np.where(differs, np.log(ratios), np.nan))
            defined = np.isfinite(logs)
            return np.exp(np.where(defined, logs, 0).sum(axis=0) / defined.sum(axis=0))

    return statistics.bootstrap(ratio, views[0].shape[1], users, seed=seed)


def slope_within(values, lengths):
    """How much a view changes with one unit of length more, within settings and rows: one number. Both arrays are
    [settings, n]. The means of settings and of rows are subtracted, so that what a setting does to both does not count
    as an effect of length. Columns with a NaN are left out; 0 where lengths do not vary."""
    values, lengths = (np.asarray(table, dtype=float) for table in (values, lengths))
    complete = ~(np.isnan(values) | np.isnan(lengths)).any(axis=0)
    tables = values[:, complete], lengths[:, complete]
    values, lengths = (t - t.mean(axis=0) - t.mean(axis=1, keepdims=True) + t.mean() for t in tables)
    squares = (lengths**2).sum()
    return float((values * lengths).sum() / squares) if squares > 1e-12 else 0.0
