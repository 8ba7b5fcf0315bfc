"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking

exponent_after = checking.numbers(
    "Notebook 42, exercise 1: `function(rounds, a, renewed)` is the power of the first model that is reached.",
    ((0, 0.5, True), 1.0, "before any round the model is itself: power 1"),
    ((1, 0.5, False), 1.5, "in the first round the two references are the same"),
    ((2, 1.0, True), 4.0, "renewed: the reference has the power of the last round"),
    ((2, 1.0, False), 3.0, "kept: the reference has power 1 in every round, the ratio that of the last one"),
    ((3, 0.5, False), 1.875, "kept: 1 + a + a^2 + ..."),
    ((6, 0.1, True), 1.1**6, "renewed: the power grows by the factor 1 + a each round"),
)

best_of_draws = checking.numbers(
    "Notebook 42, exercise 2: `function(values, n)` is the expected best of n of the draws, without replacement.",
    (([0.0, 1.0, 0.0, 0.0], 1), 0.25, "the best of one draw is a draw"),
    (([0.0, 1.0, 0.0, 0.0], 2), 0.5, "two of four, not put back: the one right draw is among them half of the time"),
    (([3.0, 1.0, 2.0], 3), 3.0, "the best of all is the largest"),
    (([0.5, 0.0, 1.0, 0.0, 0.5], 2), 0.65, "count the sets of two: in how many is each value the largest?"),
)

nats_of_best = checking.numbers(
    "Notebook 42, exercise 3: `function(n)` is the divergence of the best of n draws from one draw, in nats.",
    ((1,), 0.0, "the best of one is one draw"),
    ((2,), np.log(2) - 0.5, "the mean of log(n u^(n-1)) under the density n u^(n-1)"),
    ((64,), np.log(64) - 63 / 64, "the mean of log u under that density is -1/n"),
)
