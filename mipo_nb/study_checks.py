"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking

slope_of = checking.numbers(
    "Notebook 44, exercise 1: `function(gains)` is the least-squares slope per turn of gains at turns 1 to T.",
    (([3.0, 3.0, 3.0, 3.0],), 0.0, "a gain that stays has no slope"),
    ((np.array([5.0, 2.0, -1.0]),), -3.0, "what falls by three a turn has slope minus three"),
    (([10.0, 0.0, 0.0, 0.0, 0.0],), -2.0, "all turns count, not the first and the last alone"),
    (([0.0, 4.0],), 4.0, "with two turns it is their difference"),
)

lower_end = checking.numbers(
    "Notebook 44, exercise 2: `function(wins, ties, losses)` is the lower end of Wilson's 95% interval, as a share.",
    ((10, 0, 10), 0.2992980, "centre and reach are both divided by 1 + z^2 / n"),
    ((20, 0, 0), 0.8388747, "where every pair was won the interval still has a width"),
    ((11, 4, 5), 0.4328544, "a tie is half a win, and counts as a pair"),
)

pairs_needed = checking.numbers(
    "Notebook 44, exercise 3: `function(share)` is the smallest number of pairs that tells a share from a half.",
    ((0.75,), 16, "a half is excluded where the share is z standard errors of a fair coin away"),
    ((0.6,), 97, "a distance of a tenth needs about a hundred: solve for n and round up"),
    ((1.0,), 4, "even a rater who never wavers needs some pairs"),
)
