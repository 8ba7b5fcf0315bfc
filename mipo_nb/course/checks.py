"""Self-checks of the exercises, notebook by notebook. Each takes the reader's function; `checking` says how."""

import numpy as np

from mipo_nb import information
from mipo_nb.course import checking

times_likelier = checking.numbers(
    "Notebook 00, exercise 1: `function(nats)` is the factor by which so many nats make an answer likelier.",
    ((0.0,), 1.0, "no nats, no change"),
    ((1.0,), np.e, "one nat is a factor of e"),
    ((-2.0,), np.exp(-2.0), "below zero: less likely"),
    ((3.0,), np.exp(3.0), "nats add, factors multiply"),
)
weights_in_gigabytes = checking.numbers(
    "Notebook 00, exercise 2: `function(parameters, bits)` is the memory of the weights in GB (10^9 bytes).",
    ((1_500_000_000, 16), 3.0, "16 bits are two bytes for each parameter"),
    ((1_500_000_000, 4), 0.75, "a byte has 8 bits, so 4 bits are half a byte"),
    ((7_000_000_000, 4), 3.5, "more parameters need more"),
)
steps_of = checking.numbers(
    "Notebook 14, exercise 1: `function(pairs, batch_size, epochs)` is the number of whole training steps.",
    ((256, 8, 1), 32, "each step takes one batch"),
    ((250, 8, 1), 32, "the last, smaller batch is a step too"),
    ((250, 8, 3), 96, "every epoch ends with its own smaller batch"),
    ((100, 16, 1), 7, "batches may have another size"),
)


def _hinted(says, *cases, measure=float):
    """A check from cases (arguments, the value measured of the answer or its two bounds, a hint). No value is told."""

    def check(function):
        for arguments, *wanted, hint in cases:
            answer, problem = checking.tried(function, *arguments)
            found, unfit = checking.tried(measure, answer)
            if problem or unfit or not min(wanted) - 1e-4 <= found <= max(wanted) + 1e-4:
                yours = f" (yours: {found:.4g})" if isinstance(found, float) else ""
                return checking.verdict(problem or hint + yours)
        return checking.verdict(None)

    check.__doc__ = says
    return check


def _foretold(says, *wanted):
    """A check of a list of words, from (word, hint) for each."""

    def right_from_the_start(words):
        pairs = list(zip(words, wanted, strict=True))
        return next((k for k, (word, (right, _)) in enumerate(pairs) if word != right), len(wanted))

    cases = [((), k, len(wanted), f"number {k}: {hint}") for k, (_, hint) in enumerate(wanted, 1)]
    form = ((), 0, len(wanted), f"give a list of {len(wanted)} words, each of them rises, falls or stays")
    return _hinted(says, form, *cases, measure=right_from_the_start)


