"""Whole clusters (users) drawn with replacement: sums of rows that go together, and what other draws would have given."""

import numpy as np

RESAMPLES = 4000


def resampled(tables, clusters=None, *, seed=0, resamples=RESAMPLES):
    """Array [1 + resamples, k]: column sums of `tables` [trainings, n, k], averaged over trainings; first as they are,
    then with whole clusters (users), the same in all trainings, and the trainings drawn with replacement. `clusters`
    [n] are labels, or None for independent rows. With few trainings such intervals may be much too short."""
    sums, rng = sums_of(np.asarray(tables, dtype=float), clusters), np.random.default_rng(seed)
    k, n, _ = sums.shape
    users = rng.multinomial(n, np.full(n, 1 / n), size=resamples)  # how often each is drawn
    trainings = rng.multinomial(k, np.full(k, 1 / k), size=resamples) / k
    drawn = np.einsum("bs,suk,bu->bk", trainings, sums, users, optimize=True)
    return np.concatenate([sums.sum(1).mean(0, keepdims=True), drawn])


def sums_of(tables, clusters):
    """[trainings, users, ...]: `tables` [trainings, n, ...] summed over the rows of each user."""
    labels = labels_of(tables.shape[1], clusters)
    sums = np.zeros((len(tables), labels.max(initial=-1) + 1, *tables.shape[2:]))
    np.add.at(sums, (slice(None), labels), tables)
    return sums


def users_of(n, clusters):
    """How many users `n` rows are of."""
    return n if clusters is None else len(np.unique(clusters))


def labels_of(n, clusters):
    return np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
