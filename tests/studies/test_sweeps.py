"""Sweeps: the next number lies beyond the best one, and they end."""

import math

import pytest

from mipo_nb.studies import sweeps
from mipo_nb.studies.arms import Arm


@pytest.mark.parametrize(
    ("scores", "further"),
    [
        ({1: 0.1, 2: 0.3, 4: 0.2}, None),
        ({1: 0.1, 2: 0.3, 4: 0.4}, 8),
        ({4: 0.4, 1: 0.5, 2: 0.3}, 0.5),
        ({1: 0.3, 2: 0.3, 4: 0.1}, 0.5),  # of equals the smallest
        ({1: -math.inf, 2: 0.0, 4: -math.inf}, None),
        ({2: 0.0}, 4),
    ],
)
def test_the_next_number_lies_beyond_the_best(scores, further):
    assert sweeps.beyond(scores) == further


@pytest.mark.parametrize(("best", "tried"), [(2, [1, 2, 4]), (11, [1, 2, 4, 8, 16]), (0.3, [0.25, 0.5, 1, 2, 4])])
def test_a_sweep_goes_on_until_its_best_lies_inside(best, tried):
    scores = sweeps.swept([1, 2, 4], lambda number: -abs(math.log(number / best)), (0.01, 100))
    assert sorted(scores) in (tried, [0.125, *tried]) and sweeps.beyond(scores) is None


def test_a_sweep_without_a_best_ends_at_its_limits():
    assert sorted(sweeps.swept([1, 2], float, (0.5, 9))) == [1, 2, 4, 8]
    assert sorted(sweeps.swept([1, 2], lambda number: -number, (0.5, 9))) == [0.5, 1, 2]


def test_arms_are_swept_along_the_number_that_is_a_list():
    arm, limits = Arm("random_context", [2.0, 4.0], method="ipo"), {"learning_rate": (1, 20), "beta": (1, 2)}
    found = sweeps.along(arm, lambda one: -abs(one.learning_rate - 9), limits)
    assert {one.learning_rate: points for one, points in found.items()} == {2: -7, 4: -5, 8: -1, 16: -7}
    assert {one.method for one in found} == {"ipo"} and arm.learning_rate == [2.0, 4.0]
    assert sweeps.along(Arm("missing_context", 0.0, pairs=0), lambda one: one.pairs, limits) == {
        Arm("missing_context", 0.0, pairs=0): 0
    }
