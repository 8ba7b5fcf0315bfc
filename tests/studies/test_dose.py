"""One training kept at several doses, and what a dose explains: against plain trainings, invariances, bad input."""

import numpy as np
import pytest
from safetensors.torch import load_file

from mipo_nb import training
from mipo_nb.base.errors import UserError
from mipo_nb.studies import dose

NAME = "embedded:smollm2-135m"
NUMBERS = {
    "learning_rate": 1e-3, "beta": 0.1, "batch_size": 2, "max_length": 256, "rank": 4, "seed": 1, "dtype": "float32"
}  # fmt: skip


def weights(adapter):
    return load_file(adapter / "adapter_model.safetensors")


@pytest.mark.model
def test_a_short_training_is_the_beginning_of_a_long_one(model_and_tokenizer, some_pairs, tmp_path):
    """And the long one is that of `training.train` at a constant rate; its adapters are not one another's."""
    reference = training.reference_log_probabilities(*model_and_tokenizer, some_pairs)
    call = {**NUMBERS, "warmup": 0.0}
    long = dose.train(NAME, some_pairs, reference, steps=[1, 3], folder=tmp_path / "long", **call)
    short = dose.train(NAME, some_pairs, reference, steps=[1], folder=tmp_path / "short", **call)
    plain = training.train(
        NAME, some_pairs, reference, epochs=1, final_rate=1.0, folder=tmp_path / "plain", **call
    )  # fmt: skip
    assert long["steps"] == [1, 3] and len(long["log"]) == 3
    assert long["initial_adapter"] == short["initial_adapter"] == plain["initial_adapter"]
    assert {e["learning_rate"] for e in long["log"]} == {1e-3}
    assert [e["loss"] for e in long["log"]] == [e["loss"] for e in plain["log"]]
    first, last = map(weights, long["adapters"])
    for name, values in weights(short["adapters"][0]).items():
        assert values.equal(first[name])
    assert all(values.equal(last[name]) for name, values in weights(plain["adapter"]).items())
    assert not all(values.equal(last[name]) for name, values in first.items())


@pytest.mark.parametrize("steps", [[], [0, 2], [2, 1], [1, 1], [2.5, 5], ["a"]])
def test_steps_must_rise(some_pairs, tmp_path, steps):
    with pytest.raises(UserError, match="rise"):
        dose.train(NAME, some_pairs, None, steps=steps, folder=tmp_path, **NUMBERS)


def test_fewer_pairs_than_a_batch(some_pairs, tmp_path):
    with pytest.raises(UserError, match="fewer than one batch"):
        dose.train(NAME, some_pairs, None, steps=[1], folder=tmp_path, **{**NUMBERS, "batch_size": 8})


def test_only_the_order_of_a_dose_counts():
    given = np.array([3.0, 1.0, 100.0, 2.0, 2.0])
    found = dose.left_out_weights(given)
    assert found == pytest.approx(dose.left_out_weights(np.log(given)))
    assert found.sum(axis=1) == pytest.approx(1) and (np.diag(found) == 0).all()
    assert found[3] == pytest.approx(found[4][[0, 1, 2, 4, 3]])  # equal doses are alike
    assert dose.left_out_weights(np.zeros(4))[0] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="no other"):
        dose.left_out_weights([1.0])


def test_what_lies_on_a_curve_is_explained_by_its_dose():
    rng = np.random.default_rng(0)
    right, wrong = rng.permutation(24), rng.permutation(24)
    curve = np.sin(right / 8)
    assert dose.left_out_error(curve, right) < 0.1 < dose.left_out_error(curve, wrong)
    assert dose.left_out_error(np.stack([curve, 2 * curve]), right)[1] == pytest.approx(
        2 * dose.left_out_error(curve, right)
    )
    assert dose.left_out_error(np.full(24, 3.0), wrong) == pytest.approx(0)


def test_the_better_dose_has_a_ratio_below_one():
    rng = np.random.default_rng(1)
    right, wrong = rng.permutation(20), rng.permutation(20)
    values = np.sin(right / 8)[:, None] + 0.2 * rng.normal(size=(20, 40))
    values[:, 7] = np.nan  # a row that this view does not have
    users = np.arange(40) // 2
    ratio = dose.error_ratio([values, 100 * values], right, wrong, users)
    assert ratio.high < 1 and ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(dose.error_ratio([values], right, wrong, users).value)
    assert dose.error_ratio([values], wrong, right, users).value == pytest.approx(1 / ratio.value)
    assert dose.error_ratio([values], right, right, users).high == pytest.approx(1)
    flat = np.zeros((20, 40))  # says nothing, and so does not count
    assert dose.error_ratio([values, flat], right, wrong, users).value == pytest.approx(ratio.value)
    assert np.isnan(dose.error_ratio([flat], right, wrong, users).value)


def test_a_slope_within_hears_nothing_of_means():
    rng = np.random.default_rng(2)
    length = rng.normal(size=(5, 30))
    values = 0.3 * length + rng.normal(size=(5, 1)) * 9 + rng.normal(size=(1, 30)) * 9
    assert dose.slope_within(values, length) == pytest.approx(0.3)
    shifted = length + np.arange(5)[:, None] * 50  # settings that differ in length, and in the view for another reason
    assert dose.slope_within(values, shifted) == pytest.approx(0.3)
    values[2, 4] = np.nan
    assert dose.slope_within(values, length) == pytest.approx(0.3)
    assert dose.slope_within(values, np.zeros((5, 30))) == 0


def test_a_view_that_no_setting_changes_has_no_say():
    """Its errors are rounding alone, whatever its level."""
    users = np.random.default_rng(0)
    real, same = users.normal(size=(5, 1)) + users.normal(size=(5, 40)), np.full((5, 40), 100 / 3)
    given, other = np.arange(5.0), np.array([3.0, 0.0, 4.0, 1.0, 2.0])
    alone = dose.error_ratio([real], given, other)
    assert dose.error_ratio([real, same], given, other) == alone
    assert np.isnan(dose.error_ratio([same], given, other).value)
