"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking

factor_part = checking.numbers(
    "Notebook 43, exercise 1: `function(before, after, i)` is the part of factor i in the change of a product of two.",
    (((0.5, 0.8), (0.6, 0.9), 0), 0.085, "the change of the factor, times the mean of the other one before and after"),
    (((0.5, 0.8), (0.6, 0.9), 1), 0.055, "both parts together are the change of the product"),
    (((0.8, 0.5), (0.9, 0.4), 1), -0.085, "a factor that falls has a negative part"),
    (((0.3, 0.7), (0.3, 0.2), 0), 0.0, "a factor that stays has no part"),
)

divisia_part = checking.numbers(
    "Notebook 43, exercise 2: `function(before, after, i)` is the part of factor i by the logarithmic mean.",
    (((0.5, 0.8), (0.6, 0.9), 0), 0.14 / np.log(1.35) * np.log(1.2), "the logarithmic mean of the two products, times the factor's log-ratio"),
    (((0.5, 0.8), (0.6, 0.9), 1), 0.14 / np.log(1.35) * np.log(1.125), "both parts together are the change of the product"),
    (((0.4, 0.5), (0.5, 0.4), 0), 0.2 * np.log(1.25), "where both products are equal their mean is the product"),
    (((0.9, 0.8, 0.5), (0.9, 0.6, 0.5), 1), -0.09, "any number of factors: the one that changed has the whole change"),
)  # fmt: skip

luck_of_many = checking.numbers(
    "Notebook 43, exercise 3: `function(k, n)` is the probability that one of k different numbers out of n is the right one.",
    ((1, 20), 0.05, "one number hits one time in n"),
    ((4, 20), 0.2, "drawn without putting back: no two of them can both hit"),
    ((20, 20), 1.0, "who mentions them all hits"),
)
