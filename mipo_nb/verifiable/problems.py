"""Problems with a right answer: GSM8K, SVAMP, ARC and MMLU from the hub or a folder, and the project's own stories.

A row has `question`, `answer` (a number as text, or a letter), `task`, `letters` and `options` (empty where the answer
is a number), and `solution` (worked out, where the data set has one). `train` is what pairs are made of; `dev`, a tenth
of the training rows by a hash of the question, is for choices; `test` is measured once.
"""

import json
import os
import random
import re
from collections import Counter, defaultdict
from itertools import accumulate
from pathlib import Path

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.splits import share_of
from mipo_nb.sources import SPLITS
from mipo_nb.verifiable import stories

# task: (hub id, configuration, commit, where it lies in a folder of JSONL, the file of each split)
HUB = {
    "gsm8k": ("openai/gsm8k", "main", "e53f048856ff4f594e959d75785d2c2d37b678ee", "gsm8k", ("train", "test")),
    "svamp": ("ChilleD/SVAMP", None, "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef", "svamp", ("train", "test")),
    "arc_challenge": (
        "allenai/ai2_arc", "ARC-Challenge", "210d026faf9955653af8916fad021475a3f00453", "ai2_arc/ARC-Challenge", ("train", "test"),
    ),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", "210d026faf9955653af8916fad021475a3f00453", "ai2_arc/ARC-Easy", ("train", "test")),
    "mmlu": ("cais/mmlu", "all", "c30699e8356da336a370243923dbaf21066bb9fe", "mmlu", ("dev", "test")),
}  # fmt: skip
STORIES = {"stories": (1, 2, 3), "stories-1": (1,), "stories-2": (2,), "stories-3": (3,)}  # of how many steps
TASKS = (*STORIES, *HUB)
_LETTERS = "ABCDEFGH"


def load(task, split, *, n=None, seed=0):
    """A `datasets.Dataset` of at most `n` problems of a task, in an order drawn from `seed`.

    Real data comes from the folder that MIPO_NB_DATA names, one JSONL per split with the hub's own columns, else from
    the hub at a pinned commit. Training and development rows that nearly repeat a question of the test rows are left out:
    the published splits share some. Raises `UserError` for an unknown task or split, and where the data cannot be had.
    """
    from datasets import Dataset

    for what, name, known in (("task", task, TASKS), ("split", split, SPLITS)):
        require_known(what, name, known)
    if task in STORIES:
        invented = stories.problems(split, n=n or 1000, seed=seed, steps=STORIES[task])
        return Dataset.from_list([_row(r["question"], r["answer"], task, solution=r["solution"]) for r in invented])
    rows = [_read(task, row) for row in _rows(task, HUB[task][4][split == "test"])]
    if split != "test":
        rows = [row for row in rows if (share_of(row["question"]) < 0.1) == (split == "dev")]
    random.Random(f"{task}-{split}-{seed}").shuffle(rows)
    if split != "test":
        rows = _unlike(rows, [_read(task, row)["question"] for row in _rows(task, HUB[task][4][True])], n)
    return Dataset.from_list(rows[:n])


def _unlike(rows, questions, n):
    """The first `n` of the rows, or all, whose question is none of `questions` nor nearly so."""
    unlike, size = [], n or len(rows)
    while rows and len(unlike) < size:
        batch, rows = rows[:size], rows[size:]
        alike = set(near_duplicates([row["question"] for row in batch], questions))
        unlike += [row for k, row in enumerate(batch) if k not in alike]
    return unlike


def at_hand(tasks):
    """(those of the tasks whose data can be had here, {task: why not} of the others). Raises `UserError` for an unknown one."""
    available, missing = [], {}
    for task in tasks:
        require_known("task", task, TASKS)
        try:
            for part in HUB[task][4] if task in HUB else ():
                _rows(task, part)
            available.append(task)
        except UserError as e:
            missing[task] = str(e)
    return available, missing


def _rows(task, part):
    """The rows of one file of a data set, in the hub's own columns."""
    repository, configuration, commit, subfolder, _ = HUB[task]
    if folder := os.environ.get("MIPO_NB_DATA"):
        file = Path(folder).expanduser() / subfolder / f"{part}.jsonl"
        if not file.is_file():
            raise UserError(f"MIPO_NB_DATA has no file {file}; add it, or unset MIPO_NB_DATA to use the hub.")
        with file.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    from datasets import load_dataset

    try:
        return list(load_dataset(repository, configuration, split=part, revision=commit))
    except Exception as e:  # the hub's client raises many kinds for one thing: it cannot be had
        raise UserError(
            f"{repository} could not be loaded ({type(e).__name__}); check the network, set MIPO_NB_DATA to a folder with "
            f"{subfolder}/{part}.jsonl, or use the task 'stories'."
        ) from None


def _row(question, answer, task, options=(), solution=""):
    question, *options = (" ".join(text.split()) for text in (question, *options))
    row = {"question": question, "answer": answer, "task": task, "letters": list(_LETTERS[: len(options)])}
    return {**row, "options": options, "solution": solution}


def _read(task, row):
    """A row of the hub's as one of ours. Options get letters in their order: some of ARC's are numbered."""
    if task == "gsm8k":
        solution, _, answer = row["answer"].rpartition("####")
        solution = re.sub("<<[^>]*>>", "", solution).strip()
        return _row(row["question"], answer.strip().replace(",", ""), task, solution=solution)
    if task == "svamp":
        body, number = row["Body"].strip(), float(row["Answer"])
        stop = "" if body.endswith((".", "?", "!", ",")) else "."
        equation = f"{_equation(row['Equation'])} = {number:.12g}." if row.get("Equation") else ""
        return _row(f"{body}{stop} {row['Question']}", f"{number:.12g}", task, solution=equation)
    if task == "mmlu":
        return _row(row["question"], _LETTERS[row["answer"]], task, row["choices"])
    labels, options = row["choices"]["label"], row["choices"]["text"]
    return _row(row["question"], _LETTERS[labels.index(row["answerKey"])], task, options)


def _equation(text):
    """SVAMP's "( 8.0 - 2.0 )" as it would be written: "8 - 2"."""
    text = re.sub(r"(\d)\.0\b", r"\1", text.replace("*", "x").strip())
    text = text.replace("( ", "(").replace(" )", ")")
    depths = list(accumulate((sign == "(") - (sign == ")") for sign in text))
    # Every operation has brackets; the outermost pair, which only the last sign closes, says nothing.
    return text[1:-1] if text.startswith("(") and all(depths[:-1]) and not depths[-1] else text


def near_duplicates(questions, others, *, alike=0.7):
    """Indices of `questions` that are one of `others` but for case, punctuation and little else.

    Texts are alike where their runs of four words overlap by `alike` of their union (Jaccard), or their words agree.
    """
    words = lambda text: re.findall(r"[^\W_]+", text.lower())  # noqa: E731
    runs = lambda w: {tuple(w[k : k + 4]) for k in range(max(1, len(w) - 3))}  # noqa: E731
    questions, others = ([runs(words(text)) for text in texts] for texts in (questions, others))
    holders = defaultdict(list)
    for k, other in enumerate(others):
        for run in other:
            holders[run].append(k)
    duplicates = []
    for i, question in enumerate(questions):
        shared = Counter(k for run in question for k in holders.get(run, ()))
        if any(count >= alike * len(question | others[k]) for k, count in shared.items()):
            duplicates.append(i)
    return duplicates
