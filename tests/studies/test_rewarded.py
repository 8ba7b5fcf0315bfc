"""Trainings on sums: how they are put and made, what is kept of them, and how a rate is chosen."""

from dataclasses import replace

import numpy as np
import pytest

from mipo_nb.lab import settings
from mipo_nb.lab.ledger import Ledger
from mipo_nb.lab.store import Steps
from mipo_nb.studies import rewarded
from mipo_nb.studies.rewarded import Arm
from mipo_nb.verifiable import rewards

NOTEBOOK = "21_reward_baselines"
ARM = Arm("verifiable", 5e-4)


@pytest.fixture
def s():
    return settings.resolve("smoke", NOTEBOOK)


def test_worked_examples_end_as_the_published_reward_reads(s):
    rows = rewarded.sheet(s, "train", n=3, seed=0)
    put = rewarded.asked(s, rows)
    assert [turns[-1]["content"] for turns in put] == [row["question"] for row in rows]
    shown = [turn["content"] for turn in put[0] if turn["role"] == "assistant"]
    assert len(shown) == s.n_exemplars and all(rewards.paid_number(text) is not None for text in shown)
    assert not {row["question"] for row in rows} & {turn["content"] for turn in put[0][:-1]}
    assert rewarded.asked(s, rows)[1][:-1] == rewarded.asked(s, rewarded.sheet(s, "test", n=2, seed=0))[0][:-1]


def test_each_training_has_problems_of_its_own(s):
    questions = lambda seed: [row["question"] for row in rewarded.sheet(s, "train", n=8, seed=seed)]  # noqa: E731
    assert questions(1) == questions(1) and not set(questions(1)) & set(questions(2))


def test_keys_tell_apart_what_changes_a_number(s):
    one = rewarded.key(ARM, s, seed=0, split="test")
    others = [
        rewarded.key(replace(ARM, method="information"), s, seed=0, split="test"),
        rewarded.key(replace(ARM, learning_rate=1e-4), s, seed=0, split="test"),
        rewarded.key(ARM, s, seed=1, split="test"),
        rewarded.key(ARM, s, seed=0, split="dev"),
        rewarded.key(None, s, seed=0, split="test"),
        *(rewarded.key(ARM, settings.resolve("smoke", NOTEBOOK, **c), seed=0, split="test") for c in ({"steps": 9}, {"n_test": 9}, {"warmup": 0.5}, {"system": "Hi."}, {"seed": 1})),
    ]  # fmt: skip
    assert one == rewarded.key(replace(ARM), s, seed=0, split="test")
    assert [one == other for other in others] == [False] * 8 + [True] + [
        False
    ]  # a sum has no system prompt of a user's


class Shelf:
    """A ledger in memory."""

    def __init__(self):
        self.lines = []

    def find(self, key):
        return next((value for place, value in self.lines if place == key), None)

    def add(self, key, value):
        self.lines.append((key, value))

    complete = Ledger.complete


class Direct(Steps):
    """Steps that store nothing."""

    def __call__(self, name, function, /, *args, **kwargs):
        return function(*args, **kwargs)


@pytest.mark.model
@pytest.mark.parametrize("method", [rewarded.AS_PUBLISHED, rewarded.CONTROL])
def test_what_a_ledger_lacks_is_trained_once_and_only_where_it_may(model_and_tokenizer, s, tmp_path, method):
    s, shelf, step = replace(s, numbers={**s.numbers, "n_test": 2}), Shelf(), Steps(tmp_path / "steps")
    arm, asked = Arm(method, 1e-3), {"seeds": [3], "split": "test"}
    assert rewarded.kept(shelf, *model_and_tokenizer, arm, s, **asked) == {} and not step.taken
    found = rewarded.kept(shelf, *model_and_tokenizer, arm, s, step=step, **asked)
    assert list(found) == [3] and set(rewarded.right(found[3])) <= {0.0, 1.0} and len(found[3]["right"]) == 2
    assert found[3]["full steps"] == (s.n_train / s.batch_size if method == rewarded.CONTROL else s.steps)
    assert ("silent groups" in found[3]) == (method == rewarded.AS_PUBLISHED)
    before = len(step.taken)
    assert rewarded.kept(shelf, *model_and_tokenizer, arm, s, step=step, **asked) == found
    assert len(step.taken) == before


