"""Kept trainings: found by their key, added only from committed code, and what several say together."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mipo_nb import statistics, wishes
from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import hardware
from mipo_nb.lab import ledger, steps


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "project_root", lambda: tmp_path)
    monkeypatch.setattr(ledger, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
    return lambda: ledger.Ledger("trials")


def test_what_was_added_is_found_also_by_another_process(shelf, tmp_path):
    first, key = shelf(), {"arm": "a", "seed": 1}
    assert first.find(key) is None
    assert first.add(key, {"gain": [0.25, None]}) == {"gain": [0.25, None]}
    assert first.find(key) == shelf().find({"seed": 1, "arm": "a"}) == {"gain": [0.25, None]}
    assert shelf().find({"arm": "a", "seed": 2}) is None
    [line] = (tmp_path / "results" / "trials.jsonl").read_text().splitlines()
    assert json.loads(line)["commit"] == "0123456789ab"


def test_a_line_names_the_rules_that_measured_it(shelf, monkeypatch):
    shelf().add({"arm": "a"}, 1)
    lines = [*shelf().lines, {"key": {"arm": "b"}, "value": 2}]  # as from before rules were named
    assert lines[0]["rules"] == ledger.rules() and len(ledger.rules()) == 16
    assert ledger.unlike(lines[:1]) == "" == ledger.unlike([])
    assert ledger.unlike(lines).startswith("1 of 2 kept results were measured by earlier rules")
    monkeypatch.setattr(ledger, "rules", lambda: "0" * 16)
    assert ledger.unlike(lines).startswith("2 of 2 ")


def test_a_line_names_the_type_of_its_weights(shelf):
    line = {"key": {}, "rules": ledger.rules(), "value": 1}
    assert ledger.unlike([line, line | {"weights": "bfloat16"}]) == ""  # the only type before it was named
    told = ledger.unlike([line, line, line | {"weights": "float32"}])
    assert told.startswith(
        "Weights were held 2 in bfloat16 and 1 in float32; each result is compared with the untrained"
    )
    shelf().add({"arm": "a"}, 1)
    assert shelf().lines[0]["weights"] == hardware().dtype


def test_the_rules_are_the_files_of_wishes_but_for_those_that_users_add(monkeypatch):
    read = []
    monkeypatch.setattr(ledger, "version_of_modules", lambda *names, without: read.extend(names) or without)
    without = ledger.rules()
    behind = set(steps.modules_behind(*read, without=without))
    rules = {f"mipo_nb.wishes.{file.stem}" for file in Path(wishes.__file__).parent.glob("[a-z]*.py")}
    assert behind - {"mipo_nb.preferences"} == rules - {"mipo_nb.wishes.own_kinds"}


@pytest.mark.parametrize("state", [None, {"commit": "0123", "dirty": True}])
def test_nothing_is_kept_that_no_commit_can_explain(shelf, monkeypatch, tmp_path, state):
    monkeypatch.setattr(ledger, "git_state", lambda: state)
    with pytest.raises(UserError, match="Commit the code first"):
        shelf().add({"arm": "a"}, 1)
    assert not (tmp_path / "results").exists()


def test_values_of_a_user_are_averaged_and_none_stays_none():
    assert ledger.of_users([1, 0, np.nan, 0.5, np.nan], ["b", "b", "a", "c", "c"]) == [None, 0.5, 0.5]


BASE = {"kept": [0.0, 0.5, 0.5, 1.0], "words": [10, 20, 30, 40], "misapplied": [0.0, None, 0.5, 0.0]}
TRAININGS = [
    {"kept": [0.5, 0.5, 1.0, 1.0], "words": [11, 22, 33, 44], "misapplied": [0.0, None, 0.5, 0.5]},
    {"kept": [0.0, 1.0, 1.0, 1.0], "words": [12, 20, 30, 40], "misapplied": [0.5, None, 0.5, 0.5]},
]


def test_gains_are_against_the_untrained_model_user_by_user():
    np.testing.assert_allclose(ledger.gains(BASE, TRAININGS, "kept"), [[0.5, 0, 0.5, 0], [0, 0.5, 0.5, 0]])
    np.testing.assert_allclose(
        ledger.gains(BASE, TRAININGS, "misapplied"), [[0, np.nan, 0, 0.5], [0.5, np.nan, 0, 0.5]]
    )


def test_changes_are_points_and_words_and_leave_out_views_that_are_not_there():
    found = ledger.changes(BASE, TRAININGS, ("kept", "words", "misapplied", "echo"))
    assert list(found) == ["kept", "words", "misapplied"]
    assert found["kept"].value == pytest.approx(25) and found["words"].value == pytest.approx(1.5)
    assert found["misapplied"].value == pytest.approx(25) and found["misapplied"].n == 3
    assert found["kept"] == statistics.over_seeds(ledger.gains(BASE, TRAININGS, "kept") * 100, unit=100)
    assert ledger.levels(BASE, ("kept", "words")) == {"kept": 50, "words": 25}


def test_a_view_of_few_users_or_none_stops_no_page():
    rng, kind = np.random.default_rng(0), np.arange(24) % 12
    base = {
        "users": list(range(24)),
        "kept": rng.random(24),
        "misapplied": [0.5] * 10 + [None] * 14,
        "echo": [None] * 24,
    }
    trainings = [{**base, "kept": rng.random(24)} for _ in range(3)]
    found = ledger.changes(base, trainings, ("kept", "misapplied", "echo"), strata=np.eye(12)[kind])
    assert set(found) == {"kept", "misapplied"} and found["misapplied"].n == 10


def test_kinds_are_those_that_users_wished_in_the_order_of_their_ids():
    wish = lambda *kinds: [{"text": "", "kind": kind, "value": None} for kind in kinds]  # noqa: E731
    rows = [
        {"user_id": user, "preferences": wish(*kinds)}
        for user, kinds in (
            ("b", ["in_french"]),
            ("a", ["in_german"]),
            ("c", ["in_german", None]),
            ("d", []),
            ("a", []),
        )
    ]
    rows[-1]["preferences"] = rows[1]["preferences"]
    np.testing.assert_array_equal(ledger.wished_kinds(rows), [[0, 1], [1, 0], [0, 1], [0, 0]])
    assert ledger.wished_kinds(rows[:2]) is None  # two users and two kinds: nothing left to tell chance by
    assert ledger.wished_kinds([{"user_id": "a", "preferences": []}]) is None


def test_trainings_are_compared_seed_by_seed_whatever_seeds_an_arm_lacks():
    ours, theirs = [
        [{"seed": k, "of": (arm, k)} for k in seeds] for arm, seeds in (("a", (0, 1, 3, 4)), ("b", (4, 2, 1)))
    ]
    first, second = ledger.same_seeds(ours, theirs)
    assert [each["of"] for each in first] == [("a", 1), ("a", 4)]
    assert [each["of"] for each in second] == [("b", 1), ("b", 4)]
    assert ledger.same_seeds(ours, []) == [[], []]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_untrained_model_is_measured_again_where_a_training_is_lacking_and_now_is_otherwise(
    shelf, monkeypatch, dtype
):
    monkeypatch.setattr(ledger, "hardware", lambda: SimpleNamespace(dtype=dtype))
    untrained, training = {"negative": None, "draws": 4}, {"negative": "another", "draws": 2}
    wanted, took = [(untrained, {"seed": 0}), *((training | {"seed": seed}, {"seed": seed}) for seed in (0, 1))], []

    class Step:
        def arrivals(self, name, function, grid, **common):
            yield from ((number, took.append(each) or "value") for number, each in enumerate(grid))

    def completed(lines):
        took.clear()
        shelf().complete(lines, None, step=Step())
        return len(took)

    assert (
        completed(wanted[:2]) == 2 and shelf().lines[0]["key"] == untrained
    )  # the first of its kind has the plain key
    assert completed(wanted) == 1  # the untrained model is known as it is measured now
    monkeypatch.setattr(ledger, "rules", lambda: "0" * 16)
    assert completed(wanted) == 0  # nothing to compare it with
    assert completed([wanted[0], (training | {"seed": 2}, {"seed": 2})]) == 2
    by_now = {"rules": "0" * 16} | ({"weights": "float32"} if dtype == "float32" else {})
    assert shelf().lines[-2]["key"] == untrained | by_now
    assert completed([wanted[0], (training | {"seed": 3}, {"seed": 3})]) == 1
    monkeypatch.setattr(ledger, "hardware", lambda: SimpleNamespace(dtype="float16"))
    assert completed([wanted[0], (training | {"seed": 4}, {"seed": 4})]) == 2
