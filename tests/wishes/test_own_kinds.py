"""Kinds of wishes that somebody adds: patterns in a file of users, kinds in a file of rules."""

import json
import time
from pathlib import Path

import pytest

from mipo_nb import evaluation, preferences, sources
from mipo_nb.base.errors import UserError
from mipo_nb.preferences import KINDS, Response
from mipo_nb.wishes import own_kinds

RULES = """
from mipo_nb.preferences import Kind
KINDS = {"speaks_of_km": Kind(lambda r, _: "km" in r.answer, "words", "speaks of km", ("It is 3 km.",), ("Far.",))}
"""


@pytest.fixture
def rules(tmp_path):
    def written(text):
        (tmp_path / "my_rules.py").write_text(text)
        return tmp_path / "my_rules.py"

    yield written
    preferences.add_kinds(None)


def row(preference, **more):
    return {"user_id": "a", "context": "Ada walks.", "prompt": "Where to?", "preferences": [preference], **more}


def read(tmp_path, *rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return sources.read_jsonl(tmp_path / "rows.jsonl", ("prompt", "context", "user_id"))


@pytest.mark.parametrize(
    ("written", "kind", "value"),
    [
        ({"pattern": r"\bkm\b"}, r"pattern: \bkm\b", None),
        ({"pattern": "(?i)tea", "example": "Tea first."}, "pattern: (?i)tea", None),
        ({"at_most_words": 25}, "at_most_words", 25),
        ({"in_language": "Spanish"}, "in_spanish", None),
    ],
)
def test_a_wish_written_short_gets_its_kind_and_can_be_handed_on(tmp_path, written, kind, value):
    [found] = read(tmp_path, row({"text": "Ada wishes it.", **written}))
    assert (found["preferences"][0]["kind"], found["preferences"][0].get("value")) == (kind, value)
    handed_on = sources.columns(found)
    assert sources.columns(read(tmp_path, handed_on)[0]) == handed_on


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"pattern": "["}, "is no regular expression"),
        ({"pattern": 3}, "a pattern and its example are text"),
        ({"pattern": ["tea"]}, "a pattern and its example are text"),
        ({"pattern": "tea", "example": ["Tea"]}, "a pattern and its example are text"),
        ({"pattern": "Ada\u2019s"}, 'write "Ada\'s"'),
        ({"pattern": r"\bAda\u2019s\b"}, "has signs that answers are freed of first"),
        ({"pattern": "(" * 3000 + "tea" + ")" * 3000}, "is longer than 1000 characters; write a rule"),
        ({"pattern": "\btea\b"}, "write each backslash twice in a JSON file"),
        ({"pattern": "a{9999999}"}, "counts beyond the length of any answer"),
        ({"pattern": ".*"}, "matches any answer, such as 'No.'"),
        ({"pattern": ""}, "matches any answer"),
        ({"pattern": "tea", "example": "Coffee."}, "does not match its own example 'Coffee.'"),
        ({"pattern": "tea", "kind": "in_spanish"}, "a preference has one kind"),
        ({"pattern": "tea", "at_most_words": 3}, "a preference has one kind"),
        ({"in_language": "Latin"}, "Unknown language 'latin'"),
        ({"at_most_words": "ten"}, "must be a whole number"),
        ({"kind": "pattern: ["}, "is no regular expression"),
        ({"kind": "patern: a"}, "unknown kind of preference"),
    ],
)
def test_a_wish_that_cannot_be_checked_is_refused_with_its_line(tmp_path, written, told):
    with pytest.raises(UserError, match="line 2: ") as caught:
        read(tmp_path, row({"text": "Ada wishes it."}), row({"text": "Ada wishes it.", **written}))
    assert told in str(caught.value)


def test_a_pattern_that_runs_away_is_stopped(tmp_path):
    begun = time.monotonic()
    with pytest.raises(UserError, match="takes more than 0.2 s"):
        read(tmp_path, row({"text": "x", "pattern": r"(?:a|a|aa)+(?<!a)b\1{0}|(x+x+)+y|((a|aa)+)+\d{9}$"}))
    assert time.monotonic() - begun < 30


