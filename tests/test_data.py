"""The project's own users and prompts: enough of them, told apart, spread evenly, and not written from a template."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mipo_nb.preferences import KINDS, checkable, keeps, words

DATA = Path(__file__).resolve().parent.parent / "data"
SPLITS = {"train", "dev", "test"}


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def users():
    return rows("users.jsonl")


@pytest.fixture(scope="module")
def prompts():
    return rows("prompts.jsonl")


@pytest.fixture(scope="module")
def creative():
    return rows("creative.jsonl")


@pytest.fixture(scope="module")
def dialogues():
    return rows("dialogues.jsonl")


def kinds(users, *splits):
    return Counter(p["kind"] for u in users if u["split"] in splits for p in checkable(u["preferences"]))


def test_there_are_enough_and_each_split_has_some(users, prompts):
    assert Counter(u["split"] for u in users) == {"train": 284, "dev": 60, "test": 124}
    assert len(prompts) >= 80 and {p["split"] for p in prompts} == SPLITS


def test_rows_have_the_documented_columns(users, prompts):
    assert {tuple(sorted(u)) for u in users} == {("biography", "name", "preferences", "split", "user_id")}
    assert {tuple(sorted(p)) for p in prompts} == {("prompt", "prompt_id", "split")}
    assert {tuple(sorted(p)) for u in users for p in u["preferences"]} == {("kind", "text", "value")}
    texts = [u["biography"] for u in users] + [p["text"] for u in users for p in u["preferences"]]
    assert all(t and t == t.strip() for t in texts + [p["prompt"] for p in prompts])


def without_name(user, text):
    return text.replace(user["name"], "N")


def test_wishes_of_a_kind_have_several_wordings_and_test_users_others_than_training(users):
    wordings = defaultdict(set)
    for user in users:
        for wish in user["preferences"]:
            wordings[wish["kind"], user["split"]].add(without_name(user, wish["text"]))
    for kind, split in wordings:
        assert len(wordings[kind, split]) >= (2 if split == "dev" else 3), (kind, split)
        others = set.union(*(wordings.get((kind, other), set()) for other in SPLITS - {split}))
        assert not wordings[kind, split] & others


@pytest.mark.parametrize("column", ["user_id", "name", "biography"])
def test_users_are_unique_and_so_in_one_split_only(users, column):
    most = Counter(u[column].casefold() for u in users).most_common(1)[0]
    assert most[1] == 1, most


@pytest.mark.parametrize("column", ["prompt_id", "prompt"])
def test_prompts_are_unique_and_so_in_one_split_only(prompts, column):
    most = Counter(" ".join(words(p[column].casefold())) for p in prompts).most_common(1)[0]
    assert most[1] == 1, most


def test_a_biography_speaks_of_its_user_and_keeps_no_wish(users):
    assert [u["user_id"] for u in users if u["name"] not in u["biography"]] == []
    for user in users:
        for wish in user["preferences"]:
            may = {
                "two_paragraphs",
                "one_sentence",
                "at_most_words",
                "at_least_words",
                "no_exclamation",
                "calls_by_name",
            }
            assert wish["kind"] in may or not keeps(user["biography"], wish, user["name"]), user["user_id"]


def test_every_user_has_two_wishes_of_different_families(users):
    for user in users:
        families = [KINDS[p["kind"]].family for p in user["preferences"]]
        assert len(families) == len(set(families)) == 2, user["user_id"]


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_kinds_are_spread_evenly_and_none_holds_more_than_a_tenth(users, split):
    counts = kinds(users, split)
    assert max(counts.values()) <= 0.1 * sum(counts.values())
    by_family = defaultdict(list)
    for kind, n in counts.items():
        by_family[KINDS[kind].family].append(n)
    assert all(max(found) - min(found) <= 1 for found in by_family.values()) and len(by_family) == 3


def test_kinds_that_training_users_do_not_wish_are_known_as_unseen(users):
    trained, tested = set(kinds(users, "train")), set(kinds(users, "test"))
    assert trained < tested == set(kinds(users, "dev"))
    assert tested - trained == {kind for kind, entry in KINDS.items() if not entry.seen}


def test_values_fit_their_kind_and_are_said(users):
    for user in users:
        for wish in user["preferences"]:
            if KINDS[wish["kind"]].value is None:
                assert wish["value"] is None, user["user_id"]
            else:
                assert str(wish["value"]) in words(wish["text"]), user["user_id"]


def test_biographies_are_not_written_from_a_template(users):
    where = defaultdict(set)
    for user in users:
        found = [w.casefold() for w in words(user["biography"])]
        for at in range(len(found) - 5):
            where[" ".join(found[at : at + 6])].add(user["user_id"])
    run, ids = max(where.items(), key=lambda item: len(item[1]))
    assert len(ids) <= 2, (run, sorted(ids))


def test_biographies_are_short(users):
    lengths = [len(words(u["biography"])) for u in users]
    assert min(lengths) >= 12 and max(lengths) <= 45


def test_a_probe_keeps_its_wish_and_its_twin_does_not(users, prompts):
    probes = rows("probes.jsonl")
    assert len(probes) >= 100 and set(Counter(p["kind"] for p in probes)) == set(kinds(users, "test"))
    assert {tuple(sorted(p)) for p in probes} == {("breaks", "keeps", "kind", "name", "probe_id", "prompt")}
    assert not {p["prompt"] for p in probes} & {p["prompt"] for p in prompts if p["split"] != "dev"}
    for probe in probes:
        wish = {"kind": probe["kind"], "value": KINDS[probe["kind"]].value}
        assert keeps(probe["keeps"], wish, probe["name"]), probe["probe_id"]
        assert not keeps(probe["breaks"], wish, probe["name"]), probe["probe_id"]


def test_the_rules_agree_with_two_readings_of_the_same_responses():
    labelled, right, all_ = rows("labelled.jsonl"), Counter(), Counter()
    assert len({row["id"] for row in labelled}) == 352
    assert Counter(row["model"] for row in labelled if row["sample"] == "random") == {"base": 100, "tuned": 100}
    for row in labelled:
        wishes = [wish["text"] for wish in row["wishes"]]
        for wish, first, second in zip(row["wishes"], *row["kept"], strict=True):
            all_[row["sample"]] += first == second
            right[row["sample"]] += first == second == keeps(row["response"], wish, row["name"], wishes)
    assert all_ == {"random": 398, "topics": 298}
    assert right["random"] / 398 > 0.95 and right["topics"] / 298 > 0.93


def test_prompts_for_others_name_the_wishes_that_must_not_act(prompts):
    others = rows("prompts_for_others.jsonl")
    assert [sum(o["split"] == split for o in others) for split in ("test", "train")] == [60, 30]
    assert {tuple(sorted(o)) for o in others} == {("must_not", "note", "prompt", "prompt_id", "split", "why")}
    assert all(o["must_not"] and set(o["must_not"]) <= set(KINDS) for o in others)
    assert not {o["prompt"] for o in others} & {p["prompt"] for p in prompts}


TELLING = {"list", "steps", "bullet", "dollars", "spanish", "french", "minutes", "hours", "example", "research"}


def test_prompts_leave_the_form_of_the_answer_open(prompts):
    assert [p["prompt"] for p in prompts if TELLING & set(words(p["prompt"].casefold()))] == []


def messages(dialogues):
    return [message for d in dialogues for message in d["turns"]]


def test_creative_prompts_and_dialogues_have_the_documented_columns(creative, dialogues):
    assert {tuple(sorted(c)) for c in creative} == {("kind", "prompt", "prompt_id", "split")}
    assert Counter((c["split"], c["kind"]) for c in creative) == {
        (split, kind): 6 for split in ("train", "test") for kind in ("story", "poem", "letter")
    }
    assert {tuple(sorted(d)) for d in dialogues} == {("dialogue_id", "split", "theme", "turns")}
    assert {(d["split"], len(d["turns"])) for d in dialogues} == {("test", 5)}
    assert len({d["theme"] for d in dialogues}) == len({d["dialogue_id"] for d in dialogues}) == 12


def test_nothing_that_is_asked_is_asked_twice(prompts, creative, dialogues):
    asked = [p["prompt"] for p in prompts] + [c["prompt"] for c in creative] + messages(dialogues)
    most = Counter(" ".join(words(a.casefold())) for a in asked).most_common(1)[0]
    assert most[1] == 1, most
    assert all(a and a == a.strip() for a in asked)


def test_creative_prompts_and_messages_say_nothing_of_a_user_or_a_wish(users, creative, dialogues):
    asked = [c["prompt"] for c in creative] + messages(dialogues)
    assert [a for a in asked if TELLING & set(words(a.casefold()))] == []
    named = {u["name"] for u in users}
    assert [a for a in asked if named & set(words(a))] == []
