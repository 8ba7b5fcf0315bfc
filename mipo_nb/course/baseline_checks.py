"""Self-checks of the exercises in the notebooks on baselines, 20 to 22, as in `checks`."""

import numpy as np

from mipo_nb.course import checking
from mipo_nb.verifiable import rewards

_game = np.array([[0.0, 3.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
sami_of = checking.numbers(
    "Notebook 20, exercise 1: `function(m)` is the mean cross-entropy of the rows and columns of a square matrix.",
    ((np.full((3, 3), -40.0),), np.log(3), "where nothing can be told apart each of N costs log N"),
    ((_game,), 1.5177662, "what belongs together stands on the diagonal; average over N, and over both ways"),
)
wrong_context = checking.numbers(
    "Notebook 20, exercise 2: `function(difference, temperature)` is the probability of the wrong one of two contexts.",
    ((0.0, 7.0), 0.5, "where both contexts fit alike it is a coin toss"),
    ((np.log(3), 1.0), 0.25, "a softmax over two contexts, and the wrong one of them is asked for"),
    ((10.0, 5.0), 1 / (1 + np.exp(2)), "a temperature divides the difference"),
)
next_rate = checking.numbers(
    "Notebook 20, exercise 3: `function(gains)` is the rate to try next, 0 where the best of {rate: gain} lies inside.",
    (({1.0: 2.0, 2.0: 5.0, 4.0: 9.0},), 8.0, "the best is the largest rate, so a larger one may be better still"),
    (({2.0: 1.0, 1.0: 3.0, 4.0: -2.0},), 0.5, "the best is the smallest rate, whatever stands first"),
    (({1.0: 2.0, 2.0: 5.0, 4.0: 4.0},), 0.0, "where the best lies inside nothing further is asked for"),
    (({8.0: -9.0, 2.0: -5.0, 4.0: -1.0},), 0.0, "the best is the highest gain, below 0 too"),
)

updates_of = checking.numbers(
    "Notebook 21, exercise 1: `function(prompts, passes, before, minibatch, epochs)` is how often the weights are updated.",
    ((1400, 1, 8, 4, 2), 700, "175 lots of 8 responses; each goes twice through the model, in two minibatches"),
    ((100, 3, 32, 16, 1), 18, "in each pass the prompts that fill no whole lot are left out"),
    ((7473, 15, 256, 64, 1), 1740, "29 whole lots a pass"),
)
advantage_of = checking.numbers(
    "Notebook 21, exercise 2: `function(rewards, i)` is the advantage of response i in its group.",
    (([1.0, 0.0, 0.0, 0.0], 0), 1.5, "subtract the group's mean, divide by its standard deviation over n - 1"),
    (([1.0, 0.0, 0.0, 0.0], 2), -0.5, "what earned less than the others has a negative advantage"),
    (([10.0, 20.0, 60.0], 1), -0.37796447, "the group may have any size, and rewards any unit"),
)


def unpaid(function):
    """Notebook 21, exercise 3: `function(answer)` is a text that the published training does not pay and its test counts."""
    problem = None
    for answer in (7, 18, 120):
        text, problem = checking.tried(function, answer)
        if problem is None and not isinstance(text, str):
            problem = f"a text is wanted, you give {type(text).__name__}."
        elif problem is None and rewards.paid_number(text) == answer:
            problem = f"training reads {answer} in {text!r}, and pays."
        elif problem is None and rewards.counted_number(text) != answer:
            problem = f"the test reads {rewards.counted_number(text)} in {text!r}, not {answer}."
        if problem:
            break
    checking.verdict(problem)


speaks = checking.numbers(
    "Notebook 21, exercise 4: `function(p, group)` is the probability that a group is not silent.",
    ((0.5, 2), 0.5, "two coins differ half of the time"),
    ((0.1, 8), 1 - 0.1**8 - 0.9**8, "silent is: all right, or all wrong"),
    ((0.0, 8), 0.0, "where nothing is ever right every group is silent"),
)

_told, _untold = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.5, 0.4])
steered_probability = checking.numbers(
    "Notebook 22, exercise 1: `function(p, q, strength)` is the probability of token 0 after steering.",
    ((_told, _untold, 0.0), 0.2, "strength 0 changes nothing"),
    ((_told, _untold, -1.0), 0.1, "at strength -1 only the reading that was not told is left"),
    ((_told, _untold, 1.0), 0.4 / 1.125, "multiply by the ratio of the two readings, then normalize over all tokens"),
    ((_told, _untold, 2.0), 0.8 / 1.46875, "the strength is the exponent of the ratio"),
)
log_normalizer = checking.numbers(
    "Notebook 22, exercise 2: `function(p, q, strength)` is log Z of one step in nats.",
    ((_told, _told, 3.0), 0.0, "where both readings agree nothing is to be normalized"),
    ((_told, _untold, -1.0), 0.0, "at strength -1 what is summed is the other reading, which sums to 1"),
    ((_told, _untold, 1.0), np.log(1.125), "sum p times the ratio over all tokens, then take the logarithm"),
    ((_told, _untold, 2.0), np.log(1.46875), "the strength is the exponent of the ratio"),
)
responses_to_pay = checking.numbers(
    "Notebook 22, exercise 3: `function(training, steered, tuned)` is a whole number of responses, from seconds.",
    ((300.0, 1.5, 1.0), 600, "each response saves half a second here"),
    ((100.0, 1.3, 1.0), 334, "after 333 responses steering is still a little cheaper: round up"),
    ((0.0, 1.5, 1.0), 0, "a training that cost nothing has paid at once"),
)
