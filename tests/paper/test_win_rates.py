"""Win rates against hand-worked tables, closed forms, simulations and an independent fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from mipo_nb import statistics
from mipo_nb.base.errors import UserError
from mipo_nb.paper import win_rates
from mipo_nb.paper.win_rates import TIES_WIN

NAN = np.nan
ratings = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=20)


def triple(estimate):
    return estimate.value, estimate.low, estimate.high


# --- outcomes and win rate ---


def test_ties_are_wins_as_published_and_half_a_win_otherwise():
    policy, reference = [4, 3, 2.5, 1, NAN, 5], [3, 3, 2.5, 2, 3, NAN]
    np.testing.assert_array_equal(win_rates.outcomes(policy, reference, ties=TIES_WIN), [1, 1, 1, 0, NAN, NAN])
    np.testing.assert_array_equal(win_rates.outcomes(policy, reference), [1, 0.5, 0.5, 0, NAN, NAN])
    with pytest.raises(ValueError, match="cannot be compared"):
        win_rates.outcomes([1, 2], [1])


@given(ratings)
def test_the_published_rate_is_the_share_at_least_as_good(pairs):
    policy, reference = np.array(pairs).T
    found = win_rates.win_rate(win_rates.outcomes(policy, reference, ties=TIES_WIN))
    assert found.value == pytest.approx(100 * np.mean(policy >= reference))
    assert found.n == len(pairs)


@given(ratings)
def test_only_the_strict_rates_of_both_sides_add_up(pairs):
    policy, reference = np.array(pairs).T

    def both(ties):
        sides = (policy, reference), (reference, policy)
        return sum(win_rates.win_rate(win_rates.outcomes(*side, ties=ties)).value for side in sides)

    assert both(0.5) == pytest.approx(100)
    assert both(TIES_WIN) == pytest.approx(100 + 100 * np.mean(policy == reference))


def test_a_rate_has_the_interval_of_its_users():
    won = np.repeat([1, 0, 1, 0, 1, 0, 1, 0], 25)  # 8 users who always say the same
    users = np.repeat(np.arange(8), 25)
    apart, together = win_rates.win_rate(won), win_rates.win_rate(won, users)
    assert apart.value == together.value == 50
    assert together.high - together.low > 3 * (apart.high - apart.low)
    assert triple(together) == pytest.approx(triple(statistics.proportion(won, users) * 100))
    assert win_rates.win_rate([1, 1, 1]).low < 60  # three wins of three do not prove much


def test_unreadable_verdicts_are_left_out_or_explained():
    assert win_rates.win_rate([1, NAN, 0, NAN]).value == 50 and win_rates.win_rate([1, NAN, 0, NAN]).n == 2
    for rate in (win_rates.win_rate, lambda won: win_rates.length_controlled(won, [1, 2], [1, 2])):
        with pytest.raises(UserError, match="No reply of the judge could be read"):
            rate([NAN, NAN])
    with pytest.raises(UserError, match="no verdict in common"):
        win_rates.agreement([1, NAN], [NAN, 2])


# --- what a model that is no better gets ---

SHARES = {"even": [0.2] * 5, "piled": [0.02, 0.08, 0.15, 0.6, 0.15], "two": [0, 0, 0.5, 0.5, 0]}


@pytest.mark.parametrize("ties", [TIES_WIN, 0.5, 0.0])
@pytest.mark.parametrize("preferences", [1, 2, 4])
@pytest.mark.parametrize("shares", SHARES)
def test_chance_is_what_two_equal_models_reach(shares, preferences, ties):
    rng, n = np.random.default_rng(0), 200_000
    one, two = (rng.choice(5, p=SHARES[shares], size=(n, preferences)).mean(1) for _ in range(2))
    simulated = 100 * win_rates.outcomes(one, two, ties=ties).mean()
    assert win_rates.chance(SHARES[shares], preferences=preferences, ties=ties) == pytest.approx(simulated, abs=0.5)


def test_chance_by_hand():
    assert win_rates.chance([0.2] * 5) == pytest.approx(100 * (1 + 1 / 5) / 2)
    assert win_rates.chance([0.5, 0.5], preferences=2) == pytest.approx(100 * (1 + 3 / 8) / 2)  # sums 1/4, 1/2, 1/4
    assert win_rates.chance([0, 0, 0, 1, 0], preferences=3) == pytest.approx(100)
    assert win_rates.chance([0.7, 0.075, 0.075, 0.075, 0.075]) == pytest.approx(75.625)
    for shares in ([0.5, 0.6], [1.5, -0.5], [[1.0]]):
        with pytest.raises(ValueError, match="sum to 1"):
            win_rates.chance(shares)


# --- length control ---


def judged(a, b, n=2000, seed=0):
    """Outcomes of a judge whose log-odds are a + b tanh(d / sd d), and the two lengths; the first is mostly longer."""
    rng = np.random.default_rng(seed)
    lengths, others = rng.normal(130, 30, n), rng.normal(100, 30, n)
    d = lengths - others
    won = rng.random(n) < 1 / (1 + np.exp(-(a + b * np.tanh(d / d.std()))))
    return won.astype(float), lengths, others


def test_a_judge_that_only_likes_length_leaves_no_win():
    won, lengths, others = judged(0, 3)
    assert win_rates.win_rate(won).low > 65
    found = win_rates.length_controlled(won, lengths, others)
    assert found.low < 50 < found.high and found.high - found.low < 12


def test_a_judge_that_does_not_see_length_changes_nothing():
    won, lengths, others = judged(0.8, 0)
    found, raw = win_rates.length_controlled(won, lengths, others), win_rates.win_rate(won)
    assert found.value == pytest.approx(raw.value, abs=3)
    assert found.low < 100 / (1 + np.exp(-0.8)) < found.high


def test_quality_and_length_are_told_apart_whatever_the_unit():
    won, lengths, others = judged(-0.7, 2)
    found = win_rates.length_controlled(won, lengths, others)
    assert found.value == pytest.approx(100 / (1 + np.exp(0.7)), abs=4) and win_rates.win_rate(won).value > 50
    assert triple(win_rates.length_controlled(won, lengths * 5, others * 5)) == pytest.approx(triple(found), abs=1e-6)


@pytest.mark.parametrize("case", ["usual", "halves", "separated", "always", "equal lengths"])
def test_the_fit_is_the_maximum_that_a_general_optimizer_finds(case):
    rng = np.random.default_rng(3)
    x = np.tanh(rng.normal(size=60))
    y = rng.choice([0, 0.5, 1], size=60) if case == "halves" else (rng.random(60) < 0.6).astype(float)
    y = (x > 0).astype(float) if case == "separated" else np.ones(60) if case == "always" else y
    x = np.zeros(60) if case == "equal lengths" else x
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=4).astype(float)

    def loss(line, weight):
        log_odds = line[0] + line[1] * x
        likelihood = y * log_odds - np.logaddexp(0, log_odds)
        return -weight @ likelihood + win_rates._RIDGE / 2 * (line @ line)

    expected = [optimize.minimize(loss, [0, 0], args=(w,), tol=1e-12).x for w in weights]
    np.testing.assert_allclose(np.transpose(win_rates._logistic(x, y, weights)), expected, atol=1e-4)


def test_the_rate_is_read_off_the_line_where_lengths_are_equal():
    won, lengths, others = judged(0.3, 2, n=200)
    lengths[:3] += 5000  # a few endless responses must not decide for all
    d = lengths - others
    x = np.tanh(d / d.std())

    def loss(line):
        log_odds = line[0] + line[1] * x
        return np.sum(np.logaddexp(0, log_odds) - won * log_odds) + win_rates._RIDGE / 2 * (line @ line)

    a = optimize.minimize(loss, [0, 0], tol=1e-12).x[0]
    assert win_rates.length_controlled(won, lengths, others).value == pytest.approx(100 / (1 + np.exp(-a)), abs=1e-3)


def test_length_control_resamples_users_and_leaves_nan_out():
    won, lengths, others = judged(0.5, 1, n=40)
    users = np.repeat(np.arange(40), 10)
    won, lengths, others = (np.repeat(array, 10) for array in (won, lengths, others))
    apart = win_rates.length_controlled(won, lengths, others)
    together = win_rates.length_controlled(won, lengths, others, users)
    assert together.value == apart.value and together.high - together.low > 2 * (apart.high - apart.low)
    more = win_rates.length_controlled([*won, NAN], [*lengths, 9e9], [*others, 0], [*users, 99])
    assert triple(more) == pytest.approx(triple(together)) and more.n == 400
    with pytest.raises(ValueError, match="between 0 and 1"):
        win_rates.length_controlled([2], [1], [1])


def test_its_interval_covers_the_truth_as_often_as_it_says():
    covered = []
    for seed in range(60):
        won, lengths, others = judged(0.4, 1.5, n=150, seed=seed)
        found = win_rates.length_controlled(won, lengths, others)
        covered.append(found.low <= 100 / (1 + np.exp(-0.4)) <= found.high)
    assert np.mean(covered) >= 0.85


# --- agreement ---


def rows_of(table):
    """Two judges' verdicts, row by row, from a table of counts: the first judge's verdict is the table's row."""
    cells = [(i, j) for i, line in enumerate(table) for j, count in enumerate(line) for _ in range(count)]
    return np.array(cells).T


