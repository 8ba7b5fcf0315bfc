"""What is reached in several draws: laws that hold for any responses, and one training of a real model."""

import numpy as np
import pytest

from mipo_nb import evaluation, sources
from mipo_nb.lab import settings
from mipo_nb.lab.store import Steps
from mipo_nb.studies import arms, widening

SAID = (
    "- a list\n- of two things",
    "1. First this.\n2. Then that.",
    "Bonjour, je vous propose une soupe de légumes avec du pain et un peu de fromage.",
    "That takes 30 minutes and costs 4 euros. Be careful with the knife!",
    "",
    "Boil the rice. What else would you like to know?",
)


@pytest.fixture
def rows():
    return sources.personal_prompts("test", n=24, seed=0)


@pytest.fixture
def draws(rows):
    """Eight draws of responses that keep a wish now and then."""
    chosen = np.random.default_rng(0).integers(0, len(SAID), size=(8, len(rows)))
    return [{"text": [SAID[i] for i in draw], "finished": [True] * len(rows)} for draw in chosen]


def test_one_draw_reaches_what_the_draws_keep_on_average(rows, draws):
    found, views = widening.reached(rows, draws, 8), evaluation.measured(rows, draws)
    for what in widening.VIEWS:
        assert found[f"{what}, best of 1"] == pytest.approx(views[f"{what}, recital-proof"])
    assert found["kept, best of 1"].any()


def test_more_draws_reach_more_and_all_of_them_reach_what_any_keeps(rows, draws):
    found = widening.reached(rows, draws, 8)
    for what in ("kept", "for everyone"):
        by_size = np.stack([found[f"{what}, best of {k}"] for k in (1, 2, 4, 8)])
        assert (np.diff(by_size, axis=0) >= -1e-12).all() and (by_size[-1] > by_size[0]).any()
    any_keeps = np.max([evaluation.kept_matrix(rows, draw["text"])[1] for draw in draws], axis=0)
    kinds = evaluation.kept_matrix(rows, draws[0]["text"])[0]
    proof = [evaluation.preferences.proven(kind, rows) for kind in kinds]
    reached = evaluation.for_the_user(evaluation.asked_matrix(rows, kinds)[:, proof], any_keeps[:, proof])
    for what in widening.VIEWS:
        assert found[f"{what}, best of 8"] == pytest.approx(reached[what])


def test_draws_that_are_all_alike_reach_what_one_reaches(rows, draws):
    alike, twice = widening.reached(rows, [draws[0]] * 4, 4), widening.reached(rows, draws[:1], 4)
    assert alike["kept, best of 4"] == pytest.approx(alike["kept, best of 1"]) == twice["kept, best of 1"]
    assert (alike["distinct"] <= twice["distinct"]).all() and alike["distinct"].mean() < twice["distinct"].mean()


def test_word_pairs_are_compared_among_as_many_draws(rows, draws):
    some, all_of_them = widening.reached(rows, draws[:4], 4), widening.reached(rows, draws, 4)
    assert (some["distinct"] == all_of_them["distinct"]).all()


@pytest.mark.parametrize(("draws", "sizes"), [(1, [1]), (2, [1, 2]), (7, [1, 2, 4]), (16, [1, 2, 4, 8, 16])])
def test_sizes_are_powers_of_two_up_to_all_draws(draws, sizes):
    assert widening.sizes(draws) == sizes


def test_another_temperature_is_another_key_and_nothing_else():
    s = settings.resolve("laptop", "42_widening_or_sharpening")
    hot = widening.at_temperature(s, 1.3)
    keys = [arms.key(None, each, seed=0, split="test", draws=16) for each in (s, hot)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"temperature"} and s.temperature == 0.7


def test_trainings_of_the_evidence_are_the_main_job():
    main, evidence = (
        settings.resolve(*which)
        for which in (("laptop", "12_measuring_personalization"), ("evidence", "42_widening_or_sharpening"))
    )
    same = ("learning_rate", "n_pairs", "epochs", "max_new_tokens", "warmup", "beta", "negative", "temperature")
    assert all(getattr(main, name) == getattr(evidence, name) for name in same)
    users = sources.personal_prompts("test", n=evidence.n_measured, seed=0)["user_id"]
    assert len(set(users)) == len(users) == evidence.n_measured and len(evidence.kept_seeds) == 8


@pytest.mark.model
def test_a_training_is_measured_by_its_own_draws(model_and_tokenizer, tmp_path):
    s = settings.resolve("smoke", "42_widening_or_sharpening", n_measured=3, batch_size=2, max_new_tokens=24)
    how = {"s": s, "seed": 0, "draws": 2, "step": Steps(tmp_path / "steps"), "train": arms.trained}
    untrained = widening.measured_training(*model_and_tokenizer, None, **how)["views"]
    trained = widening.measured_training(*model_and_tokenizer, arms.Arm("random_context", 4e-3, 8, 1), **how)["views"]
    assert untrained["users"] == trained["users"] and untrained.keys() == trained.keys()
    assert untrained["words"] != trained["words"] and "kept, best of 2" in trained
