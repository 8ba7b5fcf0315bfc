"""What a response to a problem earns: rewards for reinforcement learning, next to which MIPO's pairs can be judged.

`verifiable` and `published` look at the right answer, and so does a judge that is shown the key. A judge without it and
`information` are made of the untrained model alone, as MIPO's pairs are.
"""

import re
from dataclasses import dataclass
from functools import partial

import numpy as np

from mipo_nb import evaluation, prompts, scoring
from mipo_nb.verifiable import grading

_RATE = (
    "Here is a problem and a student's answer.\n\nProblem: {problem}\n\n{key}Answer: {response}\n\nHow good is the "
    "answer? 1 means that it is wrong, 5 that it is right and complete. Reply with one digit from 1 to 5 and nothing else."
)
_TOGETHER = 160  # rows that are scored at once: more would need more memory and no less time
_KEY = "The right solution: {solution}\n\n"
# What the authors' code reads (see docs/what_the_code_does.md): where it trains, after the mark at once; where it tests,
# anywhere after it.
_PAID, _COUNTED = re.compile(r"####\s*[:\-]?\s*([-+]?\d*\.?\d+)"), re.compile(r"\d+\.?\d*")


@dataclass(frozen=True)
class Responses:
    """Responses to be rewarded: the untrained `model`, its `tokenizer`, and n problems (rows of `problems`), the
    `conversations` in which they were put, and the `texts` of the responses."""

    model: object
    tokenizer: object
    rows: list
    conversations: list
    texts: list


def verifiable(responses):
    """1 where the answer is right wherever it can be read, else 0; for personal prompts the share of the user's wishes that
    the response keeps."""
    if responses.rows and "preferences" in responses.rows[0]:
        return np.nan_to_num(evaluation.preferences_kept(responses.rows, responses.texts)).tolist()
    return [float(right) for right in grading.graded(responses.rows, responses.texts)["right"]]


def paid_number(text):
    """The number that the published reward reads in a response, a float or None: "#### 18" is 18, "#### $18" is None,
    "#### 1,234" is 1, "#### -5" is 5."""
    match = _PAID.search(text)
    return float(match[1]) if match else None


def counted_number(text):
    """The number that the published test reads, a float: "#### $18" is 18, "#### 1,234" is 1. None where the test asks the
    model again: no digit between the first `####` and the next."""
    match = _COUNTED.search(text.partition("####")[2].partition("####")[0])
    return float(match[0]) if match else None


def published(responses):
    """1 where `paid_number` of the response is that of the key, else 0: the published RLVR's reward for numbers."""
    keys = [paid_number(f"#### {row['answer']}") for row in responses.rows]
    return [
        float(key is not None and paid_number(text) == key) for key, text in zip(keys, responses.texts, strict=True)
    ]


def self_judged(responses, key=False):
    """The untrained model's mean rating, 1 to 5, by its probabilities of the digits: a drawn digit would add noise.

    With `key` it sees the right solution, as the published judge does for mathematics and multiple choice.
    """
    questions = []
    for row, text in zip(responses.rows, responses.texts, strict=True):
        shown = _KEY.format(solution=prompts.worked(row)) if key else ""
        questions.append(_RATE.format(problem=prompts.problem_text(row), key=shown, response=text))
    starts = [prompts.prompt_ids(responses.tokenizer, [{"role": "user", "content": text}]) for text in questions]
    digits = [responses.tokenizer(str(k), add_special_tokens=False)["input_ids"] for k in range(1, 6)]
    scored = scoring.continuation_log_probabilities(
        responses.model, [s for s in starts for _ in digits], digits * len(starts), batch_size=_TOGETHER
    )
    share = np.exp(np.array([values.sum() for values in scored]).reshape(-1, 5))
    return (share @ np.arange(1, 6) / share.sum(1)).tolist()


def information(responses):
    """PMI of response and problem under the untrained model, in nats: log p(y|x) - log mean_k p(y|x_k).

    The marginal runs over up to three other problems x_k of these responses (MIPO takes one); zero where there is none.
    """
    distinct = {conversation[-1]["content"]: conversation for conversation in responses.conversations}
    if len(distinct) == 1:
        return [0.0] * len(responses.texts)
    problems, width = list(distinct), min(4, len(distinct))
    conversations = []
    for conversation in responses.conversations:
        k = problems.index(conversation[-1]["content"])
        rotated = problems[k:] + problems[:k]  # its own problem first, then the neighbours
        conversations += [distinct[problem] for problem in rotated[:width]]
    texts = [text for text in responses.texts for _ in range(width)]
    model, tokenizer = responses.model, responses.tokenizer
    scores = scoring.log_probabilities(model, tokenizer, conversations, texts, batch_size=_TOGETHER).reshape(-1, width)
    return (scores[:, 0] - np.logaddexp.reduce(scores[:, 1:], axis=1) + np.log(width - 1)).tolist()


REWARDS = {
    "verifiable": verifiable,
    "published": published,
    "strict": published,  # its name in notebook 31
    "self-judged": self_judged,
    "self-judged, with the key": partial(self_judged, key=True),
    "information": information,
}


def log_probabilities_with_prompt_masked(model, tokenizer, conversations, responses):
    """Array [n]: log p(response) in nats with the prompt masked out of attention, all but its last token.

    What is left of it is the response's positions, so that a difference between two conversations is (nearly) zero
    whatever they say: the suspected fault of the published reward PPO(MI). For that comparison only.
    """
    import torch

    log_probabilities = []
    for conversation, response in zip(conversations, responses, strict=True):
        start = prompts.prompt_ids(tokenizer, conversation)
        end = prompts.completion_ids(tokenizer, conversation, response)
        tokens = torch.tensor([start + end], device=model.device)
        mask = torch.ones_like(tokens)
        mask[:, : len(start) - 1] = 0
        positions = torch.arange(tokens.shape[1], device=model.device)[None]
        with torch.inference_mode():
            logits = model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits[0, len(start) - 1 : -1]
        picked = logits.float().log_softmax(-1).gather(-1, tokens[0, len(start) :, None])
        log_probabilities.append(float(picked.sum()))
    return np.array(log_probabilities)
