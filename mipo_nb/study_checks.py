"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking

strength_of = checking.numbers(
    "Notebook 40, exercise 1: `function(margins, gaps)` is the least-squares slope of a line through zero.",
    ((np.array([2.0, -4.0, 6.0]), np.array([1.0, -2.0, 3.0])), 2.0, "margins that are twice the gaps have strength 2"),
    (
        (np.array([1.0, 3.0]), np.array([1.0, 2.0])),
        1.4,
        "pairs with a large gap count more: sum m g over sum g squared",
    ),
    ((np.array([5.0, 5.0]), np.array([-3.0, 3.0])), 0.0, "the line goes through zero, so a constant does not count"),
)

last_safe_step = checking.numbers(
    "Notebook 40, exercise 2: `function(steps, signal, limit)` is the last step before the signal passes the limit.",
    (([6, 12, 24], [0.1, 0.2, 0.9], 0.5), 12, "step 24 passed the limit; the adapter before it is kept"),
    (([6, 12, 24], [0.7, 0.8, 0.9], 0.5), 0, "what is beyond the limit at once leaves the model untrained"),
    (([6, 12, 24], [0.1, 0.2, 0.3], 0.5), 24, "a training that never passes the limit goes to its end"),
    (([6, 12, 24], [0.1, 0.8, 0.2], 0.5), 6, "training was stopped, so it cannot come back below the limit"),
)

_words = np.array([0.0, 1.0, 2.0, 5.0])
gain_at_equal_length = checking.numbers(
    "Notebook 40, exercise 3: `function(gain, words)` is the gain at no change in words, on a fitted straight line.",
    ((3 + 2 * _words, _words), 3.0, "it is where the line crosses a change of zero"),
    (
        (np.array([1.0, 0.0, 2.0, 1.0]), np.array([-2.0, -1.0, 1.0, 2.0])),
        1.0,
        "lengths that do not change on average change nothing",
    ),
    ((np.array([1.0, 2.0, 6.0]), np.array([-3.0, -2.0, -1.0])), 8.0, "the line may have to be drawn beyond the points"),
)
