"""Notebook 13's trainings: which problems they see, what is kept of each, and how kept ones are found again."""

from dataclasses import replace

import numpy as np
import pytest

from mipo_nb.lab import ledger, settings
from mipo_nb.lab.store import Steps
from mipo_nb.studies import without_labels
from mipo_nb.studies.without_labels import Arm
from mipo_nb.verifiable import answers, corruptions

ARM = Arm("stories-1", 1e-4)


@pytest.fixture
def s():
    return settings.resolve("smoke", "13_reasoning_without_labels")


def test_each_seed_has_problems_of_its_own_and_none_is_shown_or_tested(s):
    shown = {row["question"] for row in without_labels.examples("stories-1", s)}
    first, second = ({row["question"] for row in without_labels.practice("stories-1", s, seed)} for seed in (0, 1))
    test = [row["question"] for row in without_labels.tested("stories-1", s)]
    assert len(shown) == s.n_exemplars and len(first) == len(second) == s.n_pairs and len(test) == s.n_test
    assert not first & second and not (first | second) & shown and not (first | second | shown) & set(test)


def test_more_test_problems_begin_with_the_same_ones(s):
    longer = settings.resolve("smoke", "13_reasoning_without_labels", n_test=20)
    assert without_labels.tested("stories-1", longer)[: s.n_test] == without_labels.tested("stories-1", s)


def test_problems_are_put_after_the_same_examples(s):
    rows = without_labels.tested("stories-1", s)
    first, second = without_labels.asked(rows[:2], s)
    assert len(first) == 2 * s.n_exemplars + 2 and first[:-1] == second[:-1]
    assert [turn[-1]["content"] for turn in (first, second)] == [row["question"] for row in rows[:2]]


def test_views_are_read_from_what_is_kept():
    digit = {kind: str(k) for k, kind in enumerate(answers.KINDS)}
    value = {
        "answers": digit["right"] + digit["off-topic"] + digit["arithmetic slip"],
        "drawn": digit["wrong reasoning"] + digit["right"],
        "links": {link: [1.0, -0.5] for link in corruptions.LINKS},
    }
    assert without_labels.view(value, "right").tolist() == [True, False, False]
    assert without_labels.view(value, "on topic").tolist() == [True, False, True]
    assert without_labels.view(value, "right when drawn").tolist() == [False, True]
    assert all(without_labels.view(value, link).tolist() == [1.0, -0.5] for link in corruptions.LINKS)
    assert without_labels.view({"picked": "011"}, "right").tolist() == [False, True, True]
    assert set(without_labels.VIEWS) == {"right", "on topic", "right when drawn", *corruptions.LINKS}


def test_gains_are_against_the_untrained_model_problem_by_problem():
    base, trainings = {"picked": "0101"}, [{"picked": "0111"}, {"picked": "1001"}]
    np.testing.assert_array_equal(without_labels.gains(base, trainings, "right"), [[0, 0, 1, 0], [1, -1, 0, 0]])


def test_the_end_of_a_training_is_its_last_quarter():
    log = [{"rewards/margins": k / 10, "rewards/accuracies": k / 8} for k in range(8)]
    assert without_labels.told_apart(log, 0.1) == {"margin": 6.5, "told apart": 0.812}
    assert without_labels.told_apart(log[:2], 0.1)["margin"] == 1.0


def test_keys_tell_apart_what_changes_a_number(s):
    other = lambda **numbers: settings.resolve("smoke", "13_reasoning_without_labels", **numbers)  # noqa: E731
    keys = [
        without_labels.key(ARM, s, seed=0),
        without_labels.key(ARM, s, seed=1),
        without_labels.key(replace(ARM, shuffled=True), s, seed=0),
        without_labels.key(replace(ARM, learning_rate=4e-4), s, seed=0),
        without_labels.key(Arm("stories-1"), s, seed=0),
        without_labels.key(Arm("arc_easy", 1e-4), s, seed=0),
        *(without_labels.key(ARM, other(**{name: 5}), seed=0) for name in ("n_test", "n_drawn", "n_links", "n_pairs")),
    ]
    assert all(one not in keys[k + 1 :] for k, one in enumerate(keys))
    assert keys[0] == without_labels.key(replace(ARM), s, seed=0) and keys[4]["negative"] is None


class Shelf:
    """A ledger in memory."""

    def __init__(self):
        self.lines = []

    def find(self, key):
        return next((line["value"] for line in self.lines if line["key"] == key), None)

    def add(self, key, value):
        self.lines.append({"key": key, "value": value})

    complete, _by_now = ledger.Ledger.complete, ledger.Ledger._by_now


class Direct(Steps):
    """Steps that store nothing."""

    def __call__(self, name, function, /, *args, **kwargs):
        return function(*args, **kwargs)


def test_kept_trainings_are_found_by_arm_in_the_order_of_their_seeds(s):
    shelf, control = Shelf(), replace(ARM, shuffled=True)
    bigger = settings.resolve("smoke", "13_reasoning_without_labels", n_test=9)
    unlike = settings.resolve("smoke", "13_reasoning_without_labels", max_new_tokens=9)
    for arm, seed, run in [
        (Arm("stories-1"), 0, s), (Arm("stories-1"), 0, unlike), (ARM, 1, s), (ARM, 0, s), (control, 0, s), (ARM, 2, bigger),
        (ARM, 3, unlike), (Arm("arc_easy", 1e-4), 0, s),
    ]:  # fmt: skip
        shelf.add(without_labels.key(arm, run, seed=seed), {"of": (arm.learning_rate, arm.shuffled)})
    base, found = without_labels.of_ledger(shelf, s)["stories-1"]
    assert base == {"of": (None, False)} and set(without_labels.of_ledger(shelf, s)) == {"stories-1"}
    assert found[ARM] == [{"of": (1e-4, False), "seed": 0}, {"of": (1e-4, False), "seed": 1}]
    assert found[control] == [{"of": (1e-4, True), "seed": 0}] and len(found) == 2
    assert without_labels.of_ledger(Shelf(), s) == {}


def test_what_a_ledger_lacks_is_computed_once_with_the_untrained_model_first(s, monkeypatch, tmp_path):
    asked, shelf, step = [], Shelf(), Direct(tmp_path)

    def training(model, tokenizer, arm, s, *, seed, step):
        asked.append((arm, seed))
        return {"rate": arm.learning_rate}

    monkeypatch.setattr(without_labels, "measured_training", training)
    wanted = [(ARM, 0), (ARM, 1), (Arm("arc_easy", 1e-4), 0)]
    found = without_labels.kept(shelf, None, None, wanted, s, step=step)
    assert asked == [(Arm("stories-1"), 0), (Arm("arc_easy"), 0), *wanted]
    base, trainings = found["stories-1"]
    assert base == {"rate": None} and trainings == {ARM: [{"rate": 1e-4, "seed": 0}, {"rate": 1e-4, "seed": 1}]}
    assert without_labels.kept(shelf, None, None, wanted, s, step=step) == found and len(asked) == 5
    assert without_labels.kept(shelf, None, None, [], s, step=step) == found