def test_kappa_of_a_table_worked_by_hand():
    # 50 rows: they agree on 20 + 15 = 0.7. First says yes 25, second 30 of 50: by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5.
    one, two = rows_of([[20, 5], [10, 15]])
    assert win_rates.agreement(one, two).value == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert win_rates.agreement(two, one).value == pytest.approx(0.4)


def test_quadratic_kappa_of_a_table_worked_by_hand():
    # Squared gaps observed: (4 x 1 + 2 x 4) / 10 = 1.2. Shares 0.4 0.2 0.4 and 0.4 0.4 0.2, expected
    # 0.4 (0.4 x 1 + 0.2 x 4) + 0.2 (0.4 + 0.2) + 0.4 (0.4 x 4 + 0.4 x 1) = 0.48 + 0.12 + 0.8 = 1.4.
    one, two = rows_of([[2, 1, 1], [1, 1, 0], [1, 2, 1]])
    assert win_rates.agreement(one, two, quadratic=True).value == pytest.approx(1 - 1.2 / 1.4)
    assert win_rates.agreement(one + 3, two + 3, quadratic=True).value == pytest.approx(1 - 1.2 / 1.4)


def test_kappa_is_one_for_the_same_zero_for_chance_and_unknown_without_variety():
    rng = np.random.default_rng(0)
    one, two = rng.choice(5, p=SHARES["piled"], size=(2, 3000))
    same = win_rates.agreement(one, one)
    assert same.value == same.high == 1 and 0.99 < same.low < 1
    for quadratic in (False, True):
        found = win_rates.agreement(one, two, quadratic=quadratic)
        assert found.low < 0 < found.high and found.value == pytest.approx(0, abs=0.06)
    assert np.mean(one == two) > 0.4  # which is why the bare share of agreement misleads
    assert np.isnan(triple(win_rates.agreement([4, 4], [4, 4]))).all()


