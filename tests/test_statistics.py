"""Laws of the intervals and tests for paired measurements."""

import itertools
import math
import time

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
    if min(values) < max(values) and len(values) >= 20:
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.low < found.value + 1e-9 and found.value - 1e-9 < found.high and found.low < found.high


@given(numbers, st.integers(1, 20))
def test_equal_values_are_not_certain_of_a_user_who_was_not_seen(value, n):
    """Every function that gives an interval: none of no width, whatever does not vary."""
    unseen = (abs(value) + max(1, abs(value))) * statistics.wilson(0, n)[1]
    around = pytest.approx((value, value - unseen, value + unseen))
    same = [value] * n
    assert triple(statistics.mean(same)) == around == triple(statistics.ratio(same, [1] * n))
    assert triple(statistics.mean([value] * (3 * n), np.repeat(np.arange(n), 3))) == around  # by users, not rows
    assert triple(statistics.bootstrap(lambda weights: np.full(len(weights), value), n)) == around
    assert triple(statistics.over_seeds([same, same])) == around
    certain = statistics.bootstrap(lambda weights: np.ones(len(weights)), n, within=(-1, 1))
    assert certain.low < certain.value == certain.high == 1


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


@pytest.mark.parametrize("users", [3, 6, 12, 19, 20, 40])
def test_a_mean_covers_the_truth_however_few_users_it_is_of(users):
    rng, covered = np.random.default_rng(3), 0
    of = np.repeat(np.arange(users), 4)
    for trial in range(300):
        found = statistics.mean(rng.normal(size=users)[of] + rng.normal(size=len(of)), of, seed=trial)
        covered += found.low <= 0 <= found.high
    assert 273 <= covered <= 297  # 285 expected, standard deviation 4; resampled, six users would cover 250


def test_a_share_of_few_lies_between_none_and_all():
    found = statistics.proportion([1, 0, 0, 0])
    assert found.low == 0 < found.value == 0.25 < found.high < 1.1 and statistics.proportion([1, 1, 0]).high == 1


@given(samples, st.sampled_from([-4.0, -0.5, 0.25, 3.0]), numbers)
def test_mean_follows_a_change_of_unit(values, factor, shift):
    before = statistics.mean(values)
    after = statistics.mean([factor * v + shift for v in values])
    scaled = before * factor
    if min(values) < max(values):  # else the width is that of a share, whatever the unit
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
    differences = [a - b for a, b in rows]
    known = statistics.mean(differences) if np.ptp(differences) else statistics.over_seeds(differences)
    assert triple(forward) == interval(known)
    assert triple(statistics.paired_difference(before, after)) == interval(forward * -1)


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(5)
    common, gain = rng.normal(0, 100, size=50), rng.normal(1, 0.1, size=50)
    found = statistics.paired_difference(common + gain, common)
    assert 0.9 < found.low < found.high < 1.1


@given(st.lists(st.lists(numbers, min_size=6, max_size=6), min_size=1, max_size=5), st.sampled_from([-4.0, 0.5]))
def test_over_seeds_averages_everything(rows, factor):
    found = statistics.over_seeds(rows)
    assert found.value == pytest.approx(np.mean(rows))
    assert found.n == 6
    assert found.low < found.value < found.high
    unit = abs(factor)
    assert triple(statistics.over_seeds(np.array(rows) * factor, unit=unit)) == pytest.approx(triple(found * factor))


def test_over_one_training_is_students_interval_over_users():
    row = np.random.default_rng(6).normal(1, 2, size=30)
    found, half = statistics.over_seeds([row]), 2.045229642 * row.std(ddof=1) / math.sqrt(30)  # 29 degrees of freedom
    assert triple(found) == pytest.approx((row.mean(), row.mean() - half, row.mean() + half))
    assert found.df == 29 and found.se == pytest.approx(row.std(ddof=1) / math.sqrt(30))


def test_over_trainings_that_alone_differ_is_students_interval_over_trainings():
    levels = np.array([[-1.0], [0.0], [4.0]])
    found = statistics.over_seeds(levels + np.zeros(20))
    assert found.df == pytest.approx(2)
    assert found.high - found.value == pytest.approx(4.302652730 * levels.std(ddof=1) / math.sqrt(3))