what_moves_pmi = _foretold(
    "Notebook 01, exercise 1: `function()` says what four changes do to the PMI of Ana and Swim!",
    ("falls", "what is left of it when both users get the answer equally often?"),
    ("stays", "both probabilities of the ratio are halved"),
    ("rises", "what becomes of the average over who asks?"),
    ("falls", "whose probability does the average over who asks come closer to?"),
)
rare_winner = _hinted(
    "Notebook 01, exercise 2: `function()` is how likely a useless answer is for Ana, and for Ben.",
    ((), 0.6, 0.6932, "seldom for Ana (below 0.01) and far more seldom for Ben, so that the PMI is above 0.6 nats"),
    measure=lambda p: float(np.log(2 * p[0] / (p[0] + p[1]))) if 0 < p[0] < 0.01 else 0.0,
)
log_average = _hinted(
    "Notebook 01, exercise 3: `function(log_probabilities)` is the logarithm of their mean probability.",
    ((np.log([0.1, 0.3]),), np.log(0.2), "average the probabilities, then take the logarithm"),
    ((np.array([-900.0, -905.0]),), -900.68643, "exp(-900) is 0 for a computer: take out the largest first"),
)
candidates_for = _hinted(
    "Notebook 02, exercise 1: `function(nats)` is the smallest N whose ceiling log N is at least that.",
    ((2.0,), 8, "which whole numbers have a logarithm of 2 or more?"),
    ((0.5,), 2, "one candidate is no game"),
    *(((np.log(n),), n, f"log {n} is just enough: mind how a computer rounds") for n in (8, 2, 4)),
)
curve_of_16 = _hinted(
    "Notebook 02, exercise 2: `function()` is InfoNCE for N = 16 at 0.5, 2 and 8 nats.",
    ((), 0, 0.25, "below the truth, below log 16, above N = 8; your largest error must be 0.25 nats at most"),
    measure=lambda shown: float(np.abs(np.subtract(shown, (0.445, 1.55, 2.75))).max()),
)
dv_bound = _hinted(
    "Notebook 02, exercise 3: `function(together, apart)` is the Donsker-Varadhan bound in nats.",
    ((np.array([2.0, 4.0]), np.zeros(2)), 3.0, "the mean over pairs that belong together stands in front"),
    ((np.ones(2), np.log([1.0, 3.0])), 1 - np.log(2), "the logarithm of the mean of exp, not the mean of f"),
    ((np.full(2, 906.0), np.log([1.0, 3.0]) + 905), 1 - np.log(2), "exp(905) is infinite for a computer"),
)
_KNOWN = np.array([[3, 1, 6], [1, 3, 6]]) / 10  # Ana and Ben of notebooks 01 to 03: Swim!, Play chess!, Have fun!
_PMI, _AT_HALF = np.log(_KNOWN / _KNOWN.mean(0)), _KNOWN[0] ** 2 / (_KNOWN[0] ** 2).sum()
likelier_or_not = _foretold(
    "Notebook 03, exercise 1: `function()` says what training does to Ben's three answers, and then a larger beta.",
    ("falls", "its PMI with him is below zero"),
    ("rises", "its PMI with him is above zero"),
    ("falls", "its weight does not change, but the three must sum to one"),
    ("falls", "beta is the price of going away from the reference"),
)
beta_for = _hinted(
    "Notebook 03, exercise 2: `function(share)` is the beta at which Swim! has that share in Ana's optimum.",
    *(((x,), x - 1e-3, x + 1e-3, f"Swim! must have {x:g}: a smaller beta gives it more") for x in (0.5, 0.95)),
    measure=lambda beta: float(information.mipo_optimum(_KNOWN[0], _KNOWN.mean(0), beta)[0]),
)
untold = _hinted(
    "Notebook 03, exercise 3: what a model says without a context, so that training against it costs PMI.",
    ((), -9, 0.04, "the mean PMI is 0.052 nats before training and must end below 0.04"),
    measure=lambda q: float((information.mipo_optimum(_KNOWN, np.reshape(q, 3), 1.0) * _PMI).sum() / 2),
)
above_zero = _hinted(
    "Notebook 03, exercise 4: a policy for Ana that raises the log-ratio of what is sampled at temperature 0.5.",
    ((), 0.05, 1, "three probabilities whose mean log-ratio is above 0.05 nats"),
    measure=lambda policy: float(_AT_HALF @ np.log(np.reshape(policy, 3) / np.sum(policy) / _KNOWN[0])),
)

_kept = np.array([True, True, False, False, True])
lean = checking.numbers(
    "Notebook 10, exercise 1: signal minus false negatives, from what the chosen and the rejected side keep.",
    ((_kept, np.array([False, True, True, False, False])), 0.2, "two wishes pull the right way and one the wrong way"),
    ((_kept, _kept), 0.0, "where both sides keep the same wishes nothing leans"),
    ((~_kept, np.array([True, True, False, False, True])), -0.2, "more false negatives than signal: below zero"),
)
longer_is_chosen = checking.numbers(
    "Notebook 10, exercise 3: accuracy of 'the longer side is chosen', from gaps.",
    ((np.array([3, 5, -2, 4]),), 0.75, "count the pairs with a positive gap"),
    ((np.array([0, 0, 0, 0]),), 0.5, "where all lengths are equal the rule is a coin toss"),
    ((np.array([0, -1, -7, 2]),), 0.375, "a tie counts half"),
)


def other_user(function):
    """Notebook 10, exercise 2: index of a row of another user, with the same prompt where there is one."""
    likes = ("ana", "tea"), ("ana", "tea"), ("ben", "sea"), ("chi", "tea"), ("dan", "ski")
    rows = [{"user_id": user, "prompt": prompt, "context": f"{user} likes {prompt}"} for user, prompt in likes]
    for i, allowed, hint in (
        (0, {3}, "row 3 has the same prompt and another user"),
        (1, {3}, "row 0 has the same prompt but is the same user"),
        (3, {0, 1}, "rows 0 and 1 have the same prompt and another user"),
        (4, {0, 1, 2, 3}, "no other row has this prompt, so any other user will do"),
    ):
        answer, problem = checking.tried(function, rows, i)
        if problem or not isinstance(answer, (int, np.integer)) or answer not in allowed:
            return checking.verdict(problem or f"for row {i} you give {answer!r}: {hint}.")
    return checking.verdict(None)


