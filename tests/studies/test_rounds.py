"""Rounds in two worlds: what a walk learns from and is tested on, what is silent, and what several walks say."""

import json

import numpy as np
import pytest

from mipo_nb import models, preferences
from mipo_nb.lab import ledger, settings
from mipo_nb.lab.store import Steps
from mipo_nb.studies import rounds, walks
from mipo_nb.verifiable import grading

NAME, WORLDS = "41_two_ceilings", ("people", "sums")


@pytest.fixture(scope="module")
def s():
    return settings.resolve("smoke", NAME)


@pytest.fixture(scope="module")
def evidence():
    return settings.resolve("evidence", NAME)


# --- what a walk learns from, and is tested on ---


@pytest.mark.parametrize("world", WORLDS)
def test_training_and_test_rows_share_no_prompt_and_the_next_seed_exchanges_them(world, evidence):
    for seed in (0, 3, 101):
        (own, tested), (others, next_tested) = (rounds.sheet(world, evidence, k) for k in (seed, seed ^ 1))
        assert not {rounds.text(row) for row in own} & {rounds.text(row) for row in tested}
        assert own == next_tested[: len(own)] and others == tested[: len(others)]
        assert len(tested) == evidence.n_test


@pytest.mark.parametrize("world", WORLDS)
def test_no_row_is_tested_by_two_kept_walks(world, evidence):
    """So that walks are independent; of people, no user is."""
    kept = [rounds.sheet(world, evidence, seed)[1] for seed in range(2 * rounds.SHEETS)]
    tested = [row["user_id"] if world == "people" else row["question"] for rows in kept for row in rows]
    assert len(tested) == len(set(tested)) == 8 * evidence.n_test
    again = {rounds.text(row) for row in rounds.sheet(world, evidence, 2 * rounds.SHEETS)[1]}
    assert again != {rounds.text(row) for row in kept[0]}  # another shuffle


def test_worked_examples_are_no_rows(evidence):
    shown = {row["question"] for row in rounds.exemplars(evidence)}
    for seed in range(8):
        assert not shown & {rounds.text(row) for part in rounds.sheet("sums", evidence, seed) for row in part}


@pytest.mark.parametrize("world", WORLDS)
def test_the_rejected_side_is_asked_another_thing_in_the_same_frame(world, evidence):
    rows = rounds.sheet(world, evidence, 0)[0]
    own, others = rounds.asked(world, rows, evidence), rounds.against(world, rows, evidence, seed=3)
    assert others == rounds.against(world, rows, evidence, seed=3) != rounds.against(world, rows, evidence, seed=4)
    for mine, other in zip(own, others, strict=True):
        differing = [a["content"] != b["content"] for a, b in zip(mine, other, strict=True)]
        assert differing == ([True, False] if world == "people" else [False] * (len(mine) - 1) + [True])


# --- what is right ---


def test_of_people_the_wishes_count_that_telling_back_cannot_keep(evidence):
    rows = rounds.sheet("people", evidence, 0)[1]
    told = rounds.credit("people", rows, [row["wish"] for row in rows])
    alike = {k for k, row in enumerate(rows) if not any(preferences.proven(p["kind"], rows) for p in preferences.checkable(row["preferences"]))}  # fmt: skip
    assert {k for k, value in enumerate(told) if np.isnan(value)} == alike and len(alike) < len(rows) / 2
    assert np.nanmean(told) < 0.1
    wisher = next(row for row in rows if any(p["kind"] == "numbered_list" for p in row["preferences"]))
    proof = [p["kind"] for p in preferences.checkable(wisher["preferences"]) if preferences.proven(p["kind"], rows)]
    right = rounds.credit("people", [wisher], ["1. Walk.\n2. Read.\n3. Sleep."])[0]
    assert right >= 1 / len(proof) and rounds.credit("people", [wisher], ["Walk and read."])[0] < right


def test_of_sums_the_right_answer_counts(s):
    rows = rounds.sheet("sums", s, 0)[1]
    texts = [f"The answer is {row['answer']}." for row in rows[:-1]] + ["The answer is 9999."]
    assert rounds.credit("sums", rows, texts).tolist() == [1.0] * (len(rows) - 1) + [0.0]


# --- what is silent ---


def test_a_pair_of_which_nothing_was_learned_weighs_a_half_and_a_learned_one_falls_silent():
    assert rounds.weights(0.0, 0.1) == 0.5
    margin = np.log(0.95 / 0.05) / 0.1  # where the weight is 0.05
    assert rounds.weights(margin, 0.1) == pytest.approx(rounds.SILENT)
    assert rounds.silent([0.0, margin - 0.1, margin + 0.1, 1e6], 0.1) == 0.5
    assert rounds.silent([-1e6, -margin], 0.1) == 0.0  # what is told apart the wrong way round teaches most
    assert rounds.silent([margin - 0.1], 0.2) == 1.0


# --- a walk ---


@pytest.fixture(scope="module")
def loaded(s):
    return models.load(s.model, **s.weights)


@pytest.fixture(scope="module")
def walked(loaded, s, tmp_path_factory):
    step = Steps(tmp_path_factory.mktemp("walks") / "steps")
    places = [("people", "control"), ("sums", "kept"), ("sums", "renewed"), ("people", "GRPO")]
    call = {"s": s, "seed": 0, "step": step}
    return {place: rounds.walk(*loaded, *place, **call) for place in places}, step


