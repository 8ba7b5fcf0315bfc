"""Accuracy by writing and by likelihood: against hand-worked cases, a loop over options, and a public reference."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from mipo_nb import prompts
from mipo_nb.base.errors import UserError
from mipo_nb.verifiable import grading, problems

STORY = {
    "question": "Ada has 3 eggs and buys 4. How many eggs?",
    "answer": "7",
    "letters": [],
    "options": [],
    "task": "stories",
}
CHOICE = {
    "question": "Which of these is a planet?",
    "answer": "C",
    "letters": list("ABC"),
    "options": ["the Moon", "Sirius", "the red planet Mars"],
    "task": "arc_easy",
}


def test_responses_are_graded_with_the_kind_of_error():
    texts = [
        "3 + 4 = 7. The answer is 7.",
        "3 + 4 = 8 eggs. The answer is 8.",
        "Cats sleep.",
        "7 eggs, 3 of them white.",
    ]
    found = grading.graded([STORY] * 4, texts)
    assert list(found["right"]) == [True, False, False, False]
    assert list(found["kind"]) == ["right", "arithmetic slip", "off-topic", "format"]
    assert list(found["value"][:2]) == ["7", "8"] and found["value"].isna()[2]
    assert list(found["words"]) == [9, 10, 2, 6]


def test_letters_are_graded_too():
    texts = [
        "The answer is C.",
        "the Moon",
        "The answer is A. The answer is B.",
        "I'm sorry, I can't say which is a planet.",
    ]
    found = grading.graded([CHOICE] * 4, texts)
    assert list(found["right"]) == [True, False, False, False]
    assert list(found["outcome"]) == ["answer", "answer", "conflict", "refusal"]
    assert grading.gold(CHOICE) == "C" and grading.gold(STORY) == Fraction(7)


def test_rules_pick_by_hand():
    scores = [np.array([-4.0, -3.0, -6.0])]
    pick = lambda rule, **more: grading.picked([CHOICE], scores, rule, **more)[0]  # noqa: E731
    assert pick("likelihood") == 0  # Sirius
    assert pick("per character") == 1  # -6 over 19 characters against -3 over 6
    assert pick("PMI", without=[np.array([-5.0, -3.0, -9.0])]) == 1  # 1, 0 and 3 nats
    assert grading.picked([CHOICE], [np.array([-1.0, -2.0, -1.0])], "likelihood")[0] == 0.5


def test_what_there_is_not():
    with pytest.raises(UserError, match="Unknown form 'clozed'; did you mean 'cloze'"):
        grading.option_scores(None, None, [CHOICE], "clozed")
    with pytest.raises(UserError, match="Unknown rule 'pmi'"):
        grading.picked([CHOICE], [[0, 0, 0]], "pmi")
    with pytest.raises(UserError, match="'stories' has no options"):
        grading.option_scores(None, None, [STORY], "cloze")


@pytest.mark.model
@pytest.mark.parametrize("form", grading.FORMS)
def test_options_score_as_one_pass_each(model_and_tokenizer, form):
    """Sharing the question changes nothing: a plain pass over each whole text gives the same."""
    model, tokenizer = model_and_tokenizer
    rows = [CHOICE, {**CHOICE, "question": "What melts in the sun?", "options": ["ice", "a stone", "glass"]}]
    found = grading.option_scores(model, tokenizer, rows, form)
    chat = {
        "letter": lambda row: prompts.problem_messages(row),
        "cloze": lambda row: prompts.messages(row["question"]),
    }
    for row, scores in zip(rows, found, strict=True):
        for k, option in enumerate(row["options"]):
            if form in chat:
                start = tokenizer.apply_chat_template(chat[form](row), add_generation_prompt=True, tokenize=False)
                start += "The answer is" if form == "letter" else ""
                end = f" {row['letters'][k]}" if form == "letter" else option
            else:
                start = f"Question: {row['question']}\nAnswer:" if form == "plain" else "Answer:"
                end = f" {option}"
            a, b = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (start, start + end))
            with torch.inference_mode():
                logits = model(torch.tensor([b])).logits[0].log_softmax(-1)
            expected = sum(logits[at - 1, b[at]].item() for at in range(len(a), len(b)))
            assert scores[k] == pytest.approx(expected, abs=2e-3)


def test_stories_can_be_put_and_graded_whole():
    rows = problems.load("stories", "dev", n=30)
    written = [prompts.worked(row) for row in rows]
    assert grading.graded(rows, written)["right"].all()


def test_options_share_their_question(tokenizer):
    """Of the tokens that a pass for each option would compute, less than half are left."""
    from mipo_nb.engine import packing

    question = (
        "A student leaves a pan of water in the sun on a dry day. Why is there less water in the pan in the evening?"
    )
    options = ["It has turned into vapour.", "The pan has grown.", "It has become heavier.", "The sun drank it."]
    row = {**CHOICE, "question": question, "options": options, "letters": list("ABCD")}
    for form in grading.FORMS[:3]:
        whole = [start + end for start, end in grading._asked(tokenizer, row, form)]
        shared = sum(len(tokens) for tokens in packing.tree(whole)[1])
        assert 2 * shared < sum(map(len, whole))
