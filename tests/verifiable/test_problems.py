"""Problems with a right answer: columns, odd rows, splits, what is said when they cannot be had, near duplicates."""

import json
import os
import re
from fractions import Fraction
from pathlib import Path

import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.verifiable import answers, problems

DATA = Path(os.environ.get("MIPO_NB_DATA") or Path(os.environ.get("MIPO_NB_SHARED", "no folder")) / "data")
COLUMNS = ["question", "answer", "task", "letters", "options", "solution"]

# Rows of the hub's columns, odd ones among them.
RAW = {
    "gsm8k/train": [{"question": f"Q {k}?", "answer": f"{k} + 1 = <<{k}+1={k + 1}>>{k + 1}\n#### 1,{k:03d}"} for k in range(40)],
    "gsm8k/test": [{"question": "Q?", "answer": "It falls.\n#### -3"}],
    "svamp/train": [{"Body": "He has 3 pens", "Question": "How many?", "Answer": "3.0", "Equation": "( 8.0 - 5.0 )"}] * 3,
    "svamp/test": [{"Body": "Half is left.", "Question": "How much?", "Answer": "0.5"}],
    "ai2_arc/ARC-Easy/test": [
        {"question": "Which?", "choices": {"label": ["1", "2", "3", "4"], "text": list("wxyz")}, "answerKey": "3"},
        {"question": "Which of\nfive?", "choices": {"label": list("ABCDE"), "text": list("vwxyz")}, "answerKey": "E"},
        {"question": "Which of three?", "choices": {"label": list("ABC"), "text": list("xyz")}, "answerKey": "B"},
    ],
    "mmlu/test": [{"question": "Which?", "choices": list("wxyz"), "answer": 2, "subject": "s"}],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, rows in RAW.items():
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    monkeypatch.setenv("MIPO_NB_DATA", str(tmp_path))
    return tmp_path


def test_odd_rows_are_read(folder):
    assert sorted(problems.load("arc_easy", "test")["answer"]) == ["B", "C", "E"]
    assert sorted(map(len, problems.load("arc_easy", "test")["letters"])) == [3, 4, 5]
    assert "Which of five?" in problems.load("arc_easy", "test")["question"]
    assert problems.load("gsm8k", "test")["answer"] == ["-3"]
    row = problems.load("gsm8k", "train")[0]
    assert re.fullmatch(r"1\d{3}", row["answer"]) and re.fullmatch(r"(\d+) \+ 1 = \d+", row["solution"])
    assert problems.load("svamp", "test")["question"] == ["Half is left. How much?"]
    assert problems.load("svamp", "test")["answer"] == ["0.5"] and problems.load("svamp", "train")["answer"][0] == "3"
    assert problems.load("svamp", "train")["question"][0] == "He has 3 pens. How many?"
    assert problems.load("mmlu", "test")["answer"] == ["C"]


def test_dev_is_taken_out_of_train(folder):
    parts = [set(problems.load("gsm8k", split)["question"]) for split in ("train", "dev")]
    assert sum(map(len, parts)) == len(parts[0] | parts[1]) == 40 and 1 <= len(parts[1]) <= 12
    assert problems.load("gsm8k", "train", n=5)["question"] == problems.load("gsm8k", "train")["question"][:5]
    assert problems.load("gsm8k", "train", n=9, seed=1)["question"] != problems.load("gsm8k", "train", n=9)["question"]


@pytest.mark.parametrize(
    "task, split, told",
    [
        ("gsmk8", "test", "Unknown task 'gsmk8'; did you mean 'gsm8k'?"),
        ("gsm8k", "tset", "Unknown split 'tset'; did you mean 'test'?"),
        ("arc_challenge", "test", "MIPO_NB_DATA has no file"),
        ("stories", "exam", "Unknown split 'exam'"),
    ],
)
def test_what_cannot_be_had_is_explained(folder, task, split, told):
    with pytest.raises(UserError, match=re.escape(told)):
        problems.load(task, split)


def test_without_folder_and_hub_the_stories_are_named(monkeypatch):
    monkeypatch.delenv("MIPO_NB_DATA", raising=False)
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: (_ for _ in ()).throw(ConnectionError("no")))
    with pytest.raises(UserError, match="openai/gsm8k could not be loaded .*use the task 'stories'"):
        problems.load("gsm8k", "test")


def test_stories_have_the_same_columns():
    rows = problems.load("stories", "train", n=6)
    assert rows.column_names == COLUMNS and len(rows) == 6 and rows["letters"][0] == []


def test_near_duplicates_are_found_and_others_left():
    tests = ["Tom has 12 red marbles and gives 5 of them to his sister. How many are left?", "What is it?"]
    trained = [
        "tom has 12 red marbles, and gives 5 of them to his sister -- how many are left",
        "Tom has 14 red marbles and gives 9 of them to his sister. How many are left?",
        "A train leaves at noon. When does it arrive?",
        "What is it?!",
        "What was it?",
    ]
    assert problems.near_duplicates(trained, tests) == [0, 3]
    assert problems.near_duplicates(trained, []) == [] and problems.near_duplicates([], tests) == []


