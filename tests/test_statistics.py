"""Laws of the intervals and tests for paired measurements."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import statistics

numbers = st.integers(-1000, 1000).map(lambda i: i / 8)
samples = st.lists(numbers, min_size=1, max_size=30)


def interval(estimate):
    return pytest.approx((estimate.value, estimate.low, estimate.high), abs=1e-9)


def triple(estimate):
    return estimate.value, estimate.low, estimate.high


@given(samples)
def test_mean_is_the_average_inside_its_interval_inside_the_range(values):
    found = statistics.mean(values)
    assert found.value == pytest.approx(sum(values) / len(values))
    assert found.n == len(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


@given(numbers, st.integers(1, 20))
def test_equal_values_have_an_interval_of_no_width(value, n):
    assert triple(statistics.mean([value] * n)) == pytest.approx((value, value, value))


def test_width_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    found = statistics.mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_interval_covers_the_truth_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        users = rng.normal(size=40)
        values = np.repeat(users, 3) + rng.normal(size=120)
        found = statistics.mean(values, np.repeat(np.arange(40), 3), seed=trial)
        covered += found.low <= 0 <= found.high
    assert 178 <= covered <= 199  # 190 expected, standard deviation about 3


@given(samples, st.sampled_from([-4.0, -0.5, 0.25, 3.0]), numbers)
def test_mean_follows_a_change_of_unit(values, factor, shift):
    before = statistics.mean(values)
    after = statistics.mean([factor * v + shift for v in values])
    scaled = before * factor
    assert triple(after) == pytest.approx((scaled.value + shift, scaled.low + shift, scaled.high + shift), abs=1e-8)


@given(samples, st.integers(1, 5))
def test_copies_within_a_user_add_nothing(values, copies):
    users = np.arange(len(values))
    once = statistics.mean(values, users)
    many = statistics.mean(np.repeat(values, copies), np.repeat(users, copies))
    assert triple(many) == interval(once)


def test_copies_taken_for_independent_rows_narrow_the_interval():
    values = np.repeat(np.random.default_rng(3).normal(size=30), 9)
    naive = statistics.mean(values)
    honest = statistics.mean(values, np.repeat(np.arange(30), 9))
    assert (honest.high - honest.low) / (naive.high - naive.low) == pytest.approx(3, rel=0.15)


@given(samples)
def test_every_row_its_own_user_is_the_same_as_no_users(values):
    assert statistics.mean(values, [f"{i:03d}" for i in range(len(values))]) == statistics.mean(values)


@given(samples, st.data())
def test_missing_values_are_left_out_with_their_label(values, data):
    gaps = data.draw(st.lists(st.integers(0, len(values)), max_size=4))
    users = list(range(len(values)))
    full = statistics.mean(values, users)
    for at in gaps:
        values, users = values[:at] + [math.nan] + values[at:], users[:at] + [999] + users[at:]
    assert statistics.mean(values, users) == full


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan, math.nan]])
def test_mean_of_nothing_is_refused(values):
    with pytest.raises(ValueError, match="No value"):
        statistics.mean(values)


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(4).normal(size=25)
    assert statistics.mean(values, seed=5) == statistics.mean(values, seed=5)
    assert statistics.mean(values, seed=5).low != statistics.mean(values, seed=6).low


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_paired_difference_is_antisymmetric_and_the_mean_of_differences(rows):
    after, before = zip(*rows, strict=True)
    forward = statistics.paired_difference(after, before)
    assert triple(forward) == interval(statistics.mean([a - b for a, b in rows]))
    assert triple(statistics.paired_difference(before, after)) == interval(forward * -1)


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(5)
    common, gain = rng.normal(0, 100, size=50), rng.normal(1, 0.1, size=50)
    found = statistics.paired_difference(common + gain, common)
    assert 0.9 < found.low < found.high < 1.1


@given(st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=5))
def test_over_seeds_averages_everything(rows):
    found = statistics.over_seeds(rows)
    assert found.value == pytest.approx(np.mean(rows))
    assert found.n == 6
    assert np.min(rows) - 1e-9 <= found.low <= found.high <= np.max(rows) + 1e-9


@given(st.lists(numbers, min_size=2, max_size=12), st.integers(1, 4))
def test_seeds_that_agree_add_nothing(row, seeds):
    users = [i // 2 for i in range(len(row))]
    assert triple(statistics.over_seeds([row] * seeds, users)) == interval(statistics.mean(row, users))


def test_seeds_that_disagree_widen_the_interval():
    row = np.random.default_rng(6).normal(size=50)
    agree = statistics.over_seeds([row, row, row])
    differ = statistics.over_seeds([row - 1, row, row + 1])
    assert differ.value == pytest.approx(agree.value)
    assert differ.low < agree.low and differ.high > agree.high


@given(st.integers(1, 200), st.data())
def test_share_is_wilsons_interval(n, data):
    k = data.draw(st.integers(0, n))
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = statistics.share(k, n)
    assert triple(found) == pytest.approx((p, centre - half, centre + half), abs=1e-9)
    mirrored = statistics.share(n - k, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


def test_share_of_nothing_is_refused():
    with pytest.raises(ValueError):
        statistics.share(0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_p_value_agrees_with_all_sign_flips_counted(seed):
    after, before = np.random.default_rng(seed).normal([[0.5], [0]], 1, size=(2, 9))
    difference = after - before
    flips = np.array(list(itertools.product([-1, 1], repeat=9)))
    exact = np.mean(np.abs(flips @ difference) >= abs(difference.sum()) - 1e-9)
    found = statistics.paired_p_value(after, before)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000) + 1 / 4000)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=15))
def test_p_value_is_two_sided(rows):
    after, before = zip(*rows, strict=True)
    forward = statistics.paired_p_value(after, before)
    assert 0 < forward <= 1
    assert statistics.paired_p_value(before, after) == forward


def test_p_value_extremes():
    rng = np.random.default_rng(7)
    before = rng.normal(size=40)
    assert statistics.paired_p_value(before, before) == 1.0
    assert statistics.paired_p_value(before + 1, before) < 0.001
    assert statistics.paired_p_value(before + 1, before, np.zeros(40)) == 1.0  # one user proves nothing


def test_p_values_without_an_effect_are_spread_evenly():
    rng = np.random.default_rng(8)
    found = [
        statistics.paired_p_value(np.repeat(rng.normal(size=12), 4), np.zeros(48), np.repeat(np.arange(12), 4), seed=i)
        for i in range(200)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_a_missing_value_is_no_evidence():
    gap = statistics.paired_p_value([1, -1, math.nan], [0, 0, 0])
    assert gap == pytest.approx(statistics.paired_p_value([1, -1], [0, 0]), abs=0.05)


def test_holm_on_a_worked_example():
    assert statistics.corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.corrected([0.2]) == pytest.approx([0.2])
    assert statistics.corrected([0.6, 0.7]) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p, random):
    adjusted = statistics.corrected(p)
    assert np.all(adjusted >= np.array(p))
    assert np.all(adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
    assert min(p) * len(p) >= 1 or adjusted.min() == pytest.approx(min(p) * len(p))
    order = random.sample(range(len(p)), len(p))
    assert statistics.corrected([p[i] for i in order]) == pytest.approx(adjusted[order])


def test_estimates_print_and_scale():
    estimate = statistics.Estimate(0.5, 0.25, 0.625, 8)
    assert f"{estimate:.1%}" == "50.0% [25.0%, 62.5%]"
    assert f"{estimate}" == "0.50 [0.25, 0.62]"
    assert estimate * -2 == statistics.Estimate(-1.0, -1.25, -0.5, 8)


def test_what_never_happened_is_not_certain():
    users = np.repeat(np.arange(20), 3)
    never, always = statistics.proportion(np.zeros(60), users), statistics.proportion(np.ones(60), users)
    assert never.low == pytest.approx(0) and 0.1 < never.high < 0.2 and never.n == 60  # Wilson, 0 of 20 users
    assert always.low == pytest.approx(1 - never.high) and always.high == pytest.approx(1)


def test_a_proportion_in_between_is_the_mean():
    values, users = np.tile([0, 1, np.nan], 20), np.repeat(np.arange(20), 3)
    assert statistics.proportion(values, users) == statistics.mean(values, users)


def test_mcnemar_counts_what_changed_and_equals_the_binomial():
    after = np.array([1, 1, 1, 1, 1, 0, 1, 0, 1, 1], dtype=bool)
    before = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1, 1], dtype=bool)
    gained, lost, p = statistics.mcnemar(after, before)
    assert (gained, lost) == (5, 1)
    assert p == pytest.approx(2 * (1 + 6) / 2**6)  # one or none of six, on either side
    assert statistics.mcnemar(before, after) == (1, 5, pytest.approx(p))
    assert statistics.mcnemar(after, after) == (0, 0, 1.0)


def test_mcnemar_errs_at_most_one_time_in_twenty():
    rng, errors = np.random.default_rng(0), 0
    for _ in range(400):
        before, after = rng.random((2, 60)) < 0.3
        errors += statistics.mcnemar(after, before)[2] < 0.05
    assert 0 < errors / 400 < 0.07  # the exact test is on the safe side


def by_copying(values, clusters, function, seed=0):
    """The interval the long way: whole clusters copied into new samples, as often as the same generator says."""
    names, labels = np.unique(clusters, return_inverse=True)
    rng = np.random.default_rng(seed)
    found = []
    for counts in rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=4000):
        rows = np.repeat(np.arange(len(labels)), counts[labels])
        found.append(function(*(v[rows] for v in values)))
    return function(*values), *np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("clusters", [np.arange(24), np.arange(24) // 3], ids=["rows", "users"])
def test_ratio_and_correlation_resample_whole_users(clusters):
    rng = np.random.default_rng(4)
    x, noise = rng.normal(50, 1, 24), rng.normal(0, 1, 24)
    y = 0.6 * x + noise
    expected = by_copying((x, y), clusters, lambda a, b: np.corrcoef(a, b)[0, 1])
    found = statistics.correlation(x, y, clusters)
    assert triple(found) == pytest.approx(expected, abs=1e-6) and found.n == 24
    assert found.low < found.value < found.high
    expected = by_copying((x, y), clusters, lambda a, b: a.sum() / b.sum())
    assert triple(statistics.ratio(x, y, clusters)) == pytest.approx(expected)


@given(st.integers(0, 99), st.floats(-3, 3).filter(lambda a: abs(a) > 0.1), st.floats(-50, 50))
def test_a_straight_line_is_a_correlation_of_one(seed, slope, height):
    x = np.random.default_rng(seed).normal(size=9)
    found = statistics.correlation(x, slope * x + height, np.arange(9) // 2)
    assert triple(found) == pytest.approx([math.copysign(1, slope)] * 3, abs=1e-6)


def test_what_did_not_change_is_not_certain_not_to():
    same = statistics.change_in_share([0, 1, 0, 1] * 8, [0, 1, 0, 1] * 8)
    assert same.value == 0 and same.high == -same.low == pytest.approx(statistics.share(0, 32).high)
    after, before = [1, 1, 0, 1] * 8, [0, 1, 0, 1] * 8
    assert statistics.change_in_share(after, before) == statistics.paired_difference(after, before)


def test_relative_gain_is_the_ratio_of_sums_less_one():
    before = np.array([[1, 0, 1, 0, 1, 1, 0, 0.0], [1, 1, 1, 0, 0, 1, 0, 0]])
    after = np.maximum(before, np.roll(before, 1, axis=1))
    found = statistics.relative_gain(after, before)
    assert found.value == pytest.approx(after.sum() / before.sum() - 1) and found.n == 8
    assert 0 <= found.low < found.value < found.high
    assert triple(statistics.relative_gain(before, before)) == (0, 0, 0)
    assert triple(statistics.relative_gain(2 * before, before)) == pytest.approx((1, 1, 1))


def test_relative_gain_over_one_seed_is_the_ratio_of_shares():
    rng = np.random.default_rng(7)
    before, after = (rng.random((1, 400)) < p for p in (0.4, 0.5))
    found, known = statistics.relative_gain(after, before), statistics.ratio(after[0], before[0])
    assert found.value + 1 == pytest.approx(known.value)
    assert (found.low + 1, found.high + 1) == pytest.approx((known.low, known.high), abs=0.03)


def test_nothing_right_before_has_no_relative_gain():
    found = statistics.relative_gain(np.ones((2, 5)), np.zeros((2, 5)))
    assert np.isnan(triple(found)).all()


def test_components_find_what_was_planted():
    rng = np.random.default_rng(8)
    found = np.mean(
        [
            statistics.components(rng.normal(0, 3, (1, 40)) + rng.normal(0, 2, (6, 1)) + rng.normal(0, 1, (6, 40)) + 5)
            for _ in range(400)
        ],
        axis=0,
    )
    assert found == pytest.approx([9, 4, 1], rel=0.1)


def test_components_are_zero_where_nothing_varies_and_need_two_of_each():
    assert statistics.components(np.full((2, 4), 0.5)) == (0, 0, 0)
    assert statistics.components(np.tile([0.0, 1.0, 1.0], (3, 1)))[1:] == (0, 0)
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="two of each"):
            statistics.components(np.zeros(shape))


def test_a_change_that_goes_one_way_keeps_room_for_the_other():
    """The end that resampling cannot see is moved by what n problems could have missed, and only that end."""
    before = np.array([0.0, 1.0] * 16)
    missed = 1.959963984540054**2 / (32 + 1.959963984540054**2)  # Wilson's upper limit for none of 32, in closed form
    gained = np.stack([before, np.where(np.arange(32) < 4, 1.0, before)])
    both = gained.copy()
    both[0, 31] = 0.0
    plain, found = statistics.over_seeds(gained - before), statistics.change_over_seeds(gained, before)
    assert (found.value, found.high) == (plain.value, plain.high)
    assert found.low == pytest.approx(plain.low - missed)
    lost = statistics.change_over_seeds(before + np.zeros((2, 1)), gained)
    assert (lost.low, lost.high) == pytest.approx((-found.high, -found.low))
    assert statistics.change_over_seeds(both, before) == statistics.over_seeds(both - before)
    none = statistics.change_over_seeds(np.stack([before] * 3), before)
    assert (none.low, none.value, none.high) == pytest.approx((-missed, 0, missed))
