"""Stories, poems, letters and dialogues: who is asked what, what is measured of it, and how kept trainings are found."""

import json
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from mipo_nb import evaluation, generation, models, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.lab import ledger, settings
from mipo_nb.lab.store import Steps
from mipo_nb.paper import diversity
from mipo_nb.studies import arms, creative
from mipo_nb.studies.arms import Arm

ARM, NAME = Arm("random_context", 4e-4, 8, 1), "43_creative_and_open_ended"
FLOOR = Arm("missing_context", 0.0, pairs=0, method="told nothing")


@pytest.fixture
def s():
    return settings.resolve("smoke", NAME, n_measured=4)


@pytest.fixture(scope="module")
def everybody():
    return creative.people(settings.resolve("evidence", NAME))


class Encoder:
    """Unit vectors that depend on the texts alone."""

    def encode(self, texts):
        vectors = np.array([np.random.default_rng(list(text.encode())).normal(size=8) for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- who is asked what ---


def test_prompts_come_by_kind_and_no_split_shares_one():
    splits = [creative.creative_prompts(split) for split in ("train", "test")]
    for found in splits:
        assert tuple(found) == creative.KINDS and all(len(texts) == 6 for texts in found.values())
    train, test = ({p for texts in found.values() for p in texts} for found in splits)
    assert not train & test


def test_everybody_gets_one_prompt_of_each_kind_and_shares_it_with_a_group(everybody):
    rows = creative.asked(everybody)
    assert len({person["user_id"] for person in everybody}) == len(everybody) == 124
    assert Counter((row["user_id"], row["kind"]) for row in rows) == {
        (person["user_id"], kind): 1 for person in everybody for kind in creative.KINDS
    }
    sizes = Counter(row["prompt"] for row in rows)
    assert len(sizes) == 18 and set(sizes.values()) == {20, 21}
    by_user = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row["prompt"])
    assert len(set(map(tuple, by_user.values()))) == 6  # a group shares all three


@pytest.mark.parametrize(("n", "groups"), [(2, 1), (5, 2), (12, 6), (13, 6)])
def test_nobody_is_alone_in_a_group(everybody, n, groups):
    sizes = Counter(row["prompt"] for row in creative.asked(everybody[:n]))
    assert len(sizes) == 3 * groups and min(sizes.values()) >= 2


def test_one_user_cannot_be_compared(everybody):
    with pytest.raises(UserError, match="set n_measured to 2 or more"):
        creative.asked(everybody[:1])


def test_who_is_told_nothing_is_asked_the_same_with_the_same_luck(everybody, s):
    calls = []
    for told in (True, False):
        creative.written(
            "m", "t", creative.asked(everybody[:4]), s, step=lambda *a, **k: calls.append((a, k)), told=told
        )
    assert [k["seeds"] for _, k in calls] == [[51, 52], [51, 52]]
    with_context, without = calls[0][0][4], calls[1][0][4]
    for row, one, other in zip(creative.asked(everybody[:4]), with_context, without, strict=True):
        assert one[-1] == other[-1] and row["context"] in one[0]["content"]
        assert other == prompts.messages(row["prompt"])


# --- dialogues ---


def test_over_a_full_round_every_message_stands_at_every_turn_equally_often():
    made = creative.scripts(60, 5)
    assert Counter((turn, m) for script in made for turn, m in enumerate(script)).most_common(1)[0][1] == 1
    assert all(len(set(script)) == 5 for script in made)
    assert len({m for script in made for m in script}) == 60
    assert [script[:3] for script in made] == creative.scripts(60, 3)


def test_a_user_has_dialogues_on_different_themes(everybody):
    talking, scripts = creative.dialogues(everybody, settings.resolve("evidence", NAME))
    assert Counter(person["user_id"] for person in talking) == {person["user_id"]: 3 for person in everybody}
    for k in range(0, len(scripts), 3):
        assert len({message for script in scripts[k : k + 3] for message in script}) == 15
    how_often = Counter((turn, m) for script in scripts for turn, m in enumerate(script)).values()
    assert (min(how_often), max(how_often)) == (6, 7)


@pytest.mark.parametrize("turns", [1, 6])
def test_a_dialogue_repeats_no_message_and_has_more_than_one(turns):
    with pytest.raises(UserError, match="set n_turns"):
        creative.scripts(3, turns)


def test_each_turn_reads_all_that_was_said_and_the_context_once():
    seen = []

    def respond(turn, conversations):
        seen.append(conversations)
        return [f"reply {turn} to {c[-1]['content']}" for c in conversations]

    replies = creative.roll(respond, ["Ada keeps bees.", None], [["a?", "b?", "c?"], ["x?", "y?", "z?"]])
    assert replies == [
        ["reply 0 to a?", "reply 1 to b?", "reply 2 to c?"],
        ["reply 0 to x?", "reply 1 to y?", "reply 2 to z?"],
    ]
    assert seen[0] == [prompts.messages("a?", "Ada keeps bees."), prompts.messages("x?")]
    last = seen[2][0]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in last[1:]] == ["a?", "reply 0 to a?", "b?", "reply 1 to b?", "c?"]
    assert [sum("bees" in m["content"] for m in c) for c in seen[2]] == [1, 0]


