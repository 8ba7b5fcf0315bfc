"""The project's own users and prompts: enough of them, told apart, spread evenly, and not written from a template."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mipo_nb.preferences import KINDS, checkable, words

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
    assert len(users) >= 240 and len(prompts) >= 80
    assert {u["split"] for u in users} == {p["split"] for p in prompts} == SPLITS


def test_rows_have_the_documented_columns(users, prompts):
    assert {tuple(sorted(u)) for u in users} == {
        ("context", "name", "preferences", "split", "standing_wish", "user_id")
    }
    assert {tuple(sorted(p)) for p in prompts} == {("prompt", "prompt_id", "split")}
    assert {tuple(sorted(p)) for u in users for p in u["preferences"]} == {("kind", "text", "value")}
    texts = [u["context"] for u in users] + [p["text"] for u in users for p in u["preferences"]]
    assert all(t and t == t.strip() for t in texts + [p["prompt"] for p in prompts])


def test_standing_wishes_of_a_kind_are_worded_alike(users):
    """One wording a kind, once the name and the number of words are taken out."""
    wordings = {}
    for user in users:
        kind, value = next((p["kind"], p["value"]) for p in user["preferences"] if p["kind"])
        wish = user["standing_wish"].removeprefix(user["name"])
        wordings.setdefault(kind, set()).add(wish.replace(str(value), "N") if value else wish)
    assert all(len(w) == 1 for w in wordings.values()) and len(wordings) == 16


@pytest.mark.parametrize("column", ["user_id", "name", "context"])
def test_users_are_unique_and_so_in_one_split_only(users, column):
    most = Counter(u[column].casefold() for u in users).most_common(1)[0]
    assert most[1] == 1, most


@pytest.mark.parametrize("column", ["prompt_id", "prompt"])
def test_prompts_are_unique_and_so_in_one_split_only(prompts, column):
    most = Counter(" ".join(words(p[column].casefold())) for p in prompts).most_common(1)[0]
    assert most[1] == 1, most


def test_the_context_speaks_of_its_user(users):
    assert [u["user_id"] for u in users if u["name"] not in u["context"]] == []


def test_every_user_has_a_checkable_preference_of_a_known_kind(users):
    assert [u["user_id"] for u in users if not checkable(u["preferences"])] == []
    assert set(kinds(users, *SPLITS)) == set(KINDS)


def test_no_user_has_a_kind_twice(users):
    for user in users:
        found = [p["kind"] for p in checkable(user["preferences"])]
        assert len(found) == len(set(found)), user["user_id"]


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_seen_kinds_are_spread_evenly(users, split):
    counts = kinds(users, split)
    seen = [counts[kind] for kind, entry in KINDS.items() if entry.seen]
    assert min(seen) > 0
    assert max(seen) - min(seen) <= 1


def test_unseen_kinds_occur_among_test_users_only(users):
    unseen = {kind for kind, entry in KINDS.items() if not entry.seen}
    trained, tested = set(kinds(users, "train", "dev")), set(kinds(users, "test"))
    assert tested - trained == unseen
    assert len(unseen) >= 3


def test_values_fit_their_kind(users):
    for user in users:
        for preference in user["preferences"]:
            if preference["kind"] == "at_most_words":
                assert type(preference["value"]) is int and 10 <= preference["value"] <= 100, user["user_id"]
                assert str(preference["value"]) in words(user["context"]), user["user_id"]
            else:
                assert preference["value"] is None, user["user_id"]


def test_contexts_are_not_written_from_a_template(users):
    where = defaultdict(set)
    for user in users:
        found = [w.casefold() for w in words(user["context"])]
        for at in range(len(found) - 5):
            where[" ".join(found[at : at + 6])].add(user["user_id"])
    run, ids = max(where.items(), key=lambda item: len(item[1]))
    assert len(ids) <= 4, (run, sorted(ids))


def test_contexts_fit_a_system_message(users):
    lengths = [len(words(u["context"])) for u in users]
    assert min(lengths) >= 12 and max(lengths) <= 90


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


def test_people_without_wishes_are_strangers_who_ask_test_prompts_and_have_no_preference(users, prompts):
    people = rows("people_without_wishes.jsonl")
    assert {tuple(sorted(p)) for p in people} == {("context", "name", "prompt", "split", "user_id")}
    for column in ("user_id", "name", "context"):
        assert len({p[column] for p in people}) == len(people) == 24
        assert not {p[column] for p in people} & {u[column] for u in users}
    tested = {p["prompt"] for p in prompts if p["split"] == "test"}
    assert {p["prompt"] for p in people} <= tested and {p["split"] for p in people} == {"test"}
    for person in people:
        assert person["name"] in person["context"]
        assert not {"answer", "answers", "reply", "replies", "wants", "likes", "prefers"} & set(
            words(person["context"])
        )
