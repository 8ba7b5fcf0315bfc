"""Arms of the main job: how their pairs are made, what is measured, and what kept trainings are found by."""

from dataclasses import replace

import numpy as np
import pytest

from mipo_nb import evaluation, mipo, pairs, prompts, sources
from mipo_nb.generation import Sampling
from mipo_nb.lab import ledger, settings
from mipo_nb.lab.store import Steps
from mipo_nb.studies import arms, contrastive, steering
from mipo_nb.studies.arms import Arm

ARM = Arm("random_context", 4e-4, 8, 1)


@pytest.fixture
def s():
    return settings.resolve("smoke", "14_choosing_the_dose", max_new_tokens=16)


class Shelf:
    """A ledger in memory."""

    def __init__(self, lines=()):
        self.lines = list(lines)

    def find(self, key):
        return next((line["value"] for line in self.lines if line["key"] == key), None)

    def add(self, key, value):
        self.lines.append({"key": key, "value": value})

    complete, _by_now = ledger.Ledger.complete, ledger.Ledger._by_now


def test_labels_say_what_an_arm_is():
    assert ARM.label == "random_context 4e-04, 8 pairs x 1"
    everything = replace(ARM, restraint=0.25, draws=4, at_limit="drop", shuffled=True, method="ipo", beta=0.5)
    extras = "25% restraint, best of 4, cut responses: drop, sides shuffled, ipo, β 0.5"
    assert everything.label == f"{ARM.label}, {extras}"
    assert Arm("missing_context", 0.0, pairs=0, method="steering", beta=2).label == "missing_context, steering, β 2"
    assert arms.control_of(ARM) == replace(ARM, shuffled=True)


def test_keys_tell_apart_what_changes_a_number(s):
    one = arms.key(ARM, s, seed=0, split="dev", draws=2)
    others = [
        arms.key(replace(ARM, restraint=0.5), s, seed=0, split="dev", draws=2),
        arms.key(ARM, s, seed=1, split="dev", draws=2),
        arms.key(ARM, s, seed=0, split="test", draws=2),
        arms.key(ARM, s, seed=0, split="dev", draws=1),
        arms.key(ARM, settings.resolve("smoke", "14_choosing_the_dose"), seed=0, split="dev", draws=2),
        arms.key(None, s, seed=0, split="dev", draws=2),
        arms.key(replace(ARM, method="ipo"), s, seed=0, split="dev", draws=2),
        arms.key(replace(ARM, beta=s.beta), s, seed=0, split="dev", draws=2),
    ]
    assert one not in others and one == arms.key(replace(ARM), s, seed=0, split="dev", draws=2)


def test_arms_of_later_fields_leave_the_committed_keys_as_they_are():
    """Every line of the main job has the key that its arm has today."""
    for line in ledger.Ledger("main_job").lines:
        key, sizes = line["key"], {name: line["key"][name] for name in ("n_measured", "n_others")}
        s = settings.resolve("laptop", "12_measuring_personalization", **sizes)
        arm = None if key["negative"] is None else arms.arm_of(key)
        today = arms.key(arm, s, seed=key["seed"], split=key["split"], draws=key["draws measured"])
        assert today == {name: value for name, value in key.items() if name not in ("rules", "weights")}


def test_a_training_gains_over_the_untrained_model_that_was_measured_like_it(s):
    def line(arm, seed, kept, by, weights="bfloat16"):
        views = {"users": ["a", "b"], "for the user": [kept, None]}
        measured = {"rules": by, "weights": weights, "value": {"views": views}}
        return {"key": arms.key(arm, s, seed=seed, split="dev", draws=2), **measured}

    lines = [
        line(None, 0, 0.25, "old"),
        line(ARM, 0, 0.5, "old"),
        line(None, 0, 0.125, "new"),
        line(ARM, 1, 0.5, "new"),
        line(None, 0, 0.375, "new", "float32"),
        line(ARM, 2, 0.5, "new", "float32"),
    ]
    base, found = arms.of_ledger(Shelf(lines), s, "dev")
    assert base["for the user"] == [0.125, None]
    gains = ledger.gains(base, found[ARM], "for the user")
    assert gains[:, 0].tolist() == [0.25, 0.375, 0.125] and np.isnan(gains[:, 1]).all()


