"""A change in accuracy taken apart: the parts add up, and each is what it is called."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mipo_nb import statistics
from mipo_nb.verifiable import answers, decomposition

SHARES = arrays(float, (4,), elements=st.floats(0, 1))


def kinds(*shape, seed=0):
    return np.random.default_rng(seed).choice(answers.KINDS, size=shape)


def test_every_kind_fails_at_one_stage_or_is_right():
    failing = [kind for some in decomposition.STAGES.values() for kind in some]
    assert sorted([*failing, "right"]) == sorted(answers.KINDS)


def test_what_fails_at_a_stage_does_not_come_to_the_next():
    found = decomposition.passed(["right", "off-topic", "format", "no answer", "arithmetic slip", "wrong reasoning"])
    assert found.sum(1).tolist() == [4, 0, 1, 1, 2, 3]
    assert (np.diff(found, axis=1) <= 0).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="Unknown kinds \\['typo'\\]"):
        decomposition.passed([["right", "typo"]])


def test_factors_multiply_to_the_accuracy_and_know_a_share_of_nothing():
    some = kinds(40)
    found = decomposition.factors(decomposition.passed(some).mean(0))
    assert found.prod() == pytest.approx(np.mean(some == "right"))
    assert found[0] == np.mean(some != "off-topic")
    nothing = decomposition.factors([0.5, 0.0, 0.0, 0.0])
    assert nothing[:2].tolist() == [0.5, 0.0] and np.isnan(nothing[2:]).all()


@given(SHARES, SHARES)
def test_parts_add_up_and_change_sign_with_the_sides(before, after):
    parts = decomposition.split(before, after)
    assert parts.sum() == pytest.approx(after.prod() - before.prod(), abs=1e-12)
    assert decomposition.split(after, before) == pytest.approx(-parts, abs=1e-12)


@given(SHARES, st.integers(0, 3), st.floats(0, 1))
def test_where_one_factor_changed_it_has_the_whole_change(before, which, value):
    after = before.copy()
    after[which] = value
    parts = decomposition.split(before, after)
    assert np.delete(parts, which).tolist() == [0, 0, 0]
    assert parts[which] == pytest.approx(after.prod() - before.prod(), abs=1e-12)


def test_parts_are_means_over_all_orders_of_exchange():
    before, after = np.random.default_rng(0).uniform(size=(2, 4))
    total = np.zeros(4)
    orders = list(permutations(range(4)))
    for order in orders:
        now = before.copy()
        for i in order:
            was = now.prod()
            now[i] = after[i]
            total[i] += now.prod() - was
    assert decomposition.split(before, after) == pytest.approx(total / len(orders))


def test_a_share_of_nothing_has_no_part():
    parts = decomposition.split([0.5, 0.8, 0.5, 0.5], [0.0, np.nan, np.nan, np.nan])
    assert parts.tolist() == pytest.approx([-0.1, 0, 0, 0])
    assert decomposition.split([0.0, np.nan], [0.5, np.nan]).tolist() == [0.5, 0]


def test_many_are_split_at_once():
    before, after = np.random.default_rng(1).uniform(size=(2, 5, 4))
    together = decomposition.split(before, after)
    assert together == pytest.approx(np.stack([decomposition.split(b, a) for b, a in zip(before, after, strict=True)]))


def test_parts_of_a_change_add_up_to_the_change_in_right():
    before, after = kinds(60), kinds(3, 60, seed=1)
    found = decomposition.change(after, before)
    assert sum(found[stage].value for stage in decomposition.STAGES) == pytest.approx(found["all"].value)
    right = statistics.over_seeds((after == "right") * 1.0 - (before == "right"))
    assert found["all"].value == pytest.approx(right.value)
    assert (found["all"].low, found["all"].high) == pytest.approx((right.low, right.high))
    assert all(part.low <= part.value <= part.high and part.n == 60 for part in found.values())


def test_a_change_may_be_from_training_to_training():
    one, other = kinds(3, 30, seed=2), kinds(3, 30, seed=3)
    found, back = decomposition.change(one, other), decomposition.change(other, one)
    assert all(found[stage].value == pytest.approx(-back[stage].value) for stage in found)
    assert all(part.value == 0 and part.low < 0 < part.high for part in decomposition.change(one, one).values())


def test_intervals_of_parts_hold_what_many_trainings_would_show():
    """Three trainings on 96 problems, whose chances to pass a gate differ from problem to problem and training to training."""
    stages, names = (
        len(decomposition.STAGES),
        np.array(["off-topic", "format", "arithmetic slip", "wrong reasoning", "right"]),
    )
    random, middle = np.random.default_rng(0), np.array([[2.2, 4.0, 1.2, 0.6], [2.8, 3.5, 0.9, 0.9]])

    def written(trainings, problems):
        """Kinds [2, trainings, problems]: before, the same in each training, and after."""
        hard, turn = random.normal(size=(problems, stages)), 0.4 * random.normal(size=(trainings, 1, stages))
        chance = 1 / (1 + np.exp(-(middle[:, None, None] + hard + np.stack([0 * turn, turn]))))
        told = random.random(chance.shape) > chance
        told[0] = told[0, :1]
        return names[np.where(told.any(-1), told.argmax(-1), stages)]

    world = written(600, 3000)
    true = {stage: part.value for stage, part in decomposition.change(world[1], world[0]).items()}
    found = [decomposition.change(after, before) for before, after in (written(3, 96) for _ in range(400))]
    for stage, value in true.items():
        held = np.mean([some[stage].low <= value <= some[stage].high for some in found])
        assert held >= 0.93, (stage, held)
