"""What a training moves of what a response tells: the swaps, their differences, and how kept trainings are found."""

import json

import numpy as np
import pytest

from mipo_nb import generation, models, pairs, prompts, scoring, sources
from mipo_nb.lab import ledger, settings
from mipo_nb.lab.store import Steps
from mipo_nb.studies import arms, swaps
from mipo_nb.studies.arms import Arm

ARM = Arm("random_wish", 4e-4, 8, 1)


@pytest.fixture
def s():
    return settings.resolve("smoke", "40_what_the_pair_swaps")


@pytest.fixture
def rows(s):
    return sources.personal_prompts("test", n=s.n_measured, data=s.data, seed=0)


def log_probability(model, conversation, response):
    """A number that depends on everything: the weight of a stand-in for a model, who is told of what, and what is said."""
    return -model * (len(conversation[0]["content"]) + sum(response) / 7)


@pytest.fixture
def noted():
    """(a step for models that are numbers, the calls of the scoring)."""
    calls = []

    def step(name, function, *args, **kwargs):
        model, _, conversations, *rest = args
        if function is generation.sample:
            return {"tokens": [[] if k == 1 else [k, k + 1] for k in range(len(conversations))]}
        assert function is scoring.log_probabilities
        calls.append((model, conversations, rest[0]))
        return np.array([log_probability(model, c, y) for c, y in zip(conversations, rest[0], strict=True)])

    return step, calls


# --- what is exchanged ---


def test_each_swap_exchanges_its_part_and_keeps_the_rest(rows):
    put = swaps.asked(rows)
    assert list(put) == [swaps.RESPONSE, *swaps.PARTS]
    assert all(len(conversations) == len(rows) for conversations in put.values())
    others = {row["user_id"]: row for row in rows}.values()
    for k, row in enumerate(rows):
        said = {view: conversations[k][0]["content"] for view, conversations in put.items()}
        assert {conversations[k][-1]["content"] for conversations in put.values()} == {row["prompt"]}
        assert row["biography"] in said[swaps.RESPONSE] and row["wish"] in said[swaps.RESPONSE]
        assert row["biography"] in said["wish"] and row["wish"] not in said["wish"]
        assert row["biography"] not in said["person"]
        assert any(o["biography"] in said["person"] for o in others if o["user_id"] != row["user_id"])
        assert any(o["context"] in said["both"] for o in others if o["user_id"] != row["user_id"])
        assert row["wish"] not in said["both"] and put["context"][k] == prompts.messages(row["prompt"])


def test_the_swaps_are_those_of_pairs_and_of_no_training(rows):
    put = swaps.asked(rows)
    assert put == swaps.asked(rows)
    for part, negative in swaps.PARTS.items():
        assert put[part] == pairs.negative_conversations(rows, negative, seed=swaps.SWAPS_SEED)
    assert swaps.SWAPS_SEED % 10  # `arms.preferred` gives ten times a seed


def test_rows_without_parts_have_the_swaps_that_are_left():
    people = [{"prompt": "What now?", "context": f"User {k} bakes.", "user_id": f"u{k}"} for k in range(3)]
    rows = [{**row, "biography": None, "wish": None} for row in people]
    assert list(swaps.asked(rows)) == [swaps.RESPONSE, "context", "both"]


# --- what responses tell ---


def test_what_a_response_tells_is_the_difference_of_two_scores(rows, s, noted):
    step, calls = noted
    said = swaps.responses(1.0, None, rows, s, step=step)
    found, put = swaps.information(1.0, None, rows, said, s, step=step), swaps.asked(rows)
    assert list(found) == list(put) and all(np.isnan(values[1]) for values in found.values())  # nothing was said there
    for k in (0, 2):
        scores = {view: log_probability(1.0, conversations[k], said[k]) for view, conversations in put.items()}
        own = scores.pop(swaps.RESPONSE)
        assert found[swaps.RESPONSE][k] == pytest.approx(own)
        assert all(found[part][k] == pytest.approx(own - other) for part, other in scores.items())
    [(_, conversations, responses)] = calls
    assert len(conversations) == len(responses) == len(put) * (len(rows) - 1) and [] not in responses


