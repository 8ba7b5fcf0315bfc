"""Self-checks of the exercises in the studies, notebooks 40 to 43, as in `checks`."""

import numpy as np

from mipo_nb.course import checking

_SAME = {"person": "Omar keeps bees", "wish": "answers in Spanish", "question": "What should I cook?"}
_PAIRS = (
    ({**_SAME, "wish": "a numbered list"}, {"wish"}, "what both sides were told cancels in the difference"),
    ({**_SAME, "person": "Ana drives a bus", "wish": "a numbered list"}, {"person", "wish"}, "two parts differ here"),
    ({**_SAME, "question": "Plan my day."}, {"question"}, "the same user was asked something else"),
    ({"question": _SAME["question"]}, {"person", "wish"}, "a part that one side was not told of is not shared either"),
    (_SAME, set(), "sides that were told the same teach nothing"),
)


def can_teach(function):
    """Notebook 40, exercise 1: `function(chosen, rejected)` lists the parts, of {name: text}, that a pair can teach."""
    for rejected, wanted, hint in _PAIRS:
        answer, problem = checking.tried(function, _SAME, rejected)
        if problem is None and not isinstance(answer, (list, tuple, set)):
            problem = f"a list of names is wanted, you give {type(answer).__name__}."
        elif problem is None and (len(answer) != len(wanted) or any(part not in answer for part in wanted)):
            problem = f"{hint} (wanted {sorted(wanted)}, got {list(answer)})"
        if problem:
            break
    checking.verdict(problem)


_before = np.array([[-80.0, -60.0], [-82.0, -65.0]])
moved_of = checking.numbers(
    "Notebook 40, exercise 2: `function(before, after)` is by how many nats a part moved; [own or exchanged, responses].",
    ((_before[:, :1], np.array([[-84.0], [-90.0]])), 4.0, "2 nats told of the part before, 6 after"),
    ((_before, _before - 7), 0.0, "what makes every text less likely, whoever asks, says nothing of the part"),
    ((_before, np.array([[-80.0, -60.0], [-80.0, -69.0]])), 1.0, "the mean over responses: one lost 2, one gained 4"),
)

