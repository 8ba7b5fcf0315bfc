"""The paper's way to ask and read problems: what is asked, what a demanded form gives, and when a model is asked again."""

from fractions import Fraction

import pytest
from datasets import Dataset

from mipo_nb import generation, prompts
from mipo_nb.paper import reasoning as published

SUM = {"question": "Ada has 3 eggs and buys 4. How many?", "answer": "7", "letters": [], "options": [], "task": "svamp"}
SHOWN = {**SUM, "question": "Two and two?", "answer": "4", "solution": "2 + 2 = 4."}
CHOICE = {**SUM, "question": "Which is a planet?", "answer": "C", "letters": list("ABC"), "options": ["Moon", "Sirius", "Mars"]}  # fmt: skip
HOW = generation.Sampling(0.1, 0.9, 0, 8, 4)


def test_worked_examples_stand_in_one_user_turn(tokenizer):
    [turn] = published.messages(SUM, [SHOWN, SHOWN])
    assert turn["role"] == "user" and turn["content"].count("Solution: 2 + 2 = 4.\n#### 4") == 2
    assert turn["content"].endswith("How many?\nSolution:")
    assert prompts.completion_ids(tokenizer, [turn], "3 + 4 = 7.\n#### 7")


def test_a_choice_is_put_without_examples():
    [turn] = published.messages(CHOICE, [SHOWN])
    assert "C. Mars" in turn["content"] and "Two and two" not in turn["content"]
    assert turn["content"].endswith("The answer is X.")


@pytest.mark.parametrize(
    "problem, response, value",
    [
        (SUM, "3 + 4 = 7.\n#### 7", 7),
        (SUM, "#### 7\n\nProblem: next\n#### 9", 7),  # the first one counts
        (SUM, "#### $1,250.50", Fraction(2501, 2)),
        (SUM, "#### -3", -3),
        (SUM, "The answer is 7.", None),
        (SUM, "####\n7", None),
        (CHOICE, "Because. The answer is C.", "C"),
        (CHOICE, "The answer is (B), not the answer is C.", "B"),
        (CHOICE, "the answer is: A", "A"),
        (CHOICE, "The answer is E.", None),  # the published scorer knows A to D
        (CHOICE, "The answer is Mars.", None),
        (CHOICE, "C", None),
    ],
)
def test_only_the_demanded_form_counts(problem, response, value):
    assert published.marked(problem, response) == value


def test_what_follows_the_answer_is_cut_off():
    assert published.up_to_answer("1 + 1 = 2.\n#### 2\n\nProblem: 3") == "1 + 1 = 2.\n#### 2"
    assert published.up_to_answer("It is 2.") == "It is 2."


def test_an_unmarked_number_is_asked_for_once_more(monkeypatch, tmp_path):
    asked = []

    def sample(model, tokenizer, conversations, sampling, *, seed, folder=None, description=""):
        asked.append((conversations, sampling.temperature, folder))
        texts = ["#### 7", "I think seven, no, 8."] if len(asked) == 1 else ["7"]
        return Dataset.from_list([{"text": t, "finished": True} for t in texts])

    monkeypatch.setattr(generation, "sample", sample)
    found = published.answered(None, None, [SUM, SUM], [SHOWN], HOW, seed=0, folder=tmp_path)
    assert found["right"] == [True, True] and found["marked"] == [True, False] and found["value"] == ["7", "7"]
    (_, first, folder), ([again], then, other) = asked
    assert (first, then) == (0.1, 0) and folder != other
    assert "I think seven, no, 8." in again[-1]["content"] and SUM["question"] in again[-1]["content"]


def test_a_letter_is_not_asked_for_again(monkeypatch):
    texts = Dataset.from_list([{"text": "Mars.", "finished": True}, {"text": "The answer is C.", "finished": True}])
    monkeypatch.setattr(generation, "sample", lambda *a, **k: texts)
    found = published.answered(None, None, [CHOICE, CHOICE], [], HOW, seed=0)
    assert found["right"] == [False, True] and found["value"] == [None, "C"]
