"""Reasoning as the paper's public code evaluates it (arXiv 2603.19294), in our own words: prompts, readers, extraction.

Mathematics: worked examples and the problem in one user turn; what counts is the number after `####`, and where there is
none the same model is asked to take the number out of its response. Multiple choice: no examples, and the letter after a
fixed closing phrase, A to D. A stricter reading of the same problems is in `reasoning`.
"""

import re

from mipo_nb import generation, prompts
from mipo_nb.verifiable import answers, grading

SOLVE = "Solve the last problem the way the ones before it are solved. End with #### and the answer as a number."
CHOOSE = "Choose the right option. Give a short reason, then end with this sentence: The answer is X."
EXTRACT = (
    "Here is a problem and somebody's solution.\n\nProblem: {problem}\n\nSolution: {response}\n\nWhich number does the "
    "solution give as its answer? Reply with that number and nothing else."
)
HASHES = "\n#### {answer}"  # how a worked example ends
_LETTER = re.compile(r"\b(?i:answer is):?\s*\(?([A-D])\b")


def messages(problem, exemplars=()):
    """Chat messages for a problem (a row of `problems`): one user turn, the worked exemplars in it; no system message."""
    if problem["letters"]:
        return [{"role": "user", "content": f"{prompts.problem_text(problem)}\n\n{CHOOSE}"}]
    examples = [
        f"Problem: {prompts.problem_text(shown)}\nSolution: {prompts.worked(shown, HASHES)}" for shown in exemplars
    ]
    parts = [SOLVE, *examples, f"Problem: {prompts.problem_text(problem)}\nSolution:"]
    return [{"role": "user", "content": "\n\n".join(parts)}]


def marked(problem, response):
    """What a response gives in the demanded form: a `Fraction`, a letter from A to D, or None. The first one counts."""
    if not problem["letters"]:
        return answers.after_hashes(response)
    letter = _LETTER.search(response)
    return letter and letter[1]


def up_to_answer(response):
    """A response up to its first marked number, all of it where there is none: a small model goes on with new problems."""
    number = answers.AFTER_HASHES.search(response)
    return response[: number.end()] if number else response


def answered(model, tokenizer, rows, exemplars, sampling, *, seed, folder=None, description="answers as published"):
    """A `datasets.Dataset`, one row per problem: `text`, `finished`, `marked` (in the demanded form), `value` (as text, or
    None), `right`. A number that is not marked is asked of the same model, greedily, in a conversation of its own."""
    from datasets import Dataset

    requests = [messages(row, exemplars) for row in rows]
    call = {"seed": seed, "folder": folder, "description": description}
    responses = generation.sample(model, tokenizer, requests, sampling, **call).to_list()
    values = [marked(row, response["text"]) for row, response in zip(rows, responses, strict=True)]
    for response, value in zip(responses, values, strict=True):
        response["marked"] = value is not None
    unmarked = [k for k, row in enumerate(rows) if values[k] is None and not row["letters"]]
    if unmarked:
        pairs = [(prompts.problem_text(rows[k]), responses[k]["text"]) for k in unmarked]
        questions = [EXTRACT.format(problem=problem, response=text) for problem, text in pairs]
        requests = [[{"role": "user", "content": question}] for question in questions]
        greedy = generation.Sampling(temperature=0, max_new_tokens=12, batch_size=sampling.batch_size)
        folder = folder / "extraction" if folder else None
        texts = generation.sample(model, tokenizer, requests, greedy, seed=seed, folder=folder)["text"]
        for k, text in zip(unmarked, texts, strict=True):
            values[k] = answers.read_number(text).value
    for row, response, value in zip(rows, responses, values, strict=True):
        response["value"] = None if value is None else str(value)
        response["right"] = bool(answers.same(value, grading.gold(row)))
    return Dataset.from_list(responses)