@pytest.mark.skipif(not DATA.is_dir(), reason="MIPO_NB_DATA names no folder with the data sets")
@pytest.mark.parametrize("task", problems.HUB)
def test_real_data_is_read_whole(task, monkeypatch):
    monkeypatch.setenv("MIPO_NB_DATA", str(DATA))
    sizes = {"gsm8k": 1319, "svamp": 300, "arc_challenge": 1172, "arc_easy": 2376, "mmlu": 14042}
    rows = problems.load(task, "test")
    assert len(rows) == sizes[task] and rows.column_names == COLUMNS
    for row in rows:
        assert row["question"] and len(row["letters"]) == len(row["options"])
        if row["letters"]:
            assert row["answer"] in row["letters"] and 2 <= len(row["options"]) <= 5
        else:
            assert isinstance(answers.number(row["answer"]), Fraction)
    trained = problems.load(task, "train")["question"]
    assert not set(trained) & set(problems.load(task, "dev")["question"])


@pytest.mark.parametrize(
    "equation, written",
    [
        ("( 8.0 - 2.0 )", "8 - 2"),
        ("( ( 3.0 + 4.5 ) * 2.0 )", "(3 + 4.5) x 2"),
        ("( 3.0 + 4.0 ) - ( 2.0 * 10.0 )", "(3 + 4) - (2 x 10)"),
        ("5.0 * 2.0", "5 x 2"),
    ],
)
def test_svamps_equation_becomes_its_solution(folder, monkeypatch, equation, written):
    row = {"Body": "He has pens.", "Question": "How many?", "Answer": "7.0", "Equation": equation}
    (folder / "svamp/train.jsonl").write_text(
        "".join(json.dumps({**row, "Body": f"Pens {k}."}) + "\n" for k in range(9))
    )
    assert set(problems.load("svamp", "train")["solution"]) == {f"{written} = 7."}


def test_a_large_answer_keeps_all_its_digits(folder, monkeypatch):
    row = {
        "Body": "He earns.",
        "Question": "How much?",
        "Answer": "1054997.0",
        "Equation": "( ( 28.0 + 939.0 ) * 1091.0 )",
    }
    (folder / "svamp/test.jsonl").write_text(json.dumps(row) + "\n")
    [row] = problems.load("svamp", "test")
    assert row["answer"] == "1054997" and row["solution"] == "(28 + 939) x 1091 = 1054997."


@pytest.mark.skipif(not DATA.is_dir(), reason="MIPO_NB_DATA names no folder with the data sets")
@pytest.mark.parametrize("task", ["stories", "gsm8k", "svamp", "arc_easy", "arc_challenge"])
def test_no_test_question_is_among_those_that_pairs_are_made_of(task, monkeypatch):
    """Exact or nearly so. What the data sets' own splits share is found, and left out of the training rows."""
    monkeypatch.setenv("MIPO_NB_DATA", str(DATA))
    tests = problems.load(task, "test")["question"]
    for split in ("train", "dev"):
        # Of a set of thousands, those that a training of ours would draw first, and as many from the end.
        drawn = problems.load(task, split)["question"]
        assert problems.near_duplicates([*drawn[:400], *drawn[-400:]], tests) == []


@pytest.mark.skipif(not DATA.is_dir(), reason="MIPO_NB_DATA names no folder with the data sets")
def test_the_published_splits_do_share_questions(monkeypatch):
    """So leaving them out is not for nothing."""
    monkeypatch.setenv("MIPO_NB_DATA", str(DATA))
    rows = [problems._read("arc_easy", row)["question"] for row in problems._rows("arc_easy", "train")]
    tests = problems.load("arc_easy", "test")["question"]
    shared = problems.near_duplicates(rows, tests)
    assert 5 <= len(shared) < 40
    assert not {rows[k] for k in shared} & {
        q for s in ("train", "dev") for q in problems.load("arc_easy", s)["question"]
    }


def test_stories_of_so_many_steps_are_tasks_of_their_own():
    rows = problems.load("stories-2", "test", n=12)
    assert rows.column_names == COLUMNS and set(rows["task"]) == {"stories-2"}
    assert {solution.count("=") for solution in rows["solution"]} == {2}


def test_what_is_at_hand_is_told_from_what_is_not(folder):
    found, missing = problems.at_hand(["stories-1", "svamp", "arc_challenge", "gsm8k"])
    assert found == ["stories-1", "svamp", "gsm8k"] and list(missing) == ["arc_challenge"]
    assert "arc_challenge" not in missing["arc_challenge"] and "no file" in missing["arc_challenge"]
    with pytest.raises(UserError, match="did you mean 'svamp'"):
        problems.at_hand(["swamp"])
