"""The losses against closed forms, numbers worked out by hand, and what must not change it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mipo_nb.information import contrastive_bound
from mipo_nb.objectives import (
    dpo_loss,
    info_nce_loss,
    ipo_loss,
    log_ratio_margin,
    mio_loss,
    sami_loss,
    sft_loss,
)

nats = st.floats(-200, 0)
quadruples = st.tuples(nats, nats, nats, nats)
betas = st.floats(0.01, 5)


def columns(*numbers, **options):
    return [torch.tensor([n], dtype=torch.float64, **options) for n in numbers]


def loss_of(numbers, beta):
    return dpo_loss(*columns(*numbers), beta).item()


@given(nats, nats, betas)
def test_an_untrained_policy_loses_ln_2(chosen, rejected, beta):
    assert loss_of((chosen, rejected, chosen, rejected), beta) == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize(
    "numbers, beta, margin, loss",
    [
        # chosen rose by 2 nats, rejected fell by 5: ln(1 + e^-0.7)
        ((-48, -65, -50, -60), 0.1, 7, 0.4031860489),
        # both fell, the chosen one more: ln(1 + e^(0.5 * 3))
        ((-55, -62, -50, -60), 0.5, -3, 1.7014132779),
        # beta times margin is ln 3, so sigmoid is 3/4
        ((-10 + math.log(3), -20, -10, -20), 1.0, math.log(3), math.log(4 / 3)),
    ],
)
def test_numbers_by_hand(numbers, beta, margin, loss):
    assert log_ratio_margin(*columns(*numbers)).item() == pytest.approx(margin)
    assert loss_of(numbers, beta) == pytest.approx(loss, abs=1e-9)


@given(quadruples, betas)
def test_the_closed_form_in_plain_floats(numbers, beta):
    chosen, rejected, reference_chosen, reference_rejected = numbers
    z = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    expected = math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))
    assert loss_of(numbers, beta) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(quadruples, betas)
def test_the_gradient_by_hand(numbers, beta):
    tensors = columns(*numbers, requires_grad=True)
    dpo_loss(*tensors, beta).sum().backward()
    z = beta * log_ratio_margin(*columns(*numbers)).item()
    pull = beta / (1 + math.exp(min(z, 700)))  # beta * sigmoid(-z)
    for tensor, sign in zip(tensors, (-1, 1, 1, -1), strict=True):
        assert tensor.grad.item() == pytest.approx(sign * pull, rel=1e-6, abs=1e-12)


@given(quadruples, betas, st.floats(-50, 50), st.floats(-50, 50))
def test_a_constant_in_both_policies_changes_nothing(numbers, beta, first, second):
    chosen, rejected, reference_chosen, reference_rejected = numbers
    # of a side, in policy and reference
    moved = (chosen + first, rejected + second, reference_chosen + first, reference_rejected + second)
    assert loss_of(moved, beta) == pytest.approx(loss_of(numbers, beta), abs=1e-9)
    # of a policy, on both sides
    moved = (chosen + first, rejected + first, reference_chosen + second, reference_rejected + second)
    assert loss_of(moved, beta) == pytest.approx(loss_of(numbers, beta), abs=1e-9)


def test_a_constant_in_one_log_probability_only_does_change_it():
    numbers = [-48.0, -65.0, -50.0, -60.0]
    for place, sign in enumerate((-1, 1, 1, -1)):
        moved = [n + (i == place) for i, n in enumerate(numbers)]
        assert sign * (loss_of(moved, 0.1) - loss_of(numbers, 0.1)) > 0.01


@given(st.floats(0.1, 20), st.floats(0.05, 1), st.floats(1.1, 3))
def test_a_larger_beta_asks_for_a_smaller_margin(margin, beta, factor):
    right, wrong = (margin - 30, -30.0, -30.0, -30.0), (-margin - 30, -30.0, -30.0, -30.0)
    # The same margin satisfies a larger beta more, and a pair in the wrong order costs more under it.
    assert loss_of(right, beta * factor) < loss_of(right, beta) < math.log(2)
    assert loss_of(wrong, beta * factor) > loss_of(wrong, beta) > math.log(2)
    # So the margin that reaches a given loss is smaller by that factor: the policy stays closer to the reference.
    assert loss_of((margin / factor - 30, -30.0, -30.0, -30.0), beta * factor) == pytest.approx(loss_of(right, beta))


def test_pairs_are_scored_each_for_itself():
    rows = torch.tensor([[-48.0, -65.0, -50.0, -60.0], [-50.0, -60.0, -50.0, -60.0], [-55.0, -62.0, -50.0, -60.0]])
    together = dpo_loss(*rows.T, 0.1)
    assert together.shape == (3,)
    assert together.tolist() == pytest.approx([loss_of(row, 0.1) for row in rows.tolist()], rel=1e-6)


def test_a_hopeless_pair_stays_finite():
    assert loss_of((-9000.0, 0.0, 0.0, -9000.0), 1.0) == pytest.approx(18000)


# --- the other objectives ---


@given(nats, nats, betas)
def test_what_an_untrained_policy_loses(chosen, rejected, beta):
    untrained = columns(chosen, rejected, chosen, rejected)
    assert ipo_loss(*untrained, beta).item() == pytest.approx(1 / (4 * beta**2))
    assert mio_loss(*untrained, beta).item() == pytest.approx(2 * math.log(2))


@given(quadruples, betas)
def test_ipo_is_lowest_at_its_goal_and_even_around_it(numbers, beta):
    goal = 1 / (2 * beta)
    away = log_ratio_margin(*columns(*numbers)).item() - goal
    at = lambda margin: ipo_loss(*columns(margin, 0, 0, 0), beta).item()  # noqa: E731
    assert at(goal) == pytest.approx(0, abs=1e-12)
    assert at(goal + away) == pytest.approx(at(goal - away), abs=1e-6) == pytest.approx(away**2, abs=1e-6)


@given(quadruples, betas)
def test_mio_judges_each_side_by_itself(numbers, beta):
    chosen, rejected, reference_chosen, reference_rejected = numbers
    odds = [beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)]
    wrong = np.logaddexp(0, -odds[0]) + np.logaddexp(0, odds[1])  # -log of the two sigmoids, which may be 0 in floats
    assert mio_loss(*columns(*numbers), beta).item() == pytest.approx(wrong, rel=1e-6, abs=1e-9)
    # Raising both sides alike leaves DPO as it is, and MIO worse once the rejected side is likelier than it was.
    both = columns(chosen + 9, rejected + 9, reference_chosen, reference_rejected)
    assert dpo_loss(*both, beta).item() == pytest.approx(loss_of(numbers, beta), abs=1e-9)


matrices = arrays(float, st.integers(1, 6).map(lambda n: (n, n)), elements=st.integers(-40, 0).map(float))


@given(matrices)
def test_info_nce_is_the_bound_the_other_way_round(scores):
    found = info_nce_loss(torch.tensor(scores)).mean().item()
    assert math.log(scores.shape[1]) - found == pytest.approx(contrastive_bound(scores), abs=1e-9)


def test_the_temperature_of_info_nce_flattens():
    scores = torch.tensor([[0.0, -3.0, -5.0]], dtype=torch.float64)
    by_hand = -math.log(1 / (1 + math.exp(-1.5) + math.exp(-2.5)))
    assert info_nce_loss(scores, 2.0).item() == pytest.approx(by_hand)
    assert info_nce_loss(scores, 1e6).item() == pytest.approx(math.log(3), abs=1e-5)


@given(matrices)
def test_sami_does_not_know_rows_from_columns(scores):
    matrix = torch.tensor(scores)
    assert sami_loss(matrix).item() == pytest.approx(sami_loss(matrix.T).item())
    turned = [contrastive_bound(np.stack([np.roll(row, -i) for i, row in enumerate(m)])) for m in (scores, scores.T)]
    assert math.log(len(scores)) - np.mean(turned) == pytest.approx(sami_loss(matrix).item(), abs=1e-9)


def test_sft_counts_tokens_not_rows():
    assert sft_loss(torch.tensor([-8.0, -1.0]), torch.tensor([4, 2])).item() == pytest.approx(1.5)
