"""Accuracy on problems with a right answer, by two protocols: what a model writes, and which option it finds likeliest.

Rows are those of `problems`. By writing, a response is sampled after `prompts.problem_messages` and read by `answers`. By
likelihood nothing is sampled: each option of a multiple-choice question is scored, and a rule picks one.
"""

import numpy as np

from mipo_nb import prompts, scoring
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.engine import templates
from mipo_nb.verifiable import answers

FORMS = ("letter", "cloze", "plain", "plain without question")
RULES = ("likelihood", "per character", "PMI")
_OPENING = "The answer is"


def gold(row):
    """The right answer as `answers` reads one: a `Fraction`, or a letter."""
    return row["answer"] if row["letters"] else answers.number(row["answer"])


def read(row, response):
    """The `answers.Reading` of a response to a problem."""
    if row["letters"]:
        return answers.read_letter(response, dict(zip(row["letters"], row["options"], strict=True)))
    return answers.read_number(response)


def graded(rows, responses):
    """`pandas.DataFrame` [n rows]: `outcome` and `value` as read, `right` (bool), `kind` (of `answers.KINDS`), `words`."""
    import pandas as pd

    table = []
    for row, response in zip(rows, responses, strict=True):
        reading, words = read(row, response), float(len(response.split()))
        kind = answers.error_kind(prompts.problem_text(row), response, reading, gold(row))
        value = None if reading.value is None else str(reading.value)
        right = kind == "right"
        table.append({"outcome": reading.outcome, "value": value, "right": right, "kind": kind, "words": words})
    return pd.DataFrame(table)


def option_scores(model, tokenizer, rows, form, *, batch_size=64, folder=None, description="options"):
    """List of arrays, one per problem: log p of each option in nats, summed over its tokens.

    `form` is what is asked and scored: "letter" (the options are listed, the letter is scored after "The answer is"),
    "cloze" (the question alone, the option's text is the reply), "plain" (no chat template: "Question: ... Answer:", as
    base models are tested), "plain without question" ("Answer:" alone: how likely the option is anyway). The question is
    computed once for all its options. Raises `UserError` for another form, or a problem without options.
    """
    require_known("form", form, FORMS)
    pairs = [pair for row in rows for pair in _asked(tokenizer, row, form)]
    starts, ends = [start for start, _ in pairs], [end for _, end in pairs]
    call = {"batch_size": batch_size, "folder": folder, "description": description}
    sums = iter([values.sum() for values in scoring.continuation_log_probabilities(model, starts, ends, **call)])
    return [np.array([next(sums) for _ in row["letters"]]) for row in rows]


def _asked(tokenizer, row, form):
    """[(token ids of what is asked, token ids of an option)] for the options of a row."""
    if not row["letters"]:
        raise UserError(f"A problem of '{row['task']}' has no options to score; use a multiple-choice task.")
    encode = lambda text: tokenizer(templates.plain(tokenizer, text), add_special_tokens=False)["input_ids"]  # noqa: E731
    if form == "letter":
        start, opening = prompts.prompt_ids(tokenizer, prompts.problem_messages(row)), encode(_OPENING)
        return [(start + opening, encode(f"{_OPENING} {letter}")[len(opening) :]) for letter in row["letters"]]
    if form == "cloze":
        start = prompts.prompt_ids(tokenizer, prompts.messages(row["question"]))
        return [(start, encode(option)) for option in row["options"]]
    text = "Answer:" if form == "plain without question" else f"Question: {row['question']}\nAnswer:"
    start = encode(text)
    # Text and option are cut into tokens together, as they would stand in a document.
    return [(start, encode(f"{text} {option}")[len(start) :]) for option in row["options"]]


def picked(rows, scores, rule, without=None):
    """Array [n] of 0 and 1: whether the option that the rule picks is the right one; ties share the credit.

    `scores` are those of `option_scores`. "likelihood" takes the likeliest option, "per character" the highest
    log-probability per character (`acc_norm` of EleutherAI's harness), "PMI" the largest log p(option | question) -
    log p(option), which is in `without` (Holtzman et al. 2021, arXiv 2104.08315). Raises `UserError` for another rule.
    """
    require_known("rule", rule, RULES)
    credit = []
    for k, row in enumerate(rows):
        values = np.asarray(scores[k], dtype=float)
        if rule == "per character":
            values = values / [len(option) for option in row["options"]]
        elif rule == "PMI":
            values = values - without[k]
        best = values == values.max()
        credit.append(best[row["letters"].index(row["answer"])] / best.sum())
    return np.array(credit)