def trained_to(model, tokenizer, arm, s, *, seed, step):
    """In place of `arms.trained`: the adapter is the number that the trained model shall be."""
    log = [{"rewards/margins": s.beta * k} for k in range(8)]
    return {"adapter": arm.learning_rate, "log": log, "pairs": range(5)}


def measured(arm, s, step, monkeypatch):
    monkeypatch.setattr(models, "with_adapter", lambda model, adapter, name: adapter)
    return swaps.measured_training(2.0, None, arm, s, seed=3, step=step, train=trained_to)


def test_a_training_that_changes_nothing_moves_nothing(s, noted, monkeypatch):
    step, calls = noted
    value = measured(Arm("random_wish", 2.0), s, step, monkeypatch)
    views = value["views"]
    assert set(views) == {"users", swaps.RESPONSE, *swaps.PARTS}
    for view in (swaps.RESPONSE, *swaps.PARTS):
        assert len(views[view]) == len(views["users"]) and set(views[view]) <= {0.0, None}
    assert (value["pairs"], value["margin"]) == (5, 5.0)
    (_, conversations, responses), (_, *again) = calls
    assert again == [conversations, responses]  # both models: the same responses under the same swaps


def test_a_change_is_that_of_the_trained_model_against_the_untrained_one(s, noted, monkeypatch):
    step, _ = noted
    levels = swaps.measured_training(2.0, None, None, s, seed=0, step=step, train=trained_to)
    assert set(levels) == {"views"}
    value = measured(Arm("random_wish", 3.0), s, step, monkeypatch)
    for view in (swaps.RESPONSE, *swaps.PARTS):
        for level, change in zip(levels["views"][view], value["views"][view], strict=True):
            assert change is level is None or change == pytest.approx(level / 2, abs=1e-4)
    assert None in levels["views"]["wish"]


# --- what is kept ---


def test_a_kept_line_comes_back_as_it_was(s, noted, monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "project_root", lambda: tmp_path)
    monkeypatch.setattr(ledger, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
    step, control = noted[0], arms.control_of(ARM)
    values = {arm: measured(arm, s, step, monkeypatch) for arm in (ARM, control)}
    values[None] = swaps.measured_training(2.0, None, None, s, seed=0, step=step, train=trained_to)
    for arm, seed in [(None, 0), (ARM, 1), (control, 0), (ARM, 0)]:
        ledger.Ledger("swaps").add(arms.key(arm, s, seed=seed, split="test", draws=1), values[arm])
    levels, kept = arms.of_ledger(ledger.Ledger("swaps"), s, "test")
    assert levels == values[None]["views"] and kept == {
        ARM: [{"seed": seed, **values[ARM]["views"]} for seed in (0, 1)],
        control: [{"seed": 0, **values[control]["views"]}],
    }
    assert all(json.loads(line) for line in (tmp_path / "results" / "swaps.jsonl").read_text().splitlines())
    unlike = settings.resolve("smoke", "40_what_the_pair_swaps", max_new_tokens=9)
    assert arms.of_ledger(ledger.Ledger("swaps"), unlike, "test") == (None, {})


def test_arms_of_the_evidence_are_trained_alike_but_for_the_swap():
    laptop, evidence = (settings.resolve(p, "40_what_the_pair_swaps") for p in ("laptop", "evidence"))
    keys = [arms.key(ARM, s, seed=0, split="test", draws=1) for s in (laptop, evidence)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"n_measured"}
    assert len(evidence.kept_seeds) == 8 and set(laptop.own) == set(swaps.PARTS.values())
    assert (laptop.learning_rate, laptop.n_pairs, laptop.epochs) == (4e-4, 112, 1)


@pytest.mark.model
def test_a_training_moves_what_responses_tell(model_and_tokenizer, tmp_path):
    s = settings.resolve("smoke", "40_what_the_pair_swaps", n_measured=4, batch_size=2)
    how = {"seed": 0, "step": Steps(tmp_path / "steps"), "train": arms.trained}
    levels = swaps.measured_training(*model_and_tokenizer, None, s, **how)["views"]
    moved = swaps.measured_training(*model_and_tokenizer, ARM, s, **how)
    assert levels["users"] == moved["views"]["users"] and 0 < moved["pairs"] <= 8
    assert any(moved["views"][swaps.RESPONSE]) and any(moved["views"]["wish"])
