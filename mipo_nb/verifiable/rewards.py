"""What a response to a problem earns: rewards for reinforcement learning, next to which MIPO's pairs can be judged.

Only `verifiable` and `strict` look at the right answer. `self_judged` and `information` are made of the untrained model
alone, as MIPO's pairs are.
"""

from dataclasses import dataclass

import numpy as np

from mipo_nb import prompts, scoring
from mipo_nb.verifiable import answers, grading

_RATE = (
    "Here is a problem and a student's answer.\n\nProblem: {problem}\n\nAnswer: {response}\n\nHow good is the answer? "
    "1 means that it is wrong, 5 that it is right and complete. Reply with one digit from 1 to 5 and nothing else."
)


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
    """1 where the answer is right wherever it can be read, else 0."""
    return [float(right) for right in grading.graded(responses.rows, responses.texts)["right"]]


def strict(responses):
    """1 where the first number after `####` is right, else 0: the form that the published baseline insists on."""
    return [
        float(answers.same(answers.after_hashes(text), grading.gold(row)))
        for row, text in zip(responses.rows, responses.texts, strict=True)
    ]


def self_judged(responses):
    """The rating from 1 to 5 that the untrained model gives on average: the mean over the probabilities of the digits.

    The mean over the five digits, instead of one digit that is written: a rating without the noise of drawing it.
    """
    starts = []
    for row, text in zip(responses.rows, responses.texts, strict=True):
        asked = _RATE.format(problem=prompts.problem_text(row), response=text)
        starts.append(prompts.prompt_ids(responses.tokenizer, [{"role": "user", "content": asked}]))
    digits = [responses.tokenizer(str(k), add_special_tokens=False)["input_ids"] for k in range(1, 6)]
    scored = scoring.continuation_log_probabilities(
        responses.model, [s for s in starts for _ in digits], digits * len(starts), batch_size=5 * len(starts)
    )
    share = np.exp(np.array([one.sum() for one in scored]).reshape(-1, 5))
    return (share @ np.arange(1, 6) / share.sum(1)).tolist()


def information(responses):
    """PMI of response and problem under the untrained model, in nats: log p(y|x) - log mean_k p(y|x_k).

    The marginal is taken over the other problems x_k among these responses (up to three of them), as MIPO's random
    prompts do with one. Zero where there is no other problem.
    """
    problems = list(dict.fromkeys(map(_key, responses.conversations)))
    if len(problems) == 1:
        return [0.0] * len(responses.texts)
    of = dict(zip(map(_key, responses.conversations), responses.conversations, strict=True))
    asked = []
    for conversation in responses.conversations:
        at = problems.index(_key(conversation))
        turned = [*problems[at:], *problems[:at]]  # the own one first, then its neighbours
        asked.append([of[key] for key in turned[:4]])
    flat = scoring.log_probabilities(
        responses.model,
        responses.tokenizer,
        [one for row in asked for one in row],
        [text for row, text in zip(asked, responses.texts, strict=True) for _ in row],
        batch_size=len(asked[0]) * len(asked),
    ).reshape(len(asked), -1)
    return (flat[:, 0] - np.logaddexp.reduce(flat[:, 1:], axis=1) + np.log(flat.shape[1] - 1)).tolist()


def _key(conversation):
    return conversation[-1]["content"]


REWARDS = {"verifiable": verifiable, "strict": strict, "self-judged": self_judged, "information": information}


def log_probabilities_with_prompt_masked(model, tokenizer, conversations, responses):
    """Array [n]: log p(response) in nats with the prompt masked out of attention, all but its last token.

    What is left of it is the response's positions, so that a difference between two conversations is (nearly) zero
    whatever they say: the suspected fault of the published reward PPO(MI). For that comparison only.
    """
    import torch

    found = []
    for conversation, response in zip(conversations, responses, strict=True):
        start = prompts.prompt_ids(tokenizer, conversation)
        end = prompts.completion_ids(tokenizer, conversation, response)
        tokens = torch.tensor([start + end], device=model.device)
        seen = torch.ones_like(tokens)
        seen[:, : len(start) - 1] = 0
        with torch.inference_mode():
            places = torch.arange(tokens.shape[1], device=model.device)[None]
            logits = model(input_ids=tokens, attention_mask=seen, position_ids=places).logits[0, len(start) - 1 : -1]
        picked = logits.float().log_softmax(-1).gather(-1, tokens[0, len(start) :, None])
        found.append(float(picked.sum()))
    return np.array(found)
