"""What counts as telling a wish back, and that it never helps."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import preferences, sources
from mipo_nb.preferences import KINDS
from mipo_nb.wishes.recital import answer, wishes_in, without_phrases

VARIANTS = [json.loads(line) for line in (Path(__file__).parent / "variants.jsonl").read_text("utf-8").splitlines()]
USERS = [user for split in sources.SPLITS for user in sources.own_users(split)]
SAFETY = ("wants to hear what could be dangerous", "likes ideas that get her hands dirty")


@pytest.mark.parametrize(
    "text",
    [
        "Mwajuma wants to hear about what could be dangerous.",
        "Mwajuma, who welds in Tanga, asked for dangers.",
        "Mwajuma is a welder and does not want surprises.",
        "MWAJUMA'S preference is for safety.",
        "Knowing what is dangerous matters to Mwajuma.",
        "She wants to know the danger.",
        "He would like to be warned.",
        "The user is interested in what could be dangerous.",
        "You asked for dangers.",
        "You want to hear what could be dangerous.",
        "I want to hear what could be dangerous.",
        "They want to know what is dangerous.",
        "Your request for dangers is noted.",
        "Ideas that get your hands dirty are listed here.",  # three words in a row of a wish
        "Sure! Mwajuma wants to hear what could be dangerous.",
    ],
)
def test_what_tells_a_wish_back(text):
    assert answer(text, SAFETY, "Mwajuma") == ""


@pytest.mark.parametrize(
    "text",
    [
        "You need 200 ml of milk.",
        "I would like to suggest a walk.",
        "If you want to save money, cook beans.",
        "You want to be careful with hot oil and sharp knives.",
        "You may like to know that a helmet is cheap.",
        "Would you like to hear more?",
        "Ask your sister what she likes.",
        "Cats want a warm corner; they like it quiet.",
        "Mwajuma, you need a helmet.",
        "First, she needs to find a date.",
        "Here is the danger: hot oil.",
        "I hope this helps.",
    ],
)
def test_what_is_an_answer(text):
    assert answer(text, SAFETY, "Mwajuma") == text


def test_what_follows_a_clause_of_wishing_is_an_answer():
    found = answer(
        "Since Mwajuma wants to hear what could be dangerous, wear a helmet. Weld slowly.", SAFETY, "Mwajuma"
    )
    assert found == "wear a helmet. Weld slowly."
    assert answer("As Mwajuma wants examples, with the words for example.", SAFETY, "Mwajuma") == ""
    assert answer("Mwajuma wants examples, so here is one: tea.", SAFETY, "Mwajuma") == "so here is one: tea."
    assert answer("As Mwajuma wants, what could be dangerous.", SAFETY, "Mwajuma") == ""
    assert answer("Ideas that get your hands dirty: clay.", SAFETY, "Mwajuma") == " clay."


def test_lines_and_paragraphs_stay():
    assert (
        answer("Weld slowly.\n\nShe wants safety.\n\nWear gloves.", SAFETY, "Mwajuma")
        == "Weld slowly.\n\n\n\nWear gloves."
    )
    assert answer("  - tea\n  - soup\nShe wants tea.", (), "") == "  - tea\n  - soup"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Share a song or an instrument with me.", "Share a   with me."),
        ("A song, or an Instrument!", "A  !"),
        ("I help you stay safe. Stay safe!", "I  . Stay safe!"),
        ("A word about safety: wear gloves.", "A  : wear gloves."),
        ("Use music in each reply.\n\nSing.", "\n\nSing."),
        ("Songs and instruments help.", "Songs and instruments help."),
        ("Play a song. Or buy an instrument.", "Play a song. Or buy an instrument."),
        ("Play a musical instrument.", "Play a musical instrument."),
    ],
)
def test_what_is_repeated_of_a_wish_and_says_nothing(text, left):
    wishes = (
        "I would like a song or an instrument",
        "A word about safety, and how to stay safe",
        "a musical instrument",
    )
    assert without_phrases(text, wishes) == left
    assert without_phrases("Play a song.", ()) == "Play a song."


def test_sentences_of_a_context_that_say_a_wish_belong_to_it():
    context = (
        "Ana keeps bees in Brno. Answers must end with a question to her. Ana wants answers to end with a question."
    )
    assert wishes_in(context, ("wants answers to end with a question",)) == (
        "wants answers to end with a question",
        "Answers must end with a question to her. ",
        "Ana wants answers to end with a question.",
    )


@pytest.mark.parametrize(
    "form", ["{text}", "You said: {text}", "For example, {text}", "{name} wants {asks}.", "Since {name} wants {asks}."]
)
def test_no_user_gets_their_wish_by_hearing_it(form):
    for user in USERS:
        for wish in preferences.checkable(user["preferences"]):
            told = form.format(name=user["name"], text=wish["text"], asks=KINDS[wish["kind"]].asks)
            assert not preferences.keeps(told, wish, user["name"]), told
            assert not preferences.keeps(f"Sure! {told}", {**wish, "text": None}, user["name"], [wish["text"]]), told


def told_back(kind):
    """Sentences that tell a wish of this kind back to Ada, and the wishes that they tell."""
    for wish in (f"wants {KINDS[kind].asks}", f"would like that there is {KINDS[kind].asks} in every answer"):
        for form in ("Ada {}.", "She {}.", "For example, Ada {}.", "ada, who lives in Oslo, {}."):
            yield form.format(wish), wish


@pytest.mark.parametrize("kind", KINDS)
def test_telling_the_wish_back_beside_an_answer_never_helps(kind):
    told = list(told_back(kind))
    broken = [case for case in VARIANTS if case["kind"] == kind and not case["kept"] and "known" not in case]
    for i, case in enumerate(broken):
        for sentence, wish in told[i % 4 :: 4]:
            asked = {"kind": kind, "value": case.get("value"), "text": wish}
            for text in (f"{case['text']}\n{sentence}", f"{sentence}\n{case['text']}", f"{case['text']}\n\n{sentence}"):
                name, also = case.get("name") or "Ada", filter(None, [case.get("wish")])
                assert not preferences.keeps(text, asked, name, also), text


PARTS = st.sampled_from(sorted({case["text"] for case in VARIANTS}))


@given(st.lists(PARTS, min_size=1, max_size=4), st.integers(0, 23), st.sampled_from(["\n", "\n\n"]))
def test_nor_does_it_beside_any_answer_for_any_kind(parts, which, between):
    text = between.join(parts)
    for kind in KINDS:
        told = list(told_back(kind))
        sentence, wish = told[which % len(told)]
        asked = {"kind": kind, "value": 12 if KINDS[kind].value else None, "text": wish}
        if preferences.keeps(f"{text}{between}{sentence}", asked, "Ada"):
            assert preferences.keeps(text, asked, "Ada")


@given(st.lists(PARTS, min_size=1, max_size=3), st.sampled_from(["", " ", "\n", " \n\n", "\t"]))
def test_space_at_the_end_and_the_case_of_the_name_change_nothing(parts, space):
    text = " ".join(parts)
    for kind in KINDS:
        found = preferences.keeps(text, {"kind": kind}, "Ada")
        assert (
            preferences.keeps(text + space, {"kind": kind}, "ADA")
            == preferences.keeps(text, {"kind": kind}, "ada")
            == found
        )


@given(
    st.lists(PARTS, max_size=2),
    st.sampled_from(["I'm sorry, but I can't help with that.", "As an AI, I do not have a name."]),
)
def test_a_refusal_keeps_nothing(parts, refusal):
    for kind in KINDS:
        assert not preferences.keeps("\n".join([*parts, refusal]), {"kind": kind}, "Ada")