def test_as_many_responses_are_written_as_updates_take(s):
    of = lambda method: rewarded.written(Arm(method, 1e-3), s)  # noqa: E731
    assert (of("verifiable"), of(rewarded.AS_PUBLISHED)) == (s.steps * s.responses, s.steps * s.group)
    assert of(rewarded.PAIRS) == of(rewarded.CONTROL) == s.n_train


RUNGS = [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("peak", "found"),
    [
        (4.0, (4.0, True, [2.0, 4.0, 8.0])),
        (8.0, (8.0, True, [2.0, 4.0, 8.0, 16.0])),
        (16.0, (16.0, False, [2.0, 4.0, 8.0, 16.0])),
        (0.1, (1.0, False, [1.0, 2.0, 4.0, 8.0])),
    ],
)
def test_a_rate_is_sought_until_the_best_lies_inside(s, peak, found):
    s = replace(s, numbers={**s.numbers, "ladder": RUNGS})
    score = lambda arm: -abs(np.log(arm.learning_rate / peak))  # noqa: E731
    rate, inside, tried = rewarded.best_rate("MIPO", s, score)
    assert (rate, inside, list(tried)) == found
    assert rewarded.best_rate("MIPO", s, lambda arm: None if arm.learning_rate == 8 else 1.0) == (None, False, {})


def test_of_rates_that_are_as_good_the_lowest_is_taken(s):
    s = replace(s, numbers={**s.numbers, "ladder": RUNGS})
    assert rewarded.best_rate("MIPO", s, lambda arm: 0.5)[0] == 1.0


@pytest.fixture
def deciding(s):
    numbers = {"ladder": [1e-4, 2e-4, 5e-4], "sweep_seeds": [100, 101], "kept_seeds": [0, 1]}
    numbers["kept"] = [["verifiable", rewarded.CONTROL], ["information"]]
    return replace(s, numbers={**s.numbers, **numbers})


def swept(shelf, s):
    """Add a sweep in which the verifiable reward is best inside the ladder, and MIPO at its lower end."""
    for method, best in (("verifiable", 2e-4), (rewarded.PAIRS, 1e-4)):
        for rate in s.ladder:
            for seed in s.sweep_seeds:
                line = {"right": "11" if rate == best else "10"}
                shelf.add(rewarded.key(Arm(method, rate), s, seed=seed, split="dev"), line)


def test_what_decides_is_found_by_its_rate_and_by_nothing_else(deciding):
    shelf, s = Shelf(), deciding
    unknown = {"verifiable": (None, False, {}), "MIPO": (None, False, {})}
    assert rewarded.deciding(shelf, None, None, s) == (None, unknown, {})
    swept(shelf, s)
    for arm, seed in ((None, 0), (Arm("verifiable", 2e-4), 1), (Arm("verifiable", 5e-4), 0), (Arm(rewarded.CONTROL, 1e-4), 0), (Arm("information", 2e-4), 1)):  # fmt: skip
        shelf.add(rewarded.key(arm, s, seed=seed, split="test"), {"right": "01", "of": (arm, seed)})
    start, chosen, found = rewarded.deciding(shelf, None, None, s)
    assert start["of"] == (None, 0)
    assert [chosen[method][:2] for method in ("verifiable", "MIPO")] == [(2e-4, True), (1e-4, False)]
    assert {method: list(lines) for method, lines in found.items()} == {"verifiable": [1], rewarded.CONTROL: [0], "information": [1]}  # fmt: skip


def test_what_is_missing_is_computed_in_the_order_that_the_profile_names(deciding, monkeypatch, tmp_path):
    shelf, s, computed, step = Shelf(), deciding, [], Direct(tmp_path)

    def measured(model, tokenizer, arm, s, *, seed, split, step):
        computed.append((arm and (arm.method, arm.learning_rate), seed, split))
        return {"right": "10"}

    monkeypatch.setattr(rewarded, "measured", measured)
    swept(shelf, s)
    rewarded.deciding(shelf, None, None, s, step=step)
    one, control = ("verifiable", 2e-4), (rewarded.CONTROL, 1e-4)
    first = [(one, 0, "test"), (control, 0, "test"), (one, 1, "test"), (control, 1, "test")]
    assert computed[:4] == first and [what for what, *_ in computed[4:]] == [("information", 2e-4)] * 2 + [None]
    before = list(computed)
    rewarded.deciding(shelf, None, None, s, step=step)
    assert computed == before
