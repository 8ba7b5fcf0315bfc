"""Self-checks of the exercises in the notebooks on reproduction, 30 to 32, as in `checks`."""

import numpy as np

from mipo_nb import checking

standard_error_of = checking.numbers(
    "Notebook 31, exercise 1: `function(p, n)` is the standard error of a share in points, from n questions.",
    ((0.5, 100), 5.0, "the root of p (1 - p) / n, times 100 for points"),
    ((0.8, 200), 100 * np.sqrt(0.16 / 200), "four in five right of 200 questions: 2.8 points"),
    ((0.0, 50), 0.0, "where all fail the formula gives 0, which is too sure; the intervals here use Wilson's then"),
)

questions_for = checking.numbers(
    "Notebook 31, exercise 2: `function(gain, moved)` is a whole number of questions, both arguments shares.",
    ((0.1, 0.3), 116, "a question's difference is +1, -1 or 0; its variance is moved - gain squared"),
    ((0.05, 0.05), 76, "where all that moved was gained the variance is smaller, not 0"),
    ((0.01, 0.1), 3996, "two standard errors: four times the variance, over the gain squared"),
    ((0.15, 0.3), 50, "round up to a whole question"),
)

by_luck = checking.numbers(
    "Notebook 31, exercise 3: `function(n, moved, least)` is the probability of a net gain of at least so many questions.",
    ((1, 0.5, 1), 0.25, "the question moves half of the time, and then is gained half of the time"),
    ((2, 1.0, 2), 0.25, "both move: both must be gained"),
    ((2, 0.5, 1), 0.3125, "one moves and is gained, or both are; one gained and one lost is no net gain"),
    ((3, 1.0, 0), 0.5, "at least 0: two or three of three are gained"),
    ((200, 0.1, 2), 0.36784, "sum over how many move, then over how many of those are gained"),
)