def test_kappa_has_an_interval_of_users_and_leaves_nan_out():
    one, two = rows_of([[20, 5], [10, 15]])
    apart = win_rates.agreement(np.repeat(one, 9), np.repeat(two, 9))
    together = win_rates.agreement(np.repeat(one, 9), np.repeat(two, 9), np.repeat(np.arange(50), 9))
    assert together.low < 0.4 < together.high and together.high - together.low > 2 * (apart.high - apart.low)
    more = win_rates.agreement([*one, NAN, 1], [*two, 1, NAN])
    assert more.n == 50 and more.value == pytest.approx(0.4)


def test_bootstrap_of_the_mean_is_the_mean():
    values, users = np.random.default_rng(2).normal(size=150), np.repeat(np.arange(30), 5)
    found = statistics.bootstrap(lambda w: w @ values / w.sum(1), 150, users, resamples=4000)
    assert triple(found) == pytest.approx(triple(statistics.mean(values, users)), abs=0.02) and found.n == 150


def test_a_model_wins_against_itself_what_its_ties_give_it():
    rng = np.random.default_rng(0)
    draws = rng.integers(3, 6, (400, 4)).astype(float)  # three ratings, equally likely: a third of all pairs tie
    assert win_rates.an_equal(draws).value == pytest.approx(win_rates.chance([0, 0, 1 / 3, 1 / 3, 1 / 3]), abs=1.5)
    for scores in (draws, draws[:, 0]):
        split = win_rates.an_equal(scores, ties=win_rates.TIES_SPLIT)
        assert split.value == pytest.approx(50) and win_rates.an_equal(scores).value > 60
    assert win_rates.an_equal(np.full(9, 4.0)).value == 100
    assert win_rates.an_equal([[1, 2], [3, 3]]).value == 75  # the first pair splits, the second ties both ways
    draws[0] = np.nan
    assert win_rates.an_equal(draws).n == 399
    for few in ([4.0], [[1.0], [2.0]], 3.0):
        with pytest.raises(ValueError):
            win_rates.an_equal(few)
    with pytest.raises(UserError):
        win_rates.an_equal([np.nan, np.nan])