@given(st.lists(numbers, min_size=2, max_size=12), st.integers(1, 4))
def test_seeds_that_agree_add_nothing(row, seeds):
    users = [i // 2 for i in range(len(row))]
    assert triple(statistics.over_seeds([row] * seeds, users)) == interval(statistics.over_seeds(row, users))


def test_copies_within_a_user_add_nothing_over_seeds():
    table, users = np.random.default_rng(3).normal(size=(3, 20)), np.arange(20)
    once, many = statistics.over_seeds(table), statistics.over_seeds(np.repeat(table, 4, axis=1), np.repeat(users, 4))
    assert triple(many) == interval(once) and many.df == pytest.approx(once.df)


def test_rows_with_a_gap_in_any_training_are_left_out():
    table, users = np.random.default_rng(4).normal(size=(3, 20)), np.arange(20) // 2
    gap = np.insert(table, 5, [math.nan, 9.0, 9.0], axis=1)
    assert statistics.over_seeds(gap, np.insert(users, 5, 99)) == statistics.over_seeds(table, users)
    with pytest.raises(ValueError, match="No value"):
        statistics.over_seeds(np.full((2, 3), math.nan))


@pytest.mark.parametrize("value, reach", [(0.0, 1), (0.5, 1.5), (-1.0, 2), (3.0, 6)])
def test_where_nothing_varies_the_interval_still_has_a_width(value, reach):
    """One user not seen may lie on the other side of 0, as far as the mean or as one unit."""
    none_of_twelve = 1.959963984540054**2 / (12 + 1.959963984540054**2)
    for found in (
        statistics.over_seeds(np.full((3, 12), value)),
        statistics.over_seeds(np.full((3, 24), value), np.arange(24) // 2),
        statistics.over_seeds(np.tile([value + 1, value - 1], (1, 12)), np.arange(24) // 2),  # but no user from another
        statistics.paired_difference(np.full(12, value), np.zeros(12)),
    ):
        assert triple(found) == pytest.approx((value, value - reach * none_of_twelve, value + reach * none_of_twelve))
    wide = statistics.over_seeds(np.zeros((3, 12)), unit=100)
    assert wide.high == -wide.low == pytest.approx(100 * none_of_twelve)


@pytest.mark.parametrize("trainings", [1, 3])
def test_one_user_proves_nothing(trainings):
    found = statistics.over_seeds(np.full((trainings, 6), 5.0) + np.arange(trainings)[:, None], np.zeros(6))
    assert found.low < 0 < found.high


def test_trainings_that_undo_each_other_are_not_certain():
    found = statistics.over_seeds([[1.0, -1.0] * 10, [-1.0, 1.0] * 10])  # no user and no training differs, but cells do
    assert found.value == 0 and found.high == -found.low > 0.3


def drawn(rng, kept, trainings, users, sd, sd_users):
    """(differences [trainings, n], user of each row), mean 0.1: users have 1 to 6 rows; effects of users have the SD
    `sd_users`, those of trainings `sd`. `kept`: each is 1, 0 or -1; otherwise normal."""
    who = np.repeat(np.arange(users), rng.integers(1, 7, users))
    moved = np.clip(rng.normal(0, sd, (trainings, 1)), -0.45, 0.45)
    if not kept:
        noise = rng.normal(0, 0.4, (trainings, len(who)))
        return 0.1 + moved + rng.normal(0, sd_users, users)[who] + noise, who
    chance = 0.1 + moved + sd_users * rng.choice([-1, 1], users)[who]
    changed, u = np.maximum(np.abs(chance), 0.35), rng.random((trainings, len(who)))
    return np.where(u < (changed + chance) / 2, 1.0, np.where(u < changed, -1.0, 0.0)), who


def covered(repetitions, *design, seed=0):
    """How often the interval of `over_seeds` holds the true mean."""
    rng = np.random.default_rng(seed)
    found = [statistics.over_seeds(*drawn(rng, *design)) for _ in range(repetitions)]
    return np.mean([e.low <= 0.1 <= e.high for e in found])


@pytest.mark.parametrize("kept", [True, False], ids=["kept or not", "normal"])
@pytest.mark.parametrize("trainings", [3, 5, 10])
def test_over_seeds_covers_the_truth_whatever_trainings_and_users_vary_by(trainings, kept):
    """Training SD 0 to 20 points, user SD 20 and 45, 48 and 200 users: 93 to 98%, and two errors of 600 runs."""
    for users, sd, sd_users in itertools.product([48, 200], [0, 0.05, 0.1, 0.2], [0.2, 0.45]):
        share = covered(600, kept, trainings, users, sd, sd_users, seed=trainings)
        assert 0.93 - 2 * 0.0104 < share < 0.98 + 2 * 0.0057, (users, sd, sd_users)


def test_over_seeds_covers_the_truth_with_one_training_over_users_and_nearly_with_two():
    assert 0.93 < covered(600, True, 1, 48, 0, 0.2) < 0.98
    assert all(0.86 < covered(600, True, 2, 48, sd, 0.2) < 0.99 for sd in (0, 0.1, 0.2))


@pytest.mark.parametrize("sd", [0, 0.1])
def test_what_was_designed_of_users_is_no_chance_and_the_rest_is_covered(sd):
    """Each user has two of twelve kinds, whose gains differ much; other users have the same kinds."""
    rng, kinds = np.random.default_rng(3), np.linspace(-0.2, 0.8, 12)
    first = np.arange(60) % 12
    strata = np.eye(12)[first] + np.eye(12)[(first + 1 + np.arange(60) // 12) % 12]
    truth, hits, widths = (strata @ kinds / 2).mean(), [], []
    for _ in range(600):
        users = strata @ kinds / 2 + rng.normal(0, 0.15, 60)
        table = users + rng.normal(0, sd, (5, 1)) + rng.normal(0, 0.3, (5, 60))
        found, plain = statistics.over_seeds(table, strata=strata), statistics.over_seeds(table)
        hits.append(found.low <= truth <= found.high)
        widths.append((found.high - found.low) / (plain.high - plain.low))
        assert found.value == plain.value
    assert 0.93 - 2 * 0.0104 < np.mean(hits) < 0.98 + 2 * 0.0057
    assert np.mean(widths) < (0.8 if sd == 0 else 1)


def test_what_each_training_does_to_each_kind_was_designed_too():
    """Users of a kind do not differ, trainings of a kind do: only the trainings' own means are chance."""
    rng, kind = np.random.default_rng(5), np.arange(24) % 12
    by_kind = rng.normal(0, 1, (8, 12))
    found = statistics.over_seeds(by_kind[:, kind], strata=np.eye(12)[kind])
    assert found.se == pytest.approx(by_kind.mean(axis=1).std(ddof=1) / math.sqrt(8))
    squares, truth = [], 1 / (8 * 12) + 1 / (8 * 24)  # of kinds' and of single users' share in the mean
    for _ in range(400):
        table = rng.normal(0, 1, (8, 12))[:, kind] + rng.normal(0, 1, (8, 24))
        squares.append(statistics.over_seeds(table, strata=np.eye(12)[kind]).se ** 2)
    assert 0.9 < np.mean(squares) / truth < 1.15


def test_strata_of_no_account_change_nothing_and_too_many_are_refused():
    table, users = np.random.default_rng(0).normal(size=(3, 24)), np.arange(24) // 2
    assert triple(statistics.over_seeds(table, users, strata=np.ones((24, 1)))) == interval(
        statistics.over_seeds(table, users)
    )
    with pytest.raises(ValueError, match="fewer strata"):
        statistics.over_seeds(table, users, strata=np.eye(12)[users])


@pytest.mark.parametrize("trainings", [3, 8])
def test_the_next_training_lies_where_it_is_predicted(trainings):
    rng = np.random.default_rng(trainings)
    hits = []
    for _ in range(2000):
        table = rng.normal(0, 1, 40) + rng.normal(0, 0.2, (trainings + 1, 1)) + rng.normal(0, 1, (trainings + 1, 40))
        found = statistics.next_training(table[:-1])
        hits.append(found.low <= table[-1].mean() <= found.high)
    assert abs(np.mean(hits) - 0.95) < 3 * 0.0049
    with pytest.raises(ValueError, match="two at least"):
        statistics.next_training(np.zeros((1, 4)))


def test_the_next_training_is_of_users_who_have_a_value_in_each_and_never_certain():
    table = np.full((4, 10), 0.25)
    table[:, 0] = 10
    table[2, 0] = np.nan
    found = statistics.next_training(table)
    assert found == statistics.next_training(table[:, 1:]) and found.value == 0.25
    assert found.low < 0.25 < found.high  # though the four agree
    assert statistics.next_training(table * 100, unit=100).high == pytest.approx(found.high * 100)
    varied = statistics.next_training(np.random.default_rng(0).normal(size=(4, 10)))
    assert varied.high - varied.value == pytest.approx(3.182446 * varied.se) and varied.df == 3


def test_over_seeds_is_quick():
    table, users = np.random.default_rng(0).normal(size=(5, 208)), np.arange(208) % 48
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        statistics.over_seeds(table, users)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.02


def test_equivalent_says_within_outside_or_undecided_by_the_interval_of_90_percent():
    row = np.random.default_rng(6).normal(0, 1, size=30) + 0.2
    row += 0.2 - row.mean()
    half = 1.699127027 * row.std(ddof=1) / math.sqrt(30)  # 95% of Student's t with 29 degrees of freedom lie below
    for margin, expected in ((0.2 + half + 0.001, True), (0.2 + half - 0.001, None), (5, True), (0.01, None)):
        outcome, found = statistics.equivalent(row, margin)
        assert outcome is expected and triple(found) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert statistics.equivalent(row + 2, 1)[0] is False and statistics.equivalent(row - 2, 1)[0] is False
    estimate = statistics.over_seeds(row) * 100
    assert statistics.equivalent(estimate, 100 * (0.2 + half + 0.001))[0] is True
    assert triple(statistics.equivalent(estimate, 1)[1]) == pytest.approx((20, 20 - 100 * half, 20 + 100 * half))
    normal = statistics.equivalent(statistics.Estimate(0.0, -1.96, 1.96, 9), 1.65)[
        1
    ]  # any other interval as a normal's
    assert (normal.low, normal.high) == pytest.approx((-1.645, 1.645), abs=1e-3)
    uneven = statistics.Estimate(1.0, 0.0, 5.0, 60)  # as of resampled shares: each end has its own way to go
    outcome, ninety = statistics.equivalent(uneven, 4.0)
    assert outcome is None and (ninety.low, ninety.high) == pytest.approx((1 - 0.8392, 1 + 4 * 0.8392), abs=1e-3)


def test_nothing_that_varies_is_equivalent_only_beyond_what_an_unseen_user_may_do():
    assert statistics.equivalent(np.zeros((3, 20)), 0.01)[0] is None
    assert statistics.equivalent(np.zeros((3, 20)), 0.2)[0] is True


@pytest.mark.parametrize("ends, margin", [((-1, 1), 0), ((0, 0), 5)])
def test_no_margin_and_no_error_are_refused(ends, margin):
    with pytest.raises(ValueError, match="above 0"):
        statistics.equivalent(statistics.Estimate(0, *ends, 9), margin)


def test_equivalent_errs_at_most_one_time_in_twenty():
    """The truth, 0.1, lies on the margin: neither "no larger" nor "larger" is right."""
    rng = np.random.default_rng(9)
    tables = [drawn(rng, True, 5, 100, 0.05, 0.2) for _ in range(1000)]
    outcomes = [statistics.equivalent(table, 0.1, users)[0] for table, users in tables]
    for wrong in (True, False):
        assert 0.01 < np.mean([outcome is wrong for outcome in outcomes]) < 0.05 + 2 * 0.007


def test_detectable_is_found_as_often_as_it_says():
    rng, found, power = np.random.default_rng(10), [], []
    variances = 0.2**2 + 0.2**2, 0.1**2, 0.3**2
    smallest = statistics.detectable(variances, 6, 60)
    for _ in range(1500):
        people, seeds = rng.normal(0, math.sqrt(variances[0]), 60), rng.normal(0, 0.1, (6, 1))
        table = smallest + people + seeds + rng.normal(0, 0.3, (6, 60))
        estimate = statistics.over_seeds(table)
        power.append(estimate.low > 0)
        found.append(statistics.detectable(estimate))
    assert np.mean(power) == pytest.approx(0.8, abs=0.035)
    assert np.median(found) == pytest.approx(smallest, rel=0.1)


def test_detectable_falls_with_more_of_either_and_follows_the_unit():
    at = [statistics.detectable((0.04, 0.01, 0.09), *design) for design in ((3, 50), (3, 200), (6, 200), (12, 200))]
    assert at == sorted(at, reverse=True) and at[0] > 1.5 * at[-1]
    estimate = statistics.Estimate(0.1, -0.2, 0.4, 50)
    assert statistics.detectable(estimate) == pytest.approx(0.6 * 2.8016 / 3.9199, abs=1e-4)  # of a normal's interval
    assert statistics.detectable(estimate * -100) == pytest.approx(100 * statistics.detectable(estimate))
    assert statistics.detectable(estimate, power=0.9) > statistics.detectable(estimate)


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


@pytest.mark.parametrize("trainings", [1, 2, 5])
def test_p_value_over_trainings_agrees_with_their_interval(trainings):
    rng = np.random.default_rng(trainings)
    table, users = rng.normal(size=(trainings, 30)), np.arange(30) // 2
    found = statistics.over_seeds(table, users)
    reach = found.high - found.value
    for shift, sides in ((1.001, True), (0.999, False)):
        p = statistics.paired_p_value(table - found.value + shift * reach, np.zeros(30), users)
        assert (p < 0.05) is sides and p == pytest.approx(0.05, abs=0.001)
    assert statistics.paired_p_value(table, table) == 1


def test_a_flag_takes_the_trainings_as_given():
    rng = np.random.default_rng(3)
    after, users = rng.normal(0.3, 1, (3, 60)) + [[-0.5], [0], [0.5]], np.arange(60) // 2
    given = statistics.paired_p_value(after, np.zeros(60), users, trainings_given=True)
    assert given == statistics.paired_p_value(after.mean(axis=0), np.zeros(60), users)
    assert given < statistics.paired_p_value(after, np.zeros(60), users)
    assert type(given) is float


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
    assert statistics.paired_p_value([1, -1, math.nan], [0, 0, 0]) == statistics.paired_p_value([1, -1], [0, 0])


def test_estimates_print_and_scale():
    estimate = statistics.Estimate(0.5, 0.25, 0.625, 8)
    assert f"{estimate:.1%}" == "50.0% [25.0%, 62.5%]"
    assert f"{estimate}" == "0.50 [0.25, 0.62]"
    assert estimate * -2 == statistics.Estimate(-1.0, -1.25, -0.5, 8)
    scaled = statistics.Estimate(0.5, 0.25, 0.625, 8, 0.1, 7) * -2
    assert (scaled.se, scaled.df) == (0.2, 7)


def test_what_never_happened_is_not_certain():
    users = np.repeat(np.arange(20), 3)
    never, always = statistics.proportion(np.zeros(60), users), statistics.proportion(np.ones(60), users)
    assert never.low == pytest.approx(0) and 0.1 < never.high < 0.2 and never.n == 60  # Wilson, 0 of 20 users
    assert always.low == pytest.approx(1 - never.high)
    for n in range(1, 400):  # no rounding makes nothing more than nothing
        assert statistics.wilson(0, n)[0] == 0 and statistics.wilson(1, n)[1] == 1


@pytest.mark.parametrize("share", [np.nan, 1.2, -0.1])
def test_what_is_no_share_has_no_interval(share):
    with pytest.raises(ValueError, match="no interval"):
        statistics.wilson(share, 5)


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
    assert statistics.mcnemar([np.nan, 1, 0.5], [0, np.nan, 0]) == (1, 0, 1.0)  # a missing answer is none


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
    sure, other = sorted((found.low, found.high), key=lambda end: abs(end - found.value))
    assert (found.value, sure) == pytest.approx([math.copysign(1, slope)] * 2, abs=1e-6)
    assert abs(found.value - other) == pytest.approx(2 * statistics.wilson(0, 5)[1])  # of five users


def test_what_did_not_change_is_not_certain_not_to():
    same = statistics.paired_difference([0, 1, 0, 1] * 8, [0, 1, 0, 1] * 8)
    assert same.value == 0 and same.high == -same.low == pytest.approx(statistics.share(0, 32).high)
    assert statistics.paired_difference([1] * 32, [0] * 32).low == pytest.approx(1 - 2 * statistics.share(0, 32).high)


def test_relative_gain_is_the_ratio_of_sums_less_one():
    before = np.array([[1, 0, 1, 0, 1, 1, 0, 0.0], [1, 1, 1, 0, 0, 1, 0, 0]])
    after = np.maximum(before, np.roll(before, 1, axis=1))
    found = statistics.relative_gain(after, before)
    assert found.value == pytest.approx(after.sum() / before.sum() - 1) and found.n == 8
    assert 0 <= found.low < found.value < found.high
    for times in (1, 2):
        found = statistics.relative_gain(times * before, before)
        assert found.value == times - 1 and found.high - times + 1 == pytest.approx(
            2 * times * statistics.wilson(0, 8)[1]
        )


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
    with pytest.raises(ValueError, match="each with a value"):
        statistics.components([[1, 2, np.nan], [3, 1, 2]])


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
    assert found.se == pytest.approx((found.high - found.low) / 3.92, rel=1e-4)  # so that `equivalent` leaves room too
    lost = statistics.change_over_seeds(before + np.zeros((2, 1)), gained)
    assert (lost.low, lost.high) == pytest.approx((-found.high, -found.low))
    assert statistics.change_over_seeds(both, before) == statistics.over_seeds(both - before)
    none = statistics.change_over_seeds(np.stack([before] * 3), before)
    assert (none.low, none.value, none.high) == pytest.approx((-missed, 0, missed))
    some = np.where(np.arange(32) < 12, gained, np.nan)  # 20 rows say nothing, of one a training does
    some[0, 12] = before[12] - 1
    assert statistics.change_over_seeds(some, before) == statistics.change_over_seeds(gained[:, :12], before[:12])
