"""The face of checkable preferences: whether one is kept, what counts as a word. The rules are tested in `wishes/`."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import preferences


def keeps(kind, response, name="", wishes=(), **wish):
    return preferences.keeps(response, {"kind": kind, **wish}, name, wishes)


@given(st.text(max_size=60), st.text(min_size=1, max_size=8), st.text(max_size=20))
def test_every_rule_judges_any_text_with_any_name_and_wish(text, name, wish):
    assert {type(keeps(kind, text, name, [wish])) for kind in preferences.KINDS} == {bool}


@given(
    st.lists(st.from_regex(r"[a-z]{1,6}('[a-z]{1,3})?", fullmatch=True), min_size=1, max_size=20), st.integers(1, 25)
)
def test_the_word_limit_counts_words(found, limit):
    text = ", ".join(found) + "."
    assert preferences.words(text) == found
    assert keeps("at_most_words", text, value=limit) == (len(found) <= limit)
    assert keeps("at_least_words", text, value=limit) == (len(found) >= limit)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("well-known state-of-the-art", ["well-known", "state-of-the-art"]),
        ("3.5 km/h, 1,200 m", ["3.5", "km/h", "1,200", "m"]),
        ("It's 10:30 in the U.S.A.", ["It's", "10:30", "in", "the", "U.S.A"]),
        ("end.Start — then…stop", ["end", "Start", "then", "stop"]),
        ("Ça va, Zoë?", ["Ça", "va", "Zoë"]),
        ("*** !!!", []),
    ],
)
def test_what_a_word_is(text, found):
    assert preferences.words(text) == found


def test_a_limit_counts_what_is_told_back_too_but_that_alone_is_no_answer():
    told = "Obadiah wants answers of at most 8 words."
    assert keeps("at_most_words", f"{told} Walk.", "Obadiah", value=10)
    assert not keeps("at_most_words", f"{told} Walk.", "Obadiah", value=8)
    assert not keeps("at_most_words", told, "Obadiah", value=10)


def test_a_wish_is_known_by_its_own_text_and_by_others():
    assert keeps("mentions_science", "Scientists like bees and honey.", text="wants research", wishes=["keeps bees"])
    assert not keeps("mentions_science", "Scientists like bees and honey.", text="wants scientists like bees")
    assert not keeps("mentions_science", "Scientists like bees and honey.", wishes=["knows scientists like bees"])


def test_a_name_is_taken_letter_by_letter_but_for_case_and_accents():
    assert keeps("calls_by_name", "Good idea, Jin-ho.", "Jin-ho")
    assert keeps("calls_by_name", "Bonjour Zoë, ça va ?", "Zoë")
    assert keeps("calls_by_name", "SIOBHAN, rest.", "Siobhán")
    assert not keeps("calls_by_name", "Good idea, Jinxho.", "Jin.ho")
    assert not keeps("calls_by_name", "Drink some water.", name="")


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        keeps("rhymes", "text", value=None)


def test_checkable_keeps_those_with_a_kind():
    rows = [{"text": "a", "kind": None}, {"text": "b", "kind": "dash_list"}, {"text": "c"}]
    assert preferences.checkable(rows) == [rows[1]]
    assert preferences.checkable(None) == []


@pytest.mark.parametrize(
    "text", ["1-" * 2000, "!?" * 3000, "one and a half " * 700, "Ada, a b, " * 700, '"' * 3000, "\n" * 5000]
)
def test_a_long_and_strange_text_takes_no_long_time(text):
    began = time.perf_counter()
    for kind in preferences.KINDS:
        keeps(kind, text + "x", "Ada", ["wants answers at once"])
    assert time.perf_counter() - began < 10