def test_a_pattern_judges_the_answer_and_is_counted_as_a_kind_of_its_own():
    wishes = [
        ("pattern: (?i)kilomet", "She wants distances in kilometres."),
        ("pattern: tea", "Bo wants a cup mentioned."),
    ]
    rows = [row({"text": text, "kind": kind, "value": None}, name="Ada") for kind, text in wishes]
    kinds, kept = evaluation.kept_matrix(rows, ["Walk three kilometres.", "Walk three kilometres, then tea."])
    assert kinds[-2:] == ["pattern: (?i)kilomet", "pattern: tea"] and kept[:, -2:].tolist() == [[1, 0], [1, 1]]
    assert evaluation.preferences_kept(rows, ["Walk.", "Drink tea."]).tolist() == [0, 1]
    # Telling the wish back keeps the first pattern, were it not taken out; the second is not in its wish's words.
    assert [preferences.proven(kind, rows) for kind, _ in wishes] == [False, True]
    assert "pattern: tea" not in KINDS and len(kinds) == len(KINDS) + 2


def test_kinds_of_a_file_of_rules_are_there_until_others_are(rules):
    before = dict(KINDS)
    preferences.add_kinds(rules(RULES))
    assert KINDS["speaks_of_km"].keeps(Response("It is 3 km.")) and KINDS.keys() == before.keys() | {"speaks_of_km"}
    preferences.add_kinds(None)
    assert before == KINDS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("KINDS = 3", "must define KINDS"),
        ("KINDS = {}", "must define KINDS"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        ("\nKINDS = {", "SyntaxError"),
        (RULES.replace('("Far.",)', "()"), "give at least one text that it accepts and one that it refuses"),
        (RULES.replace('"Far."', '"2 km"'), "it says that it refuses '2 km', but its rule says otherwise"),
        (RULES.replace('"It is 3 km."', '"Near."'), "it says that it accepts 'Near.', but its rule says otherwise"),
        (RULES.replace('"km" in r.answer', "r.nothing"), "its rule fails on 'It is 3 km.' (AttributeError"),
        (RULES.replace('"km"', 'r.answer.split()[1] and "km"').replace("Far.", "Far off."), "its rule fails on 'aaa"),
        (
            "import re" + RULES.replace('"km" in r.answer', "bool(re.search('(a+)+$|km', r.answer))"),
            "takes more than 2 s",
        ),
        (RULES.replace('"speaks_of_km"', "1"), "must define KINDS"),
        (RULES.replace('"words"', '"style"'), "Unknown family of kind 'speaks_of_km' 'style'"),
        ("raise SystemExit", "line 1: SystemExit"),
        (RULES.replace('"km" in r.answer', "exit(3)"), "its rule fails on 'It is 3 km.' (SystemExit: 3)"),
        ("raise ValueError('a\\nb')", "line 1: ValueError: a b; mend"),
        (RULES.replace('("Far.",)', '("Far.")'), "accepted and refused texts are tuples such as"),
        (RULES.replace('("Far.",)', "5"), "accepted and refused texts are tuples such as"),
        (RULES.replace("speaks_of_km", " "), "a kind cannot be called ' '"),
        ("from mipo_nb.preferences import KINDS", "a dictionary of its own"),
        (RULES.replace("KINDS = {", 'KINDS = {"speaks_of_km": None, '), "the name 'speaks_of_km' occurs twice"),
        (RULES.replace("speaks_of_km", "in_spanish"), "the project has a kind 'in_spanish' of its own"),
    ],
)
def test_rules_that_do_not_hold_are_refused_and_change_nothing(rules, text, told):
    before = dict(KINDS)
    with pytest.raises(UserError) as caught:
        preferences.add_kinds(rules(text))
    assert told in str(caught.value) and before == KINDS


def test_a_rule_that_fails_when_answers_are_measured_says_where_it_stands(rules):
    found = own_kinds.read_kinds(
        rules(RULES.replace('"km" in r.answer', '"km" in r.answer and 1 / (len(r.answer) - 7) < 9'))
    )
    assert found["speaks_of_km"].keeps(Response("It is 3 km."))
    with pytest.raises(UserError, match="kind 'speaks_of_km': its rule fails on '3 km on' .ZeroDivisionError"):
        found["speaks_of_km"].keeps(Response("3 km on"))