_person, _wish = np.log([[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]]), np.log([[[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]])
_apart, _mixed = (
    np.exp(_person + _wish),
    np.array([[[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]], [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]]),
)
spread_of = checking.numbers(
    "Notebook 40, exercise 3: `function(reference, beta)` is how unevenly the optimum moves what responses tell of a person.",
    (
        (_apart / _apart.sum(-1, keepdims=True), 0.5),
        0.0,
        "a wish that does the same to both people cancels between them",
    ),
    (
        (_mixed, 1.0),
        np.log(9.6),
        "log(p(y|b,w) / p(y|b,w')) of one person minus that of the other, largest minus smallest",
    ),
    ((_mixed, 0.5), 2 * np.log(9.6), "beta divides what the optimum adds"),
)

exponent_after = checking.numbers(
    "Notebook 41, exercise 1: `function(rounds, a, renewed)` is the power of the first model that is reached.",
    ((0, 0.5, True), 1.0, "before any round the model is itself: power 1"),
    ((1, 0.5, False), 1.5, "in the first round the two references are the same"),
    ((2, 1.0, True), 4.0, "renewed: the reference has the power of the last round"),
    ((2, 1.0, False), 3.0, "kept: the reference has power 1 in every round, the ratio that of the last one"),
    ((3, 0.5, False), 1.875, "kept: 1 + a + a^2 + ..."),
    ((6, 0.1, True), 1.1**6, "renewed: the power grows by the factor 1 + a each round"),
)
silent_from = checking.numbers(
    "Notebook 41, exercise 2: `function(w, beta)` is the margin, in nats, from which a pair's weight is below w.",
    ((0.5, 0.1), 0.0, "at a margin of 0 the weight is a half: sigma(0)"),
    ((0.05, 0.1), 10 * np.log(19), "solve w = sigma(-beta m) for m: the log-odds of 1 - w, over beta"),
    ((0.05, 0.5), 2 * np.log(19), "a larger beta needs a smaller margin"),
)
solved_at_least_once = checking.numbers(
    "Notebook 41, exercise 3: `function(rates, k)` is the expected share of problems that k draws solve at least once.",
    (([0.2, 0.6], 1), 0.4, "with one draw it is the mean of the rates"),
    (([0.5, 0.0], 2), 0.375, "a problem is missed where all draws miss it; then the mean over problems"),
    (([0.9, 0.1], 8), 1 - (0.1**8 + 0.9**8) / 2, "draws are independent, problems differ"),
)

best_of_draws = checking.numbers(
    "Notebook 42, exercise 1: `function(values, n)` is the expected best of n of the draws, without replacement.",
    (([0.0, 1.0, 0.0, 0.0], 1), 0.25, "the best of one draw is a draw"),
    (([0.0, 1.0, 0.0, 0.0], 2), 0.5, "two of four, not put back: the one right draw is among them half of the time"),
    (([3.0, 1.0, 2.0], 3), 3.0, "the best of all is the largest"),
    (([0.5, 0.0, 1.0, 0.0, 0.5], 2), 0.65, "count the sets of two: in how many is each value the largest?"),
)
gain_at = checking.numbers(
    "Notebook 42, exercise 2: `function(before, after, k)` is by how many points the share of wishes reached in k draws rises.",
    (([0.4, 0.0], [0.5, 0.0], 1), 5.0, "in one draw the gain is that of the mean chance, in points"),
    (([0.9], [0.99], 4), 100 * (0.1**4 - 0.01**4), "four draws had nearly all of it before"),
    (([0.5, 0.0], [0.5, 0.5], 2), 37.5, "a wish that was never kept is now reached in three of four pairs of draws"),
    (([0.5], [0.25], 2), -31.25, "what becomes rarer is reached less often"),
)

nats_of_best = checking.numbers(
    "Notebook 42, exercise 3: `function(n)` is the divergence of the best of n draws from one draw, in nats.",
    ((1,), 0.0, "the best of one is one draw"),
    ((2,), np.log(2) - 0.5, "the mean of log(n u^(n-1)) under the density n u^(n-1)"),
    ((64,), np.log(64) - 63 / 64, "the mean of log u under that density is -1/n"),
)

slope_of = checking.numbers(
    "Notebook 43, exercise 1: `function(gains)` is the least-squares slope per turn of gains at turns 1 to T.",
    (([3.0, 3.0, 3.0, 3.0],), 0.0, "a gain that stays has no slope"),
    ((np.array([5.0, 2.0, -1.0]),), -3.0, "what falls by three a turn has slope minus three"),
    (([10.0, 0.0, 0.0, 0.0, 0.0],), -2.0, "all turns count, not the first and the last alone"),
    (([0.0, 4.0],), 4.0, "with two turns it is their difference"),
)
share_left = checking.numbers(
    "Notebook 43, exercise 2: `function(untrained, trained)` is the share of the first turn's gain that is left at the last.",
    (([12.0, 10.0, 8.0], [20.0, 17.0, 14.0]), 0.75, "a gain is trained minus untrained, at its own turn: 8, then 6"),
    (([12.0, 7.0, 2.0], [20.0, 15.0, 10.0]), 1.0, "where both fall alike nothing of the gain is lost"),
    (([3.0, 3.0], [7.0, 1.0]), -0.5, "a gain that turned into a loss has a negative share left"),
)
largest_error = checking.numbers(
    "Notebook 43, exercise 3: `function(change, margin)` is the largest standard error that still shows a change within it.",
    ((0.5, 5.0), 4.5 / 1.645, "the interval's farther end, 1.645 standard errors on, has to stay inside"),
    ((-2.0, 5.0), 3.0 / 1.645, "a change below zero is as far from its margin as one above"),
    ((6.0, 5.0), 0.0, "what lies outside itself is shown within by no error"),
)
