"""Laws of the information measures between prompts and responses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import rankdata

from mipo_nb import information

shapes = array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6)
# Integers make ties common and sums exact.
tables = arrays(float, shapes, elements=st.integers(-40, 0).map(float))
vectors = arrays(float, 5, elements=st.integers(-40, 0).map(float))


@given(vectors, vectors, vectors)
def test_pmi_is_antisymmetric_and_adds_up_along_a_chain(a, b, c):
    pmi = information.pointwise_mutual_information
    assert np.array_equal(pmi(a, b), -pmi(b, a))
    assert np.array_equal(pmi(a, b) + pmi(b, c), pmi(a, c))
    assert not pmi(a, a).any()


def test_pmi_takes_lists_and_averages_to_the_mutual_information():
    joint = np.array([[0.4, 0.1], [0.1, 0.4]])
    conditional = joint / joint.sum(1, keepdims=True)
    pmi = information.pointwise_mutual_information(np.log(conditional).tolist(), np.log(joint.sum(0)).tolist())
    entropy = -sum(p * math.log(p) for p in (0.2, 0.8))
    assert (joint * pmi).sum() == pytest.approx(math.log(2) - entropy)


@given(tables)
def test_contrastive_bound_never_exceeds_log_n(scores):
    assert information.contrastive_bound(scores) <= math.log(scores.shape[1]) + 1e-12


@given(shapes, st.integers(-100, 0))
def test_equal_scores_carry_no_information(shape, score):
    assert information.contrastive_bound(np.full(shape, float(score))) == pytest.approx(0, abs=1e-9)


@given(st.floats(-20, 20))
def test_contrastive_bound_of_two_contexts_in_closed_form(gap):
    expected = math.log(2) - math.log1p(math.exp(-gap))
    assert information.contrastive_bound([[gap, 0.0]]) == pytest.approx(expected, abs=1e-9)


@given(tables, st.data())
def test_contrastive_bound_ignores_a_shift_per_row_and_the_order_of_wrong_contexts(scores, data):
    shift = data.draw(arrays(float, (len(scores), 1), elements=st.integers(-5000, 5000).map(float)))
    order = [0, *data.draw(st.permutations(range(1, scores.shape[1])))]
    found = information.contrastive_bound(scores)
    assert information.contrastive_bound(scores + shift) == pytest.approx(found, abs=1e-9)
    assert information.contrastive_bound(scores[:, order]) == pytest.approx(found, abs=1e-9)


@given(tables, st.floats(0.5, 5))
def test_contrastive_bound_grows_with_the_score_of_the_true_context(scores, gain):
    better = scores.copy()
    better[:, 0] += gain
    assert information.contrastive_bound(better) >= information.contrastive_bound(scores)


def test_contrastive_bound_saturates_at_log_n_without_overflow():
    scores = np.full((3, 7), -5000.0)
    scores[:, 0] = -10.0
    assert information.contrastive_bound(scores) == pytest.approx(math.log(7))


def test_contrastive_bound_finds_the_information_of_a_noisy_binary_channel():
    rng, n, contexts, flip = np.random.default_rng(0), 4000, 64, 0.1
    context = rng.integers(0, 2, size=(n, contexts))
    response = context[:, :1] ^ (rng.random((n, 1)) < flip)
    scores = np.where(context == response, math.log(1 - flip), math.log(flip))
    truth = math.log(2) + flip * math.log(flip) + (1 - flip) * math.log(1 - flip)
    assert truth - 0.06 < information.contrastive_bound(scores) < truth + 0.04


@given(tables)
def test_each_row_gives_one_credit_in_all(scores):
    credit = sum(information.identified(np.roll(scores, -k, axis=1)) for k in range(scores.shape[1]))
    assert credit == pytest.approx(np.ones(len(scores)))


def test_identified_by_hand():
    scores = [[3, 1, 2], [1, 3, 2], [2, 2, 1], [1, 1, 1], [1, 2, 2]]
    assert information.identified(scores) == pytest.approx([1, 0, 1 / 2, 1 / 3, 0])


@given(tables)
def test_area_under_curve_is_the_rank_of_the_true_context(scores):
    ranks = rankdata(scores, axis=1)[:, 0]
    assert information.area_under_curve(scores) == pytest.approx((ranks - 1) / (scores.shape[1] - 1))


@given(tables)
def test_ranks_survive_a_monotone_change_and_turn_with_the_sign(scores):
    area = information.area_under_curve(scores)
    assert np.array_equal(information.area_under_curve(np.exp(scores / 10)), area)
    assert information.area_under_curve(-scores) == pytest.approx(1 - area)
    assert np.array_equal(information.identified(np.exp(scores / 10)), information.identified(scores))


@given(tables)
def test_the_context_that_wins_alone_has_full_area(scores):
    alone = information.identified(scores) == 1
    assert np.array_equal(alone, information.area_under_curve(scores) == 1)