def test_fewer_replies_than_dialogues_are_not_taken():
    with pytest.raises(ValueError):
        creative.roll(lambda turn, c: ["one"], ["A.", "B."], [["a?"], ["b?"]])


def test_phrases_that_an_earlier_reply_has_are_counted():
    found = creative.repeated_from_before(
        [
            ["one two three four five", "ONE two three four six", "two three four six seven"],
            ["a b", "", "new words stand here now"],
        ]
    )
    assert np.isnan(found[:, 0]).all()
    assert found[0, 1:] == pytest.approx([0.5, 0.5])  # 1-2-3-4 of two; 2-3-4-6, said in the second, of two
    assert found[1, 1:] == pytest.approx([0, 0])


@pytest.mark.parametrize("turns", [2, 5])
def test_a_line_has_its_slope_and_a_constant_none(turns):
    lines = np.array([[3.0], [-0.5], [0.0]]) * np.arange(turns) + 7
    assert creative.slope(lines) == pytest.approx([3, -0.5, 0])
    assert creative.slope(lines[None]).shape == (1, 3)


# --- what is measured ---


def obeying(row):
    """A text that keeps those of the user's wishes that are named here, and no other rule's."""
    kinds = {p["kind"] for p in row["preferences"]}
    if "numbered_list" in kinds:
        return "1. A kettle sings.\n2. A door opens.\n3. The rain stops."
    if "ends_with_question" in kinds:
        return "A kettle sang in the rain. Would you like more of it?"
    return "A kettle sang in the rain."


def drawn(texts):
    return Dataset.from_dict({"text": texts, "finished": [True] * len(texts)})


def test_texts_are_judged_as_the_main_job_judges_answers(everybody):
    rows = creative.asked(everybody[:20])
    draws = [drawn([obeying(row) for row in rows]), drawn(["A kettle sang in the rain."] * len(rows))]
    found, whole = creative.of_texts(rows, draws, Encoder()), evaluation.measured(rows, draws)
    owners = [row["user_id"] for row in rows]
    for view in (creative.MAIN, creative.EVERYONE, *creative.PRICES[1:]):
        assert found[view] == pytest.approx(ledger.of_users(whole[view], owners), abs=1e-4)
    assert np.mean(found[creative.MAIN]) > 0.1
    of_kinds = [np.mean(found[f"{kind}: {creative.MAIN}"]) for kind in creative.KINDS]
    assert of_kinds == pytest.approx([np.mean(found[creative.MAIN])] * 3, abs=1e-3)  # each kind kept as many


def test_what_everybody_gets_is_for_nobody(everybody):
    rows = creative.asked(everybody[:20])
    said = [drawn(["A kettle sang in the rain. Would you like more of it?"] * len(rows))] * 2
    found = creative.of_texts(rows, said, Encoder())
    assert np.mean(found[creative.MAIN]) == pytest.approx(0, abs=1e-3)
    assert np.mean(found[creative.EVERYONE]) > 0.1


def test_spread_is_taken_within_a_prompt(everybody):
    rows, encoder = creative.asked(everybody[:6]), Encoder()  # three groups of two
    texts = [[f"text {k} of {i}" for i in range(len(rows))] for k in range(2)]
    found = creative.spreads(rows, [drawn(some) for some in texts], encoder)
    known = list(dict.fromkeys(row["prompt"] for row in rows))
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(creative.SPREADS, len(known))
    own = [i for i, row in enumerate(rows) if row["prompt"] == known[1]]
    between = np.mean([diversity.spread(encoder.encode([some[i] for i in own])) for some in texts])
    assert found["spread between users"][1] == pytest.approx(between, abs=1e-4)
    draws = np.mean([diversity.spread(encoder.encode([some[i] for some in texts])) for i in own])
    assert found["spread between draws"][1] == pytest.approx(draws, abs=1e-4)
    assert creative.spreads(rows, [drawn(texts[0])], encoder)["spread between draws"] == [None] * len(known)


def test_a_text_that_says_its_prompt_answers_it(everybody):
    rows = creative.asked(everybody[:8])
    own, others = [row["prompt"] for row in rows], [row["prompt"] for row in rows[::-1]]
    assert creative.answered(rows, [drawn(own)], Encoder()).tolist() == [1.0] * len(rows)
    assert creative.answered(rows, [drawn(own), drawn(others)], Encoder()).tolist() == [0.5] * len(rows)


