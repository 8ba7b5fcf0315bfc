"""What responses earn: by the right answer, by the model's own rating, by mutual information, and by nothing if masked."""

import numpy as np
import pytest
import torch

from mipo_nb import evaluation, prompts, scoring, sources
from mipo_nb.verifiable import rewards

ROWS = [
    {"question": q, "answer": a, "task": "stories-1", "letters": [], "options": [], "solution": ""}
    for q, a in [
        ("Ana has 3 apples and buys 4 more. How many apples does Ana have?", "7"),
        ("Ben walks 5 km a day. How far does he walk in 6 days?", "30"),
        ("Chi had 9 pens and lost 2. How many pens are left?", "7"),
    ]
]


def responses(texts, numbers=None, model=None, tokenizer=None):
    rows = [ROWS[k] for k in (numbers or [0] * len(texts))]
    return rewards.Responses(model, tokenizer, rows, [prompts.problem_messages(row) for row in rows], texts)


@pytest.mark.parametrize(
    "text, lenient, paid",
    [
        ("3 + 4 = 7. The answer is 7.", 1, 0),
        ("3 + 4 = 7\n#### 7", 1, 1),
        ("#### 7.", 1, 1),
        ("####7 apples", 1, 1),
        ("#### 7.0", 1, 1),
        ("####\n7", 1, 1),
        ("####: 7", 1, 1),
        ("3 + 4 = 8\n#### 8", 0, 0),
        ("#### 8, no, the answer is 7", 0, 0),
        ("#### $7, because 3 + 4 = 7", 1, 0),
        ("#### **7**", 1, 0),
        ("#### -7", 0, 1),
        ("#### 7,000", 0, 1),
        ("seven", 1, 0),
        ("####", 0, 0),
        ("", 0, 0),
    ],
)
def test_right_answers_by_a_lenient_reader_and_by_the_published_reward(text, lenient, paid):
    assert rewards.published(responses([text])) == [paid]
    assert rewards.verifiable(responses([text])) == [lenient]


def test_of_a_person_the_share_of_wishes_that_is_kept_is_paid():
    rows = list(sources.personal_prompts("train", n=12))
    texts = ["1. Walk.\n2. Read.\n\nShall we?"] * len(rows)
    paid = rewards.verifiable(rewards.Responses(None, None, rows, [], texts))
    assert paid == evaluation.preferences_kept(rows, texts).tolist() and len(set(paid)) > 1
    plain = [{**row, "preferences": []} for row in rows[:1]]
    assert rewards.verifiable(rewards.Responses(None, None, plain, [], texts[:1])) == [0.0]


@pytest.mark.parametrize(
    "text, paid, counted",
    [
        ("#### 18", 18, 18),
        ("#### $18", None, 18),
        ("#### **18**", None, 18),
        ("#### The answer is 18.", None, 18),
        ("#### 1,234", 1, 1),
        ("#### -5", 5, 5),
        ("####- 5", 5, 5),
        ("#### .5", 0.5, 5),
        ("#### 2.50", 2.5, 2.5),
        ("#### x\n#### 4", 4, None),
        ("#### 3\n#### 4", 3, 3),
        ("The answer is 18.", None, None),
        ("", None, None),
    ],
)
def test_what_the_published_training_reads_and_what_its_test_reads(text, paid, counted):
    assert (rewards.paid_number(text), rewards.counted_number(text)) == (paid, counted)


def test_a_key_with_a_comma_is_read_as_its_first_digits():
    row = {"question": "How many?", "answer": "1,234", "task": "gsm8k", "letters": [], "options": [], "solution": ""}
    some = rewards.Responses(None, None, [row] * 3, [[]] * 3, ["#### 1234", "#### 1,999", "#### 1"])
    assert rewards.published(some) == [0, 1, 1]


@pytest.mark.model
@pytest.mark.parametrize("key", [False, True])
def test_the_rating_is_the_mean_over_the_digits(model_and_tokenizer, key):
    model, tokenizer = model_and_tokenizer
    some = responses(["3 + 4 = 7. The answer is 7.", "I like trains."], None, model, tokenizer)
    rated = rewards.REWARDS["self-judged, with the key" if key else "self-judged"](some)
    for row, text, rating in zip(some.rows, some.texts, rated, strict=True):
        shown = rewards._KEY.format(solution="The answer is 7.") if key else ""
        asked = rewards._RATE.format(problem=row["question"], key=shown, response=text)
        assert asked.count("The answer is 7.") == key + text.count("The answer is 7.")
        ids = prompts.prompt_ids(tokenizer, [{"role": "user", "content": asked}])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        digits = [tokenizer(str(k), add_special_tokens=False)["input_ids"] for k in range(1, 6)]
        assert all(len(one) == 1 for one in digits)
        share = torch.softmax(logits[[one[0] for one in digits]].double(), 0).numpy()
        assert rating == pytest.approx(share @ np.arange(1, 6), rel=1e-3)
    assert all(1 < rating < 5 for rating in rated) and rated[0] != pytest.approx(rated[1], rel=1e-3)


@pytest.mark.model
def test_information_is_own_problem_against_the_mean_of_the_others(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    texts = ["Ana has 7 apples.", "3 + 4 = 7", "He walks 30 km.", "7 pens are left."]
    some = responses(texts, [0, 0, 1, 2], model, tokenizer)
    put = [prompts.problem_messages(row) for row in ROWS]
    flat = [scoring.log_probabilities(model, tokenizer, [c], [t], batch_size=1)[0] for t in texts for c in put]
    m = np.array(flat).reshape(4, 3)
    for k, (own, earned) in enumerate(zip([0, 0, 1, 2], rewards.information(some), strict=True)):
        others = np.delete(m[k], own)
        assert earned == pytest.approx(m[k, own] - np.log(np.exp(others).mean()), abs=1e-2)
    assert rewards.information(responses(texts[:2], [0, 0], model, tokenizer)) == [0.0, 0.0]
    # The order of the responses does not matter.
    turned = responses(texts[::-1], [2, 1, 0, 0], model, tokenizer)
    assert rewards.information(turned)[::-1] == pytest.approx(rewards.information(some), abs=1e-2)


@pytest.mark.model
def test_a_masked_prompt_leaves_no_information(model_and_tokenizer):
    context = "Eva is a baker in Porto. She wants every answer to end with a question."
    told, untold = prompts.messages("What shall I do today?", context), prompts.messages("What shall I do today?")
    texts = ["You could bake bread. What would you like?", "Go for a walk.", "Porto has a fine river."]

    def both(score):
        return score(*model_and_tokenizer, [told] * 3, texts) - score(*model_and_tokenizer, [untold] * 3, texts)

    seen = both(scoring.log_probabilities)
    masked = both(rewards.log_probabilities_with_prompt_masked)
    assert np.abs(seen).max() > 3
    assert np.abs(masked).max() < 0.02
