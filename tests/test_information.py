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
    unknown = [[np.nan, 1, 2], [3, np.nan, 2]]
    assert np.isnan([information.identified(unknown), information.area_under_curve(unknown)]).all()


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


# --- tables of joint probabilities ---

counts = arrays(float, shapes, elements=st.integers(0, 30).map(float)).filter(lambda t: t.sum() > 0)


def test_pmi_of_a_two_by_two_table_by_hand():
    pmi = information.pmi_table([[4, 1], [1, 2]])  # of 8: p(x) = p(y) = 5/8, 3/8
    assert pmi == pytest.approx(np.log([[4 * 8 / 25, 8 / 15], [8 / 15, 2 * 8 / 9]]))


@given(counts)
def test_pmi_does_not_know_rows_from_columns(table):
    assert information.pmi_table(table.T) == pytest.approx(information.pmi_table(table).T)
    assert information.pmi_table(7 * table) == pytest.approx(information.pmi_table(table))


@given(counts)
def test_information_is_never_negative_and_at_most_the_smaller_entropy(table):
    def entropy(p):
        return -(p[p > 0] * np.log(p[p > 0])).sum()

    rows, columns = table.sum(1) / table.sum(), table.sum(0) / table.sum()
    found = information.mutual_information(table)
    assert -1e-9 <= found <= min(entropy(rows), entropy(columns)) + 1e-9
    assert found == pytest.approx(entropy(rows) + entropy(columns) - entropy(table / table.sum()), abs=1e-9)


@given(counts)
def test_independence_leaves_nothing(table):
    independent = table.sum(1, keepdims=True) * table.sum(0, keepdims=True)
    pmi = information.pmi_table(independent)
    assert pmi[independent > 0] == pytest.approx(0, abs=1e-9)
    assert information.mutual_information(independent) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("table", [[[0.0, 0.0]], [[1.0, -1.0], [1.0, 1.0]]])
def test_what_is_no_table_of_counts_is_refused(table):
    with pytest.raises(ValueError, match="table of counts"):
        information.pmi_table(table)


# --- the marginal from random prompts ---


@given(tables)
def test_the_marginal_estimate_is_unbiased_in_probability_and_low_in_its_logarithm(scores):
    every, one = information.log_marginal(scores), np.mean([information.log_marginal(s[:, None]) for s in scores.T], 0)
    assert np.exp(every) == pytest.approx(np.exp(scores).mean(1))
    assert (one <= every + 1e-9).all()


# --- bounds ---

joints = arrays(float, shapes, elements=st.integers(1, 30).map(float))


@given(joints, st.data())
def test_no_critic_exceeds_the_information_and_the_best_one_reaches_it(joint, data):
    """On the exact distribution, entered as samples repeated in proportion."""
    joint = joint.astype(int)
    truth, pmi = information.mutual_information(joint), information.pmi_table(joint)
    n = joint.sum()
    product = np.outer(joint.sum(1), joint.sum(0))
    if n > 60:
        return  # n^2 pairs
    critic = data.draw(arrays(float, joint.shape, elements=st.integers(-3, 3).map(float)))
    for f in (critic, pmi, pmi + 1):
        true, wrong = np.repeat(f.ravel(), joint.ravel()), np.repeat(f.ravel(), product.ravel())
        assert information.nwj_bound(true, wrong) <= truth + 1e-9
        assert information.donsker_varadhan_bound(true, wrong) <= truth + 1e-9
        assert information.nwj_bound(true, wrong) <= information.donsker_varadhan_bound(true, wrong) + 1e-9
    assert information.nwj_bound(true, wrong) == pytest.approx(truth, abs=1e-9)  # f = PMI + 1
    assert information.donsker_varadhan_bound(true, wrong) == pytest.approx(truth, abs=1e-9)


def test_the_bounds_of_correlated_gaussians_in_closed_form():
    rng, correlation, n = np.random.default_rng(0), 0.8, 40_000
    x, noise, other = rng.standard_normal((3, n))
    y = correlation * x + math.sqrt(1 - correlation**2) * noise

    def pmi(x, y):
        rest = 1 - correlation**2
        return -math.log(rest) / 2 - (x**2 - 2 * correlation * x * y + y**2) / (2 * rest) + (x**2 + y**2) / 2

    truth = -math.log(1 - correlation**2) / 2
    assert information.nwj_bound(1 + pmi(x, y), 1 + pmi(x, other)) == pytest.approx(truth, abs=0.03)
    assert information.donsker_varadhan_bound(pmi(x, y), pmi(x, other)) == pytest.approx(truth, abs=0.03)


# --- the optimum ---

strengths = st.floats(0.2, 5)


@st.composite
def worlds(draw):
    n, m = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    p, q = (draw(arrays(float, (n, m), elements=st.integers(1, 20).map(float))) for _ in range(2))
    return p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)


@given(worlds(), strengths)
def test_the_optimum_has_the_promised_odds(world, beta):
    p, q = world
    best = information.mipo_optimum(p, q, beta)
    assert best.sum(1) == pytest.approx(1)
    log_ratio = beta * np.log(best / p) - np.log(p / q)
    assert np.ptp(log_ratio, axis=1) == pytest.approx(0, abs=1e-6)


@given(worlds(), strengths, st.floats(1.2, 4))
def test_a_larger_beta_stays_closer(world, beta, factor):
    p, q = world
    near, far = (information.mipo_optimum(p, q, b) for b in (beta * factor, beta))
    assert (information.divergence(near, p) <= information.divergence(far, p) + 1e-9).all()
    assert information.mipo_optimum(p, p, beta) == pytest.approx(p)  # nothing to tell apart, nothing to learn


@given(worlds())
def test_distances(world):
    p, q = world
    assert (information.divergence(p, q) >= 2 * information.total_variation(p, q) ** 2 - 1e-9).all()  # Pinsker
    assert information.total_variation(p, q) == pytest.approx(information.total_variation(q, p))
    assert information.divergence(p, p) == pytest.approx(0) == pytest.approx(information.total_variation(p, p))
