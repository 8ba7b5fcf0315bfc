"""Reading answers: cases written by hand, and every gold answer of real data sets read back from its own text."""

import json
import os
from fractions import Fraction as F
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.verifiable import answers
from mipo_nb.verifiable.answers import Reading, equations, error_kind, read_letter, read_number

N, R, C = "none", "refusal", "conflict"

NUMBERS = [
    # plain
    ("5", 5), ("5.", 5), (" 42 \n", 42), ("-7", -7), ("+3", 3), ("007", 7), ("3.0", 3), ("3.50", F(7, 2)), (".5", F(1, 2)),
    ("1,234", 1234), ("1,234,567", 1234567), ("12,345.67", F(1234567, 100)), ("1000000", 1000000), ("−8", -8), ("–8", -8),
    # money, units, per cent
    ("$5", 5), ("$1,250.75", F(125075, 100)), ("-$4", -4), ("$-4", -4), ("5€", 5), ("£20", 20), ("5 apples", 5), ("12km", 12),
    ("25%", 25), ("It costs $3.", 3), ("3 hours", 3), ("72°", 72), ("5m", 5), ("about 40 kg", 40), ("10USD", 10),
    # fractions
    ("3/4", F(3, 4)), ("2 1/2", F(5, 2)), ("½", F(1, 2)), ("2½ cups", F(5, 2)), ("-1/2", F(-1, 2)), ("\\frac{3}{8}", F(3, 8)),
    ("1/3 of the cake", F(1, 3)), ("¾", F(3, 4)),
    # the last one counts
    ("He has 3 and buys 4, so 7.", 7), ("3 + 4 = 7", 7), ("First 10. Then 20. In the end 15 remain.", 15), ("10-5=5", 5),
    ("from 10 to 12", 12), ("5 - 3", 3), ("2 x 6 = 12 eggs", 12), ("2*6 is 12", 12), ("Total: 18", 18),
    ("There are 4 boxes with 6 pens: 24 pens", 24), ("x = -3", -3), ("(5)", 5), ("[9]", 9), ("\"11\"", 11), ("y=2x, so 8", 8),
    # marked
    ("#### 18", 18), ("####18", 18), ("We add them. #### 1,200", 1200), ("#### $45", 45), ("#### -2", -2), ("#### 3.5 hours", F(7, 2)),
    ("\\boxed{42}", 42), ("$\\boxed{3{,}600}$", 3600), ("\\boxed{\\frac{1}{4}}", F(1, 4)), ("\\boxed{x = 5}", 5),
    ("The answer is 12.", 12), ("The answer is: 12", 12), ("Answer: 12", 12), ("ANSWER = 12", 12), ("The final answer is $12.", 12),
    ("So the answer is 12 because 3 times 4 is 12.", 12), ("The answer is 12. I used 3 and 4.", 12), ("**Answer:** 9", 9),
    ("The answer is **9**.", 9), ("The answer is therefore 9 apples, not 10.", 9), ("My answer would be that it is 6.", 6),
    ("The correct answer is 7. There are 24 hours in a day.", 7), ("Answer: 5 + 3 = 8 #### 8", 8), ("answer: twelve? #### 12", 12),
    ("The answer equals 30", 30), ("The answer is -4.", -4), ("The answer is 3/4.", F(3, 4)), ("#### 10\n#### 10", 10),
    # list numbers, ordinals, digits in words
    ("1. Count 4 cats.\n2. Count 3 dogs.\nThat makes seven.", 3), ("1. 5", 5), ("Step 1: add 2 and 3.\nStep 2: that gives 5.", 5),
    ("1) Take 8.\n2) Halve it.", 8), ("He came 2nd with 30 points", 30), ("the 3rd day: 14", 14), ("B12 costs 4", 4), ("H2O", N),
    # words
    ("Twelve.", 12), ("twenty-one apples", 21), ("She has seven left", 7), ("a dozen", 12), ("none", 0), ("one hundred", 100),
    ("three and then five", 5), ("Forty", 40), ("half", F(1, 2)),
    # nothing, refusals, conflicts
    ("", N), ("I like trains.", N), ("It depends.", N), ("1st", N), ("????", N),
    ("I'm sorry, I can't help with that.", R), ("I cannot answer this question.", R), ("As an AI, I don't do sums.", R),
    ("I don't know.", R), ("There is not enough information to say.", R), ("I am unable to find 3 numbers.", R),
    ("I'm sorry for the delay. The answer is 5.", 5), ("I can't see it, but #### 4", 4), ("This cannot be determined.", R),
    ("The answer is 5. No, the answer is 6.", C), ("#### 4\n#### 5", C), ("Answer: 3\nAnswer: 4", C), ("\\boxed{1} or \\boxed{2}", C),
    ("The answer is 7. #### 8", 8), ("The answer is 5. Again: the answer is 5.", 5), ("Answer: 1,000. The answer is 1000.", 1000),
]  # fmt: skip