def test_a_rule_that_runs_away_on_an_answer_says_where_it_stands(rules, monkeypatch):
    slow = RULES.replace('"km" in r.answer', '"km" in r.answer and not re.match("(a+)+b", r.answer)')
    found = own_kinds.read_kinds(rules("import re\n" + slow))
    monkeypatch.setattr(own_kinds, "_RULE_SECONDS", 0.2)
    with pytest.raises(
        UserError, match=r"kind 'speaks_of_km': its rule takes more than 0.2 s for 'aaaaaaaaaaaaaaaaaaaa' and"
    ):
        found["speaks_of_km"].keeps(Response("a" * 40 + " km"))


def test_a_file_of_rules_that_goes_elsewhere_moves_nothing_else(rules, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    own_kinds.read_kinds(rules("import os\nos.chdir('/')\n" + RULES))
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("pattern", [" km", r"tea\b", r"\d+ km", "[^.]*tea"])
def test_a_pattern_may_begin_with_a_blank_and_have_escapes(tmp_path, pattern):
    [found] = read(tmp_path, row({"text": "x", "pattern": pattern, "example": "Drink 3 km of tea."}))
    assert KINDS[found["preferences"][0]["kind"]].keeps(Response("Drink 3 km of tea."))


def test_rules_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="There is no file of rules"):
        preferences.add_kinds(tmp_path / "none.py")


@pytest.mark.parametrize(
    "turns",
    [
        [],
        "Hi",
        [{"role": "assistant", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}] * 3,
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "text": "Hi"}],
    ],
)
def test_messages_are_turns_from_user_to_user(tmp_path, turns):
    with pytest.raises(UserError, match="line 1: column 'messages' must be turns"):
        read(tmp_path, {"user_id": "a", "context": "Ada.", "messages": turns})


def test_a_text_for_somebody_else_is_measured_apart(tmp_path):
    wish = {"text": "Ada wants tea mentioned.", "pattern": "tea"}
    people = [row(wish, user_id=f"u{k}", prompt=f"Question {k % 4}?") for k in range(12)]
    for person in people:
        person["context"] += person["user_id"]
    letters = [{**person, "prompt": "Write to Bo.", "for_somebody_else": True} for person in people]
    read(tmp_path, *people, *letters)
    for split in ("train", "dev", "test"):
        asked = sources.personal_prompts(split, n=99, data=tmp_path / "rows.jsonl")
        others = sources.prompts_for_others(split, n=99, data=tmp_path / "rows.jsonl")
        assert "Write to Bo." not in asked["prompt"] and set(asked["user_id"]) <= set(others["user_id"])
        assert set(others["prompt"]) == {"Write to Bo."} and others["must_not"][0] == ["pattern: tea"]
    assert sources.prompts_for_others("test", n=3, data=read_only(tmp_path, people)) is None


def test_a_text_for_somebody_else_hides_no_prompts_that_training_has_too(tmp_path):
    """All open prompts are asked in training as well, and no text for others is."""
    people = [row({"text": "x"}, user_id=f"u{k}", prompt="Where to?", context=f"Ada {k}.") for k in range(12)]
    read(tmp_path, *people, *({**person, "prompt": "Write to Bo.", "for_somebody_else": True} for person in people))
    for split in ("train", "dev", "test"):
        assert set(sources.personal_prompts(split, n=99, data=tmp_path / "rows.jsonl")["prompt"]) == {"Where to?"}


def read_only(tmp_path, rows):
    read(tmp_path, *rows)
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "history", [[1], [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hi"}] * 2]
)
def test_a_history_is_checked_as_messages_are(tmp_path, history):
    with pytest.raises(UserError, match="line 1: "):
        read(tmp_path, {"user_id": "a", "context": "Ada.", "prompt": "And now?", "history": history})


def test_messages_beside_a_prompt_are_one_too_many(tmp_path):
    turns = [{"role": "user", "content": "Hi"}]
    with pytest.raises(UserError, match="line 1: a row has messages or a prompt"):
        read(tmp_path, {"user_id": "a", "context": "Ada.", "prompt": "Hi", "messages": turns})


def test_an_example_is_read_as_answers_are(tmp_path):
    [found] = read(tmp_path, row({"text": "x", "pattern": "Ada's", "example": "Ada\u2019s"}))
    assert KINDS[found["preferences"][0]["kind"]].keeps(Response("It is Ada\u2019s day, a day of tea."))
