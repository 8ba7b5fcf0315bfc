"""Judges: a language model that reads responses and rates them. Optional, and one view among four.

Pointwise: one response and one stated preference, 1 to 5 (the paper's protocol, arXiv 2603.19294, in our own words).
Pairwise: two responses in both orders, because judges favour a place (Zheng et al. 2023, arXiv 2306.05685).
"""

import re

import numpy as np

from mipo_nb import generation, models

_POINTWISE = (
    "Somebody asked a question, and an assistant answered.\n\nQuestion: {prompt}\n\nAnswer: {response}\n\n"
    "This person {preference}. How well does the answer fit this wish? 1 means that it ignores the wish, 5 that it "
    "meets the wish fully. Reply with one digit from 1 to 5 and nothing else."
)
_PAIRWISE = (
    "Somebody asked a question, and two assistants answered.\n\nAbout this person: {context}\n\nQuestion: {prompt}\n\n"
    "Answer A: {a}\n\nAnswer B: {b}\n\nWhich answer suits this person better? Reply with the letter A or B and nothing "
    "else."
)


class LocalJudge:
    """A judge that is a model in this process. `model`, `tokenizer` as `models.load` gives them; answers greedily."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def fingerprint(self):
        return ["local judge", models.fingerprint(self.model)]

    def replies(self, conversations, *, max_tokens=16, description="replies"):
        """Greedy answers to conversations, as a list of texts."""
        call = {"max_tokens": max_tokens, "description": description}
        return generation.replies(self.model, self.tokenizer, conversations, **call)


def rate(judge, rows, responses):
    """Array [n]: mean rating 1-5 of each response over the user's stated preferences; NaN where no digit came back.

    `judge` is a `LocalJudge` or a `generation.Server`.
    """
    wishes = [[p["text"] for p in row["preferences"]] or [f"is described so: {row['context']}"] for row in rows]
    questions = [
        _POINTWISE.format(prompt=row["prompt"], response=response, preference=wish)
        for row, response, wishes_of_user in zip(rows, responses, wishes, strict=True)
        for wish in wishes_of_user
    ]
    replies = iter(_replies(judge, questions))
    means = []
    for wishes_of_user in wishes:
        digits = [_first(r"^\W*([1-5])\b|\b([1-5])\W*$", next(replies)) for _ in wishes_of_user]
        ratings = [float(digit) for digit in digits if digit]
        means.append(np.mean(ratings) if ratings else np.nan)
    return np.array(means)


def compare(judge, rows, responses, others):
    """Array [n]: 1 where `responses` wins in both orders, 0 where `others`, 1/2 for one each; NaN without a letter."""
    questions = [
        _PAIRWISE.format(context=row["context"], prompt=row["prompt"], a=a, b=b)
        for row, first, second in zip(rows, responses, others, strict=True)
        for a, b in ((first, second), (second, first))
    ]
    letters = [_first(r"^\W*([AB])\b(?! \w)|\b([AB])\W*$", text) for text in _replies(judge, questions)]
    wins = [np.nan if letter is None else float(letter == "AB"[k % 2]) for k, letter in enumerate(letters)]
    return np.reshape(wins, (-1, 2)).mean(1)


def _replies(judge, questions):
    return judge.replies([[{"role": "user", "content": text}] for text in questions], description="judging")


def _first(pattern, text):
    """The verdict where it opens or closes the reply; one in the middle of a sentence may mean anything."""
    match = re.search(pattern, text)
    return next(g for g in match.groups() if g) if match else None