def test_the_untrained_model_is_asked_for_beside_trainings_and_drawn_more_often(s):
    class Asked(Shelf):
        def complete(self, lines, function, **how):
            self.wanted = lines

    shelf = Asked()
    arms.kept(shelf, None, None, [(ARM, 0), (ARM, 1)], s, "dev", step=None)
    assert [(arguments["arm"], len(arguments["draws"])) for _, arguments in shelf.wanted] == [
        (None, 4),
        (ARM, 2),
        (ARM, 2),
    ]
    assert shelf.wanted[0][0] == arms.key(None, s, seed=0, split="dev", draws=4)
    arms.kept(shelf, None, None, [], s, "dev", step=None)
    assert shelf.wanted == []


def test_methods_and_betas_are_found_again(s):
    arms_of = [ARM, replace(ARM, method="ipo", beta=0.5), replace(ARM, pairs=0, method="steering", beta=2.0)]
    assert [arms.arm_of(arms.key(arm, s, seed=0, split="dev", draws=2)) for arm in arms_of] == arms_of


def test_kept_trainings_of_this_run_are_found_by_arm_and_in_the_order_of_their_seeds(s):
    shelf = Shelf(
        {"key": arms.key(arm, s, seed=seed, split=split, draws=2), "value": {"views": {"users": users, "of": (arm, seed, split)}}}
        for arm in (None, ARM, arms.control_of(ARM)) for seed in (1, 0) for split in ("dev", "test")
        for users in (["a", "b"], *([["a"]] if arm else []))
    )  # fmt: skip
    base, kept = arms.kept(shelf, None, None, [], s, "test", step=None)
    assert base["of"][2] == "test" and set(kept) == {ARM, arms.control_of(ARM)}
    assert [views["of"] for views in kept[ARM]] == [(ARM, 0, "test"), (ARM, 1, "test")]  # of the same users
    assert [views["seed"] for views in kept[ARM]] == [0, 1]
    changes = {"max_new_tokens": 17, "temperature": 0.5, "lora_rank": 8, "data": str(__file__), "system": "Be brief."}
    for change in ({name: value} for name, value in changes.items()):
        other = settings.resolve("smoke", "14_choosing_the_dose", **{"max_new_tokens": 16, **change})
        assert arms.kept(shelf, None, None, [], other, "test", step=None) == (None, {}), change


@pytest.mark.model
def test_what_a_ledger_lacks_is_computed_once_the_untrained_model_first(model_and_tokenizer, tmp_path):
    numbers = {"n_measured": 4, "n_others": 4, "batch_size": 2, "accumulate": 1}
    s, shelf, step = settings.resolve("smoke", "14_choosing_the_dose", **numbers), Shelf(), Steps(tmp_path / "steps")
    asked = (shelf, *model_and_tokenizer, [(ARM, 3), (ARM, 3)], s, "dev")
    base, kept = arms.kept(*asked, step=step)
    assert [line["key"]["negative"] for line in shelf.lines] == [None, "random_context"]
    assert {"seed", *base} == set(kept[ARM][0]) and len(kept[ARM]) == 1
    names = [taken["name"] for taken in step.taken]
    assert names.count("training") == 1 and names.count("kept training") == 2
    assert arms.kept(*asked, step=step) == (base, kept) and len(step.taken) == len(names)
    again = Shelf()  # what was computed is found, should the ledger have refused it
    assert arms.kept(again, *asked[1:], step=step) == (base, kept) and again.lines == shelf.lines
    assert all(taken["found"] for taken in step.taken[len(names) :])


@pytest.mark.model
def test_other_methods_are_trained_or_asked_as_they_say(model_and_tokenizer, tmp_path):
    numbers = {"max_new_tokens": 24, "n_measured": 4, "n_others": 4, "batch_size": 2, "accumulate": 1}
    s, shelf = settings.resolve("smoke", "20_contrastive_baselines", **numbers), Shelf()
    steered = Arm("missing_context", 0.0, pairs=0, method="steering", beta=1.0)
    wanted = [(replace(ARM, method="info_nce", beta=0.2), 0), (steered, 0)]
    asked = []

    class Noted(Steps):
        def __call__(self, name, function, /, *args, **kwargs):
            asked.append((name, function.__name__, kwargs.get("beta"), args[-1] if args else None))
            return super().__call__(name, function, *args, **kwargs)

    step = Noted(tmp_path / "steps")
    methods = {"info_nce": contrastive.prefer, "steering": steering.asked}
    _, kept = arms.kept(shelf, *model_and_tokenizer, wanted, s, "dev", step=step, methods=methods)
    assert set(kept) == {arm for arm, _ in wanted}
    assert [beta for name, _, beta, _ in asked if name == "training"] == [0.2]
    drawn = {
        strength for _, function, _, strength in asked if function == "sample_draws" and isinstance(strength, float)
    }
    assert drawn == {1.0}
    trained, told = (shelf.find(arms.key(arm, s, seed=0, split="dev", draws=2)) for arm, _ in wanted)
    assert trained["full steps"] > 0 and "margin" not in trained and set(told) == {"views"}
    assert kept[steered][0]["words"] != shelf.lines[0]["value"]["views"]["words"]


