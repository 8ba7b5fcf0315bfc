"""Self-checks of the exercises in the notebooks that reproduce, 30 to 32, as in `checks`."""

import numpy as np

from mipo_nb.course import checking

win_rate_of = checking.numbers(
    "Notebook 30, exercise 1: `function(scores, references, tie)` is a win rate in percent; a tie counts `tie`.",
    (([3, 4], [2, 5], 1.0), 50.0, "one win, one loss, no tie; in percent"),
    (([4, 4, 2], [4, 3, 3], 1.0), 200 / 3, "as published a tie is a win"),
    (([4, 4, 2], [4, 3, 3], 0.5), 50.0, "a tie counts what `tie` says"),
    (([5, 4, 2, 2], [4, 3, 3, 2], 0.5), 62.5, "a win is a score above the reference's, not below it"),
    (([1, 1], [1, 1], 0.0), 0.0, "an equal wins nothing where ties are losses"),
)
equal_wins = checking.numbers(
    "Notebook 30, exercise 2: `function(p)` is the published win rate in percent of an equal, from probabilities of grades.",
    (([0.2] * 5,), 60.0, "they tie where both grades are the same, with probability the sum of squares"),
    (([0.0, 1.0, 0.0],), 100.0, "a judge who always says the same: every pair is a tie"),
    (([0.5, 0.3, 0.2],), 69.0, "half of what is not tied, and all of what is"),
)
kappa_of = checking.numbers(
    "Notebook 30, exercise 3: `function(a, b)` is Cohen's kappa of two lists of verdicts.",
    (([1, 0, 1, 0], [1, 0, 1, 0]), 1.0, "full agreement"),
    (([1, 1, 0, 0], [1, 0, 1, 0]), 0.0, "as much agreement as two judges have who do not read"),
    (([1, 1, 1, 0], [1, 1, 0, 0]), 0.5, "expected: each judge's own shares, not a half"),
    (([2, 1, 0], [1, 0, 2]), -0.5, "less agreement than by chance is below zero; verdicts may be of three kinds"),
)

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

clipped_precision = checking.numbers(
    "Notebook 32, exercise 1: `function(response, others)` is the share of a response's words found in others, clipped.",
    ((["a", "b"], [["b", "a", "c"]]), 1.0, "every word is found"),
    ((["a", "b", "c", "d"], [["a"], ["d", "x"]]), 0.5, "a word may be found in any of the others"),
    ((["a", "a", "a", "b"], [["a", "a", "b"], ["a"]]), 0.75, "a word counts as often as in the text that has it most"),
)
all_different = checking.numbers(
    "Notebook 32, exercise 2: `function(k, n)` is the probability that n draws from k answers are all different.",
    ((5, 1), 1.0, "one draw repeats nothing"),
    ((4, 2), 0.75, "the second draw hits the first with probability 1/k"),
    ((6, 4), 5 / 18, "each draw must miss all the earlier ones"),
    ((3, 4), 0.0, "more draws than answers must repeat one"),
)
_told = np.array([[[1.0, 0], [1, 0]], [[0, 1], [0, 1]]])
_mixed = np.array([[[1.0, 0], [0, 1], [1, 0]], [[0.6, 0.8], [0.6, 0.8], [1, 0]], [[0, 1], [0.8, 0.6], [0.6, 0.8]]])
user_adds = checking.numbers(
    "Notebook 32, exercise 3: `function(grid)` is the distance between users minus that between draws of one user.",
    ((np.ones((3, 4, 1)),), 0.0, "a model that says one thing to all adds nothing"),
    ((_told,), 1.0, "each user has one answer of their own, at distance 1 from the other's"),
    ((_mixed,), -0.05333333, "draws of one user: leave out each draw's distance to itself"),
)