@pytest.mark.model
def test_a_walk_looks_before_the_first_round_and_after_each(walked, s):
    for (world, arm), walk in walked[0].items():
        assert len(walk["looks"]) == s.rounds + 1 and len(walk["rounds"]) == s.rounds
        assert json.loads(json.dumps(walk)) == walk
        for seen in walk["looks"]:
            assert all(len(seen[view]) == s.n_test for view in ("right in one", "right in four", *rounds.HEALTH))
            told = [value for value in seen["information"] if value is not None]
            assert len(told) == s.n_scored and max(told) <= np.log(s.n_candidates) + 1e-3
            assert (world == "sums") <= (None not in seen["right in one"])
        silent = {"GRPO": {"groups"}}.get(arm, {"start", "end", "pairs"})
        assert all(silent | {"right in training"} == set(told) for told in walk["rounds"])


@pytest.mark.model
def test_walks_of_a_world_begin_alike_and_part(walked):
    found, step = walked
    renewed, kept = found["sums", "renewed"], found["sums", "kept"]
    assert (
        renewed["looks"][0] == kept["looks"][0] and renewed["rounds"][0] == kept["rounds"][0]
    )  # one and the same round
    assert sum(taken["found"] for taken in step.taken if taken["name"] == "training") == 1
    assert renewed["looks"][1] == kept["looks"][1] != renewed["looks"][0]
    assert renewed["rounds"][1]["start"] == 0.0  # the reference is the policy itself


@pytest.mark.model
def test_a_pair_whose_sides_claim_one_number_is_left_out(loaded, s, tmp_path):
    rows = rounds.sheet("sums", s, 0)[0]
    made, right = rounds.preferred(*loaded, "sums", rows, s, seed=5, step=Steps(tmp_path / "steps"))
    assert 0 <= right <= 1 and 0 < len(made) <= s.n_pairs
    for pair in made:
        row = rows[int(pair["pair_id"].rpartition("-")[2]) % len(rows)]
        claims = [grading.read(row, pair[side][-1]["content"]).value for side in ("chosen", "rejected")]
        assert claims[0] is None or claims[0] != claims[1]
        assert pair["prompt"] == rounds.asked("sums", [row], s)[0]


# --- what several walks say ---


def made(*right, silent=(0.0, 0.5)):
    """A walk with these values of right in one at its looks, [looks][rows]."""
    looks = [{"right in one": list(some), "information": [0.5 * k for _ in some]} for k, some in enumerate(right)]
    return {"looks": looks, "rounds": [{"start": share, "end": share} for share in silent]}


def test_several_walks_are_their_own_errors_and_one_has_its_rows():
    some = {seed: made([0, 0, None], [gain, gain, None], [gain, 1, None]) for seed, gain in enumerate((0.0, 0.25, 1.0))}
    found = walks.change(some, "right in one", later=1)
    assert found.value == pytest.approx(100 * np.mean([0, 0.25, 1])) and found.n == 3
    assert found.se == pytest.approx(100 * np.std([0, 0.25, 1], ddof=1) / np.sqrt(3))
    alone = walks.change({0: some[1]}, "right in one")
    assert (alone.value, alone.n) == (pytest.approx(62.5), 2)
    assert walks.change(some, "information", earlier=1).value == pytest.approx(0.5)  # in nats, not in points
    assert walks.change(some, "start").value == 50.0 and walks.course(some[0], "start").tolist() == [0, 50]


def test_arms_are_compared_by_the_seeds_that_both_have():
    ours = {seed: made([0.0], [0.5 + seed / 8]) for seed in (0, 1, 2)}
    theirs = {seed: made([0.0], [seed / 8]) for seed in (1, 2, 7)}
    found = walks.minus(ours, theirs, "right in one")
    assert (found.value, found.n) == (pytest.approx(50.0), 2)
    assert walks.minus(ours, {9: ours[0]}, "right in one") is None


def test_a_round_without_a_training_is_left_out():
    some = {0: made([0.0], silent=(0.0, None)), 1: made([0.0], silent=(0.0, 1.0))}
    assert walks.mean_course(some, "start").tolist() == [0.0, 100.0]
    assert walks.change(some, "start").n == 1 and np.isnan(walks.course(some[0], "start")[1])
    assert walks.change({0: some[0]}, "start") is None


def test_a_kept_walk_comes_back_as_it_was(s, monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "project_root", lambda: tmp_path)
    monkeypatch.setattr(ledger, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
    places = [("sums", "kept", 1), ("people", "renewed", 0), ("sums", "kept", 0)]
    for number, (world, arm, seed) in enumerate(places):
        ledger.Ledger("rounds").add(walks.key(world, arm, s, seed=seed), made([number / 4]))
    found = walks.of_ledger(ledger.Ledger("rounds"), s)
    assert found == {"sums": {"kept": {0: made([0.5]), 1: made([0.0])}}, "people": {"renewed": {0: made([0.25])}}}
    assert list(found["sums"]["kept"]) == [0, 1]
    unlike = settings.resolve("smoke", NAME, group=4)
    assert walks.of_ledger(ledger.Ledger("rounds"), unlike) == {}


def test_the_laptop_shows_the_kept_walks_and_grpo_gets_as_many_responses(evidence):
    laptop = settings.resolve("laptop", NAME)
    assert walks.key("sums", "kept", laptop, seed=0) == walks.key("sums", "kept", evidence, seed=0)
    assert 2 * evidence.n_pairs % evidence.responses == 0 and evidence.responses % evidence.group == 0
    assert evidence.n_pairs % evidence.n_people == evidence.n_pairs % evidence.n_problems == 0
    assert evidence.n_scored >= evidence.n_candidates and set(evidence.kept_walks) == set(rounds.ARMS)
    assert {evidence.learning_rate, evidence.final_rate, evidence.warmup} == {4e-4, 1.0, 0.0}
    assert max(evidence.kept_walks.values()) <= 2 * rounds.SHEETS