def test_replies_are_judged_turn_by_turn(everybody, s):
    talking, scripts = creative.dialogues(everybody[:40], s)
    replies = [["A kettle sang in the rain.", obeying(person), "A kettle sang in the rain."] for person in talking]
    found = creative.of_replies(talking, scripts, replies)
    first, second, third = (np.mean(values) for values in found[creative.BY_TURN])
    assert second > 0.1 and first == third == pytest.approx(0)
    assert all(len(values) == 40 for values in found[creative.BY_TURN])
    repeated = creative.repeated_from_before(replies)[:, 1:].mean(1)
    by_user = ledger.of_users(repeated, [person["user_id"] for person in talking])
    assert found[creative.SAID_BEFORE] == pytest.approx(by_user, abs=1e-4) and np.mean(by_user) > 0.5


# --- what is kept ---


def step(name, function, model, tokenizer, conversations, sampling, *, seed=None, seeds=()):
    """In place of sampling: models are numbers, and a text tells which model was asked what with which luck."""
    if function is generation.sample_draws:
        return [step(name, generation.sample, model, tokenizer, conversations, sampling, seed=each) for each in seeds]
    assert function is generation.sample
    return drawn([f"{model} {seed} heard {len(c[0]['content'])} and {len(c)} turns." for c in conversations])


def trained_to(model, tokenizer, arm, s, *, seed, step):
    """In place of `arms.trained`: the adapter is the number that the trained model shall be."""
    log = [{"rewards/margins": s.beta * k} for k in range(8)]
    return {"adapter": seed, "log": log, "pairs": range(5)}


@pytest.fixture
def measured(s, monkeypatch):
    monkeypatch.setattr(models, "with_adapter", lambda model, adapter, name: adapter)
    monkeypatch.setattr(creative, "SentenceEncoder", lambda device: Encoder())
    return lambda arm, seed=0: creative.measured_training(0, None, arm, s, seed=seed, step=step, train=trained_to)


def test_a_training_that_changes_nothing_measures_as_the_untrained_model(measured):
    base, same, other = measured(None), measured(ARM, 0), measured(ARM, 1)
    assert set(base) == {"views"} and (same["pairs"], same["margin"]) == (5, 5.0)
    assert base["views"] == same["views"] != other["views"]
    floor = measured(FLOOR)
    assert set(floor) == {"views"} and floor["views"] != base["views"]


def test_kept_lines_come_back_as_they_were(s, measured, monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "project_root", lambda: tmp_path)
    monkeypatch.setattr(ledger, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
    control = arms.control_of(ARM)
    for arm, seed in [(None, 0), (FLOOR, 0), (ARM, 1), (control, 0), (ARM, 0)]:
        place = arms.key(arm, s, seed=seed, split="test", draws=s.draws)
        ledger.Ledger("creative").add(place | {"dialogues": s.n_dialogues, "turns": s.n_turns}, measured(arm, seed))
    base, kept = arms.of_ledger(ledger.Ledger("creative"), s, "test")
    assert base == measured(None)["views"] and set(kept) == {FLOOR, ARM, control}
    assert kept[ARM] == [{"seed": seed, **measured(ARM, seed)["views"]} for seed in (0, 1)]
    assert ledger.gains(base, kept[ARM], creative.BY_TURN).shape == (2, s.n_turns, s.n_measured)


def test_a_line_of_the_evidence_holds_little(everybody):
    """Each user has a value for each view and turn; they take at most this many characters."""
    evidence = settings.resolve("evidence", NAME)
    views = 2 + len(creative.PRICES) + len(creative.KINDS) + 1 + evidence.n_turns
    assert views * len(everybody) * len("-12.1234, ") + len(json.dumps([p["user_id"] for p in everybody])) < 25_000


def test_the_arms_of_the_evidence_are_those_of_the_main_job():
    laptop, evidence = (settings.resolve(p, NAME) for p in ("laptop", "evidence"))
    main = settings.resolve("evidence", "12_measuring_personalization")
    keys = [arms.key(ARM, s, seed=0, split="test", draws=2) for s in (laptop, evidence, main)]
    differing = {name for key in keys for name in key if key[name] != keys[1][name]}
    assert differing == {"n_measured", "n_others"}  # who is measured, and nothing of how it is trained
    assert evidence.kept_seeds == list(range(8)) and not laptop.kept_seeds
    numbers = (laptop.negative, laptop.learning_rate, laptop.n_pairs, laptop.epochs)
    assert numbers == ("random_context", 4e-4, 112, 1)


@pytest.mark.model
def test_a_training_is_measured_with_a_real_model(model_and_tokenizer, tmp_path):
    s = settings.resolve("smoke", NAME, n_measured=4)
    how = {"seed": 0, "step": Steps(tmp_path / "steps"), "train": arms.trained}
    base = creative.measured_training(*model_and_tokenizer, None, s, **how)["views"]
    value = creative.measured_training(*model_and_tokenizer, ARM, s, **how)
    assert base["users"] == value["views"]["users"] and 0 < value["pairs"] <= 8
    assert json.loads(json.dumps(value)) == value and base.keys() == value["views"].keys()
    again = creative.measured_training(*model_and_tokenizer, None, s, **how)["views"]
    assert again == base
