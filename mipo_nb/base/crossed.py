"""Crossed random effects of trainings and users: mean squares, and the error of a mean (Searle, Casella, McCulloch 1992)."""

import numpy as np


def mean_squares(table, strata=None):
    """Mean squares of a table [trainings, users] with one value in a cell: (trainings, users, what is left), and how
    many users are free. What `strata` [users, p] explain, by least squares, of users' means and of what each training does
    to each user, is not chance: it was designed, and comes again with other users of the same strata."""
    (k, n), middle = table.shape, table.mean()
    rows, columns = table.mean(1, keepdims=True) - middle, table.mean(0) - middle
    chance, free = np.vstack([columns, table - middle - rows - columns]), n - 1  # of users' means, and of each cell
    if strata is not None:
        design = np.column_stack([np.ones(n), strata])
        fitted, _, rank, _ = np.linalg.lstsq(design, chance.T, rcond=None)
        chance, free = chance - (design @ fitted).T, n - rank
    if free < 1 <= n - 1:
        raise ValueError(f"{n} users in {rank} strata leave nothing to tell chance by; use fewer strata.")
    a, b, (users, *cells) = max(k - 1, 1), max(free, 1), (chance**2).sum(axis=1)
    return (n * (rows**2).sum() / a, k * users / b, sum(cells) / (a * b)), b


def error(squares, trainings, users, free=None):
    """(standard error, degrees of freedom) of the mean of a table with these `mean_squares`; no variance is below 0.
    Degrees of freedom: of the users where trainings differ no more than chance; else Satterthwaite's (1946), with the
    trainings' part raised by 4 / (trainings - 1), twice its relative variance: unraised, three cover 92%, not 94."""
    between, left, a, b = squares[0], squares[2], max(trainings - 1, 1), free or max(users - 1, 1)
    within, raised = max(squares[1] - left, 0.0), between * (1 + 4 / a)
    parts = raised**2 / a + (within + left) ** 2 / b + left**2 / (a * b)
    se = np.sqrt((max(between, left) + within) / (trainings * users))
    return se, (raised + within) ** 2 / parts if between > left else b