@pytest.mark.model
def test_pairs_of_other_methods_know_the_rows_that_they_were_made_from(model_and_tokenizer, s):
    found = arms.preferred(*model_and_tokenizer, replace(ARM, method="sami"), s, seed=1, step=mipo.call)
    plain = arms.preferred(*model_and_tokenizer, ARM, s, seed=1, step=mipo.call)
    assert found.remove_columns(["context", "other"]).to_list() == plain.to_list()
    rows = sources.personal_prompts("train", n=8, seed=1)
    conversations = pairs.negative_conversations(rows, "random_context", seed=10)
    for pair in found:
        k = int(pair["pair_id"][-5:])
        assert pair["other"] == conversations[k] and pair["context"] == rows[k]["context"]
        assert pair["prompt"] == prompts.messages(rows[k]["prompt"], pair["context"]) != pair["other"]


@pytest.mark.model
def test_pairs_of_an_arm_are_those_of_the_method(model_and_tokenizer, s):
    model, tokenizer = model_and_tokenizer
    found = arms.preferred(model, tokenizer, ARM, s, seed=0, step=mipo.call)
    rows = sources.personal_prompts("train", n=8, seed=0)
    plain, _ = mipo.make_pairs(model, tokenizer, rows, "random_context", Sampling.of(s), max_length=s.max_length)
    assert found.to_list() == plain.to_list()
    control = arms.preferred(model, tokenizer, arms.control_of(ARM), s, seed=0, step=mipo.call)
    assert control.to_list() == pairs.swap_sides(plain, seed=0).to_list() != plain.to_list()


@pytest.mark.model
def test_restraint_prefers_what_is_said_without_the_user(model_and_tokenizer, s):
    model, tokenizer = model_and_tokenizer
    found = arms.preferred(model, tokenizer, replace(ARM, restraint=0.5), s, seed=0, step=mipo.call)
    rows = sources.prompts_for_others("train", n=4, seed=0)
    restraint = [pair for pair in found if pair["negative"] == "restraint"]
    assert 0 < len(restraint) <= 4 and len(restraint) < len(found)
    without = pairs.negative_conversations(rows, "missing_context")
    for pair in restraint:
        row = rows[int(pair["pair_id"].rpartition("-")[2])]
        assert pair["prompt"] == prompts.messages(row["prompt"], row["context"])
    assert all(row["prompt"] in {p["prompt"] for p in rows} for row in rows) and len(without) == 4


@pytest.mark.model
def test_selected_sides_are_among_the_draws_and_differ_most(model_and_tokenizer, s):
    model, tokenizer = model_and_tokenizer
    seen = []

    def step(name, function, *args, **kwargs):
        value = function(*args, **kwargs)
        seen.append((name, value))
        return value

    rows = sources.personal_prompts("train", n=8, seed=0)
    found = arms.selected(model, tokenizer, rows, replace(ARM, draws=2), Sampling.of(s), s, seed=0, step=step)
    drawn = {
        side: [set(v["text"]) for n, some in seen if n.startswith(side) for v in some]
        for side in ("chosen", "rejected")
    }
    assert all(len(some) == 2 for some in drawn.values())
    for side, some in drawn.items():
        assert set(pairs.texts(found, side)) <= {text.strip() for texts in some for text in texts}


@pytest.mark.model
def test_what_is_measured_is_what_evaluation_measures_user_by_user(model_and_tokenizer, s):
    model, tokenizer = model_and_tokenizer
    views = arms.measured(model, tokenizer, "dev", s, draws=range(2), step=mipo.call)
    rows, others = arms.people("dev", s)
    draws = arms.answers(model, tokenizer, rows, s, draws=range(2), step=mipo.call)
    plain = evaluation.measured(rows, draws)
    assert views["users"] == sorted(set(rows["user_id"])) and set(plain) | {"misapplied", "users"} == set(views)
    assert np.mean(views["words"]) == pytest.approx(np.mean(plain["words"]), abs=1e-4)
    assert len(views["misapplied"]) == len(set(others["user_id"]))
    assert draws[0]["text"] != draws[1]["text"]
