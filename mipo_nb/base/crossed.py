"""Crossed random effects of trainings and users: mean squares, and the error of a mean (Searle, Casella, McCulloch 1992)."""

import numpy as np


def mean_squares(table, strata=None):
    """Mean squares of a table [trainings, users] with one value in a cell: (trainings, users, what is left), and how
    many users are free. What `strata` [users, p] explain of users' means, by least squares, is not chance: it was
    designed, and comes again with other users of the same strata."""
    (k, n), middle = table.shape, table.mean()
    rows, columns = table.mean(1, keepdims=True) - middle, table.mean(0) - middle
    left = ((table - middle - rows - columns) ** 2).sum() / (max(k - 1, 1) * max(n - 1, 1))
    chance, free = columns, n - 1
    if strata is not None:
        design = np.column_stack([np.ones(n), strata])
        fitted, _, rank, _ = np.linalg.lstsq(design, columns, rcond=None)
        chance, free = columns - design @ fitted, n - rank
    if free < 1 <= n - 1:
        raise ValueError(f"{n} users in {rank} strata leave nothing to tell chance by; use fewer strata.")
    return (n * (rows**2).sum() / max(k - 1, 1), k * (chance**2).sum() / max(free, 1), left), max(free, 1)


def error(squares, trainings, users, free=None):
    """(standard error, degrees of freedom) of the mean of a table with these `mean_squares`; no variance is below 0.
    Degrees of freedom: of the users where trainings differ no more than chance; else Satterthwaite's (1946), with the
    trainings' part raised by 4 / (trainings - 1), twice its relative variance: unraised, three cover 92%, not 94."""
    between, left, a, b = squares[0], squares[2], max(trainings - 1, 1), free or max(users - 1, 1)
    within, raised = max(squares[1] - left, 0.0), between * (1 + 4 / a)
    parts = raised**2 / a + (within + left) ** 2 / b + left**2 / (a * b)
    se = np.sqrt((max(between, left) + within) / (trainings * users))
    return se, (raised + within) ** 2 / parts if between > left else b
