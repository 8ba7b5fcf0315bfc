"""How a check of an exercise works: it tries the reader's function and says in one line what is wrong with it.

A check prints; it never raises, so an unsolved notebook still runs to its end. With `MIPO_NB_STRICT=1` in the
environment a failed one raises: by that nbgrader, otter and other programs that mark a class know it.
"""

import copy
import os
import warnings

import numpy as np


def verdict(problem):
    """Print whether an exercise is solved. Raises `AssertionError` where it is not, if checks are strict."""
    said = "✓ Right." if problem is None else f"✗ Not yet: {problem}"
    if problem is not None and _strict():
        raise AssertionError(said)
    print(said)


def tried(function, *arguments):
    """(answer, None), or (None, what is wrong) when the function fails or gives nothing back."""
    try:
        with warnings.catch_warnings():
            if _strict():
                warnings.simplefilter("ignore")  # nbgrader gives no point where anything stands on standard error
            answer = function(*copy.deepcopy(arguments))  # a function that changes them must not spoil the next try
    except (Exception, SystemExit) as e:
        return None, f"your function stops with {type(e).__name__}: {e}"
    return (answer, None) if answer is not None else (None, "your function gives nothing back; replace the dots.")


def _strict():
    return os.environ.get("MIPO_NB_STRICT") == "1"


def number(function, arguments, wanted, hint, within=1e-6):
    """What is wrong when `function(*arguments)` should be a number near `wanted`, `within` for one that is simulated."""
    answer, problem = tried(function, *arguments)
    if problem:
        return problem
    try:
        answer = float(answer)
    except Exception:  # no number at all, one beyond all floats, a tensor without a value
        return f"one number is wanted, you give {type(answer).__name__}."
    near = np.isclose(answer, wanted, rtol=1e-3, atol=within)
    return None if near else f"{hint} (you give {answer:.4g})"


def numbers(says, *cases):
    """A check from cases (arguments, the number wanted, what to think of): the first that fails is told."""

    def check(function):
        problems = (number(function, *case) for case in cases)
        verdict(next((p for p in problems if p is not None), None))

    check.__doc__ = says
    return check