OPTIONS = {"A": "the cell wall", "B": "the cell", "C": "a plant", "D": "It is hot."}
LETTERS = [
    ("A", "A"), ("b", "B"), ("(C)", "C"), ("(c)", "C"), ("D.", "D"), ("d)", "D"), ("[A]", "A"), ("**B**", "B"), ("B)", "B"), (" A \n", "A"),
    ("A. the cell wall", "A"), ("C) a plant", "C"), ("(D) It is hot.", "D"), ("B: the cell", "B"), ("Option C", "C"), ("option b", "B"),
    ("Answer: A", "A"), ("Answer: (b)", "B"), ("answer: c", "C"), ("The answer is D.", "D"), ("The answer is (A).", "A"),
    ("The answer is b.", "B"), ("The correct answer is C, a plant.", "C"), ("The answer is option D", "D"), ("Answer = B", "B"),
    ("The best answer is: **A**", "A"), ("So the answer must be what it is: C", "C"), ("The answer is A because walls are hard.", "A"),
    ("The answer is C and not the others.", "C"), ("\\boxed{D}", "D"), ("$\\boxed{\\text{B}}$", "B"), ("#### C", "C"),
    ("B is correct.", "B"), ("Option A is the right one.", "A"), ("I think that C is the best choice.", "C"), ("D is the answer.", "D"),
    ("(B) is right, since cells divide.", "B"), ("Let me think.\nA", "A"), ("Plants are green.\nC.", "C"), ("Because of heat.\n(D)", "D"),
    ("'A'", "A"), ("\"B\"", "B"), ("The answer is \"C\".", "C"), ("A, because it is hard.", N), ("The answer is (a)", "A"),
    # the article is no answer
    ("A tree grows tall.", N), ("The answer is a tree.", N), ("A good answer needs thought.", N), ("The answer is A tree.", N),
    # the option's text
    ("the cell wall", "A"), ("It is the cell.", "B"), ("I think it is a plant", "C"), ("it is hot", "D"), ("A plant.", "C"),
    ("THE CELL WALL!", "A"), ("It's the cell wall of a root.", "A"), ("The answer is the cell wall.", "A"),
    ("a plant or the cell", C), ("Both the cell and a plant.", C),
    # nothing, refusals, conflicts
    ("", N), ("I like trains.", N), ("E", N), ("Option F", N), ("The answer is E.", N), ("ABBA", N), ("Dad is right.", N),
    ("I'm sorry, I can't say.", R), ("I don't know.", R), ("This cannot be answered.", R),
    ("The answer is A. The answer is B.", C), ("Answer: C\nAnswer: D", C), ("\\boxed{A} \\boxed{B}", C), ("A is correct. B is correct.", C),
    ("The answer is A. Yes, A is correct.", "A"), ("I'm sorry, but the answer is B.", "B"),
]  # fmt: skip


@pytest.mark.parametrize("text, value", NUMBERS)
def test_a_number_is_read(text, value):
    found = read_number(text)
    if value in (N, R, C):
        assert (found.outcome, found.value) == (value, None)
    else:
        assert (found.outcome, found.value) == ("answer", value)


@pytest.mark.parametrize("text, value", LETTERS)
def test_a_letter_is_read(text, value):
    found = read_letter(text, OPTIONS)
    if value in (N, R, C):
        assert (found.outcome, found.value) == (value, None)
    else:
        assert (found.outcome, found.value) == ("answer", value)


def test_there_are_enough_cases_written_by_hand():
    assert len({text for text, _ in NUMBERS}) + len({text for text, _ in LETTERS}) >= 150


@pytest.mark.parametrize(
    "text, value", [("2", "2"), ("The answer is 3.", "3"), ("(4)", "4"), ("the moon", "1"), ("5", N)]
)
def test_options_may_be_numbered(text, value):
    found = read_letter(text, {"1": "the moon", "2": "the sun", "3": "a star", "4": "a comet"})
    assert (found.value or found.outcome) == value


def test_three_and_five_options_are_read():
    assert read_letter("E", dict(zip("ABCDE", "vwxyz", strict=True))).value == "E"
    assert read_letter("D", dict(zip("ABC", "xyz", strict=True))).outcome == N


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["{}", "#### {}", "The answer is {}.", "It is {} in all.", "\\boxed{{{}}}"]),
)
def test_whole_numbers_are_read_in_every_form(number, form):
    assert read_number(form.format(number)).value == read_number(form.format(f"{number:,}")).value == number


@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text):
    for reading in (read_number(text), read_letter(text, OPTIONS)):
        assert (reading.value is not None) == (reading.outcome == "answer")
    assert error_kind("How many birds?", text, read_number(text), F(3)) in answers.KINDS


