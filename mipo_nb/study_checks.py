"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking

softmax_loss_of = checking.numbers(
    "Notebook 41, exercise 1: `function(ratios, beta)` is the loss of one chosen response (first) against N - 1 rejected.",
    ((np.zeros(8), 0.3), np.log(8), "an untrained policy guesses among N"),
    ((np.array([2.0, -3.0]), 0.1), np.log1p(np.exp(-0.5)), "with one rejected response it is DPO's loss"),
    (
        (np.array([0.0, -20.0, 5.0]), 0.2),
        np.log(1 + np.exp(-4) + np.exp(1)),
        "minus the log of the softmax of beta times the ratios, at the first",
    ),
)

_kept = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]])
users_part = checking.numbers(
    "Notebook 41, exercise 2: `function(kept, kinds)` is what the model does for its users beyond what it does for all.",
    ((np.ones((3, 3)), ["a", "b", "c"]), 0.0, "a wish that is kept for everyone is not kept for its user"),
    ((np.eye(4), ["a", "b", "c", "d"]), 1.0, "here each wish is kept for whom it belongs to, and for nobody else"),
    (
        (_kept, ["a", "a", "b", "c"]),
        0.75 - (0.5 + 0 + 1 / 3 + 1 / 3) / 4,
        "whoever has a wish of the same kind asked for it too, and does not count among the others",
    ),
)

share_kept_by = checking.numbers(
    "Notebook 41, exercise 3: `function(kinds, users)` is how often a random other user shares one's kind of wish.",
    ((4, 4), 0.0, "where all are of different kinds nobody shares"),
    ((1, 9), 1.0, "where there is one kind all share"),
    ((12, 144), 11 / 143, "oneself is not among the others"),
    ((3, 12), 3 / 11, "each kind has users / kinds people"),
)
