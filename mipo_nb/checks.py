"""Self-checks of the exercises: each takes the reader's function, tries it, and says what is wrong with it.

A check prints one line and returns True or False; it never raises, so an unsolved notebook still runs to its end.
"""

import numpy as np


def _verdict(problem):
    print("✓ Right." if problem is None else f"✗ Not yet: {problem}")
    return problem is None


def _tried(function, *arguments):
    """(answer, None), or (None, what is wrong) when the function fails or gives nothing back."""
    try:
        answer = function(*arguments)
    except Exception as e:
        return None, f"your function stops with {type(e).__name__}: {e}"
    return (answer, None) if answer is not None else (None, "your function gives nothing back; replace the dots.")


def _number(function, arguments, wanted, hint):
    """What is wrong when `function(*arguments)` should be a number near `wanted`."""
    answer, problem = _tried(function, *arguments)
    if problem:
        return problem
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        return f"one number is wanted, you give {type(answer).__name__}."
    return (
        None if np.isclose(answer, wanted, rtol=1e-3, atol=1e-6) else f"{hint} (wanted {wanted:.4g}, got {answer:.4g})"
    )


def _first_problem(*problems):
    return next((p for p in problems if p is not None), None)


def weights_in_gigabytes(function):
    """Notebook 00, exercise 1: `function(parameters, bits)` is the memory of the weights in GB (10^9 bytes)."""
    return _verdict(
        _first_problem(
            _number(function, (1_500_000_000, 16), 3.0, "16 bits are two bytes for each parameter"),
            _number(function, (1_500_000_000, 4), 0.75, "a byte has 8 bits, so 4 bits are half a byte"),
        )
    )


def steps_of(function):
    """Notebook 00, exercise 2: `function(pairs, batch_size, epochs)` is the number of whole training steps."""
    return _verdict(
        _first_problem(
            _number(function, (256, 8, 1), 32, "each step takes one batch"),
            _number(function, (250, 8, 1), 32, "the last, smaller batch is a step too"),
            _number(function, (250, 8, 3), 96, "every epoch ends with its own smaller batch"),
        )
    )


def longer_is_chosen(function):
    """Notebook 10, exercise 1: accuracy of "the longer side is chosen", from gaps."""
    return _verdict(
        _first_problem(
            _number(function, (np.array([3, 5, -2, 4]),), 0.75, "count the pairs with a positive gap"),
            _number(function, (np.array([0, 0, 0, 0]),), 0.5, "where all lengths are equal the rule is a coin toss"),
            _number(function, (np.array([0, -1, -7, 2]),), 0.375, "a tie counts half"),
        )
    )


def other_user(function):
    """Notebook 10, exercise 2: index of a row of another user, with the same prompt where there is one."""
    rows = [
        {"user_id": u, "prompt": p, "context": f"{u} likes {p}"}
        for u, p in [("ana", "tea"), ("ana", "tea"), ("ben", "sea"), ("chi", "tea"), ("dan", "ski")]
    ]
    for i, allowed, hint in (
        (0, {3}, "row 3 has the same prompt and another user"),
        (1, {3}, "row 0 has the same prompt but is the same user"),
        (4, {0, 1, 2, 3}, "no other row has this prompt, so any other user will do"),
    ):
        answer, problem = _tried(function, rows, i)
        if problem or not isinstance(answer, (int, np.integer)) or answer not in allowed:
            return _verdict(problem or f"for row {i} you give {answer!r}: {hint}.")
    return _verdict(None)


def margin(function):
    """Notebook 11, exercise 1: DPO's margin in nats from four summed log-probabilities."""
    return _verdict(
        _first_problem(
            _number(function, (-50.0, -60.0, -50.0, -60.0), 0.0, "an untrained policy equals its reference: margin 0"),
            _number(function, (-48.0, -65.0, -50.0, -60.0), 7.0, "chosen rose by 2 nats, rejected fell by 5"),
        )
    )


def optimum(function):
    """Notebook 11, exercise 2: the optimum pi_ref * ratio^(1/beta), normalized."""
    reference, ratio = np.array([0.5, 0.3, 0.2]), np.array([1.0, 2.0, 0.5])
    answers = {}
    for beta in (0.5, 1.0, 4.0):
        answer, problem = _tried(function, reference, ratio, beta)
        if problem:
            return _verdict(problem)
        try:
            answers[beta] = np.asarray(answer, dtype=float)
        except (TypeError, ValueError):
            return _verdict(f"an array of probabilities is wanted, you give {type(answer).__name__}.")
        if answers[beta].shape != (3,) or not np.isclose(answers[beta].sum(), 1):
            return _verdict("the answer must be three probabilities that sum to 1.")
    if np.abs(answers[4.0] - reference).sum() > np.abs(answers[0.5] - reference).sum():
        return _verdict("a larger beta must stay closer to the reference; the exponent is 1/beta.")
    for beta, hint in ((0.5, "its ratio squared"), (4.0, "the fourth root of its ratio")):
        wanted = reference * ratio ** (1 / beta)
        if not np.allclose(answers[beta], wanted / wanted.sum()):
            return _verdict(f"at beta {beta:g} each probability is multiplied by {hint}, then all are normalized.")
    return _verdict(None)


def paired_gain(function):
    """Notebook 12, exercise 1: standard error of a paired difference of means."""
    before = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    after = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    wanted = float(np.std(after - before, ddof=1) / np.sqrt(6))
    return _verdict(
        _first_problem(
            _number(function, (after, before), wanted, "take the differences first, then their standard error (n - 1)"),
            _number(function, (before + 5, before), 0.0, "when every row gains the same, the difference is certain"),
        )
    )


def top_one(function):
    """Notebook 12, exercise 2: share of rows in which column 0 has the highest score."""
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 0.0], [5.0, 5.0, 1.0], [-1.0, -2.0, -3.0]])
    return _verdict(
        _first_problem(
            _number(function, (scores[[0, 1, 3]],), 2 / 3, "compare column 0 with the best of each row"),
            _number(function, (scores,), 2.5 / 4, "a tie of two shares the credit"),
        )
    )