_asked = np.array([True, True, False, False, False, True])
for_user = checking.numbers(
    "Notebook 12, exercise 1: `function(asked, kept)` is how often a wish is kept when asked, minus when not asked.",
    ((_asked, np.ones(6, dtype=bool)), 0.0, "what everybody gets is no gain for the user"),
    ((_asked, _asked), 1.0, "kept exactly where it was asked"),
    ((_asked, np.array([True, False, True, False, False, True])), 1 / 3, "two of three asked, one of three not asked"),
    ((_asked[:5], np.array([True, True, True, False, False])), 2 / 3, "each group has its own size"),
)
reach = checking.numbers(
    "Notebook 12, exercise 3: half the width of the range in which the next training will lie with 95%.",
    ((np.array([10.0, 14.0, 18.0]),), 19.873, "t of two degrees of freedom, the sample's deviation, and sqrt(1 + 1/3)"),
    ((np.array([1.0, 3.0]),), 22.008, "two trainings: t of one degree of freedom is 12.7"),
    ((np.full(4, 7.0),), 0.0, "trainings that agree leave no doubt by this rule"),
)
margin = checking.numbers(
    "Notebook 11, exercise 1: DPO's margin in nats from four summed log-probabilities.",
    ((-50.0, -60.0, -50.0, -60.0), 0.0, "an untrained policy equals its reference: margin 0"),
    ((-48.0, -65.0, -50.0, -60.0), 7.0, "chosen rose by 2 nats, rejected fell by 5"),
)


def best_of(function):
    """Notebook 14, exercise 2: the expected largest of n normal numbers, by simulation."""
    cases = (
        ((1, 10.0, 6.0), 10.0, "the best of one is that one"),
        ((2, 0.0, 1.0), 0.5642, "the larger of two is above the mean by 0.56 deviations"),
        ((10, 10.0, 6.0), 19.232, "the best of ten is above the mean by 1.54 deviations"),
    )
    problems = (checking.number(function, case, wanted, hint, 0.04 * case[2]) for case, wanted, hint in cases)
    checking.verdict(next((problem for problem in problems if problem), None))


def optimum(function):
    """Notebook 11, exercise 2: the optimum pi_ref * ratio^(1/beta), normalized."""
    reference, ratio = np.array([0.5, 0.3, 0.2]), np.array([1.0, 2.0, 0.5])
    answers = {}
    for beta in (0.5, 1.0, 4.0):
        answer, problem = checking.tried(function, reference, ratio, beta)
        if problem:
            return checking.verdict(problem)
        try:
            answers[beta] = np.asarray(answer, dtype=float)
        except (TypeError, ValueError):
            return checking.verdict(f"an array of probabilities is wanted, you give {type(answer).__name__}.")
        if answers[beta].shape != (3,) or not np.isclose(answers[beta].sum(), 1):
            return checking.verdict("the answer must be three probabilities that sum to 1.")
    if np.abs(answers[4.0] - reference).sum() > np.abs(answers[0.5] - reference).sum():
        return checking.verdict("a larger beta must stay closer to the reference; the exponent is 1/beta.")
    for beta, hint in ((0.5, "its ratio squared"), (4.0, "the fourth root of its ratio")):
        wanted = reference * ratio ** (1 / beta)
        if not np.allclose(answers[beta], wanted / wanted.sum()):
            hint = f"each probability is multiplied by {hint}, then all are normalized"
            return checking.verdict(f"at beta {beta:g} {hint}.")
    return checking.verdict(None)


_before = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
_after = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
_wanted = float(np.std(_after - _before, ddof=1) / np.sqrt(6))
paired_gain = checking.numbers(
    "Notebook 12, exercise 2: standard error of a paired difference of means.",
    ((_after, _before), _wanted, "take the differences first, then their standard error (n - 1)"),
    ((_before + 5, _before), 0.0, "when every row gains the same, the difference is certain"),
    ((_after[:3], _before[:3]), 1 / 3, "fewer rows are less sure: count them"),
)