@pytest.mark.parametrize(
    "text, held",
    [
        ("3 + 4 = 7", [True]), ("3 + 4 = 8", [False]), ("5 apples + 2 apples = 7 apples", [True]), ("6 x 7 is 42.", [True]),
        ("6 times 7 equals 43", [False]), ("$5 * 3 = $15", [True]), ("10 / 4 = 2.5", [True]), ("10 / 3 = 3.33", [True]),
        ("10 / 3 = 3.4", [False]), ("2 + 3 x 4 = 14", [True]), ("2 + 3 x 4 = 20", [False]), ("12 - 5 - 1 = 6", [True]),
        ("1,200 + 300 = 1,500", [True]), ("5 minus 3 is 2", [True]), ("20 divided by 5 is 4", [True]), ("7 / 0 = 0", []),
        ("20% of 50 = 10", []), ("(2 + 3) x 4 = 20", []), ("x = 5", []), ("1/2 + 1/2 = 1", [True]), ("4 x 2 = 8 and 8 + 1 = 10", [True, False]),
        ("48/2 = <<48/2=24>>24 clips", [True]), ("9 - 12 = -3", [True]), ("5-3=2", [True]), ("3 × 4 = 12 × 1", []),
        ("3 rolls * 5 coins = 99 coins", [False]), ("3 x 5 coins per roll = 15", [True]), ("* 5 apples + 2 = 7", [True]),
    ],
)  # fmt: skip
def test_equations_are_found_and_checked(text, held):
    assert [holds for _, holds in equations(text)] == held


QUESTION = "Mira has 12 stickers and gives 5 stickers to her brother. How many stickers does Mira have left?"


@pytest.mark.parametrize(
    "response, kind",
    [
        ("Mira has 12 - 5 = 7 stickers left.", "right"), ("#### 7", "right"),
        ("Mira has 12 - 5 = 8 stickers left.", "arithmetic slip"), ("Mira has 12 + 5 = 17 stickers.", "wrong reasoning"),
        ("Mira keeps all 12 stickers.", "wrong reasoning"), ("Mira has 7 stickers left, after giving away 5.", "format"),
        ("Trains are a wonderful way to travel.", "off-topic"), ("The capital of France is Paris, with 2 million people.", "off-topic"),
        ("Mira gives her brother some stickers.", "no answer"), ("I cannot say how many stickers Mira has.", "no answer"),
        ("Mira: the answer is 7 stickers. The answer is 5 stickers.", "no answer"), ("", "no answer"),
    ],
)  # fmt: skip
def test_the_kind_of_an_error(response, kind):
    assert error_kind(QUESTION, response, read_number(response), F(7)) == kind


@pytest.mark.parametrize(
    "value, gold, equal",
    [(F(5), F(5), True), (F(5), F(6), False), (F(333, 100), F(10, 3), True), (F(34, 10), F(10, 3), False), (None, F(5), False),
     (F(5004, 1000), F(5), False), ("A", "A", True), ("A", "B", False)],
)  # fmt: skip
def test_what_counts_as_the_same(value, gold, equal):
    assert answers.same(value, gold) == equal


# --- real data, where it is at hand ---

DATA = Path(os.environ.get("MIPO_NB_DATA") or Path(os.environ.get("MIPO_NB_SHARED", "no folder")) / "data")
real = pytest.mark.skipif(not DATA.is_dir(), reason="MIPO_NB_DATA names no folder with the data sets")


def rows(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").strip().split("\n")]


@real
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gold_answer_of_gsm8k_is_read_from_its_solution(split):
    flagged = checked = 0
    for row in rows(f"gsm8k/{split}"):
        gold = answers.number(row["answer"].rpartition("####")[2].strip())
        assert read_number(row["answer"]) == Reading("answer", gold, marked=True), row
        found = equations(row["answer"])
        checked, flagged = checked + len(found), flagged + sum(not holds for _, holds in found)
    assert checked > 2 * len(rows(f"gsm8k/{split}")) and flagged < 0.01 * checked  # solutions whose arithmetic is right


@real
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gold_answer_of_svamp_is_read_back(split):
    for row in rows(f"svamp/{split}"):
        gold = answers.number(str(row["Answer"]))
        for form in ("{}", "#### {}", "The answer is {}.", "So there are {} left."):
            assert read_number(form.format(row["Answer"])).value == gold


@real
@pytest.mark.parametrize("name", ["ARC-Challenge", "ARC-Easy"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_gold_answer_of_arc_is_read_back(name, split):
    for row in rows(f"ai2_arc/{name}/{split}"):
        options, gold = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True)), row["answerKey"]
        for form in (
            "{k}",
            "({k})",
            "**{k}**",
            "{k}. {t}",
            "{t}",
            "Answer: {k}",
            "The answer is {k}.",
            "Option {k} is correct.",
        ):
            text = form.format(k=gold, t=options[gold])
            assert read_letter(text, options).value == gold, (text, options)
