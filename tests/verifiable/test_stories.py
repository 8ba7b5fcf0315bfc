"""Arithmetic stories: their steps are right, their words say the steps, and no question is in two splits."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.base.errors import UserError
from mipo_nb.verifiable import answers, stories


@given(st.integers(0, 10**9), st.sampled_from(stories.STEPS))
def test_the_steps_are_right_and_lead_to_the_answer(seed, steps):
    row = stories.problem(random.Random(seed), steps)
    assert len(row["steps"]) == steps
    checked = answers.equations(" ".join(f"{line}." for line in row["steps"]))
    assert len(checked) == steps and all(holds for _, holds in checked)
    for before, after in zip(row["steps"], row["steps"][1:], strict=False):
        assert after.startswith(before.rpartition("= ")[2] + " ")
    assert row["steps"][-1].endswith(f"= {row['answer']}") and int(row["answer"]) >= 1
    assert answers.read_number(row["solution"]) == answers.Reading("answer", int(row["answer"]), marked=True)


@given(st.integers(0, 10**9), st.sampled_from(stories.STEPS))
def test_every_number_of_the_story_is_used_and_none_is_the_answer_in_disguise(seed, steps):
    row = stories.problem(random.Random(seed), steps)
    told = Counter(re.findall(r"\d+", row["question"]))
    first, *rest = row["steps"]
    used = Counter(re.findall(r"\d+", first.partition(" = ")[0])) + Counter(
        re.findall(r"\d+", line.partition(" = ")[0])[1] for line in rest
    )
    assert told == used
    assert row["question"].endswith("?") and "{" not in row["question"] and "  " not in row["question"]


def test_splits_share_no_question_and_seeds_differ():
    drawn = {split: set(stories.problems(split, n=600)["question"]) for split in stories.SPLITS}
    assert all(len(questions) == 600 for questions in drawn.values())
    assert not drawn["train"] & drawn["test"] and not drawn["train"] & drawn["dev"] and not drawn["dev"] & drawn["test"]
    other = set(stories.problems("test", n=600, seed=1)["question"])
    assert len(other & drawn["test"]) < 60 and not other & drawn["train"]
    assert stories.problems("dev", n=20)["question"] == stories.problems("dev", n=40)["question"][:20]


def test_there_are_thousands():
    assert len(set(stories.problems("train", n=5000)["question"])) == 5000


def test_steps_come_in_turn_and_can_be_chosen():
    assert [len(steps) for steps in stories.problems("train", n=6)["steps"]] == [1, 2, 3, 1, 2, 3]
    assert {len(steps) for steps in stories.problems("train", n=6, steps=(2,))["steps"]} == {2}


@pytest.mark.parametrize(
    "options, told",
    [
        ({"split": "tset"}, "Unknown split 'tset'; did you mean 'test'?"),
        ({"split": "test", "steps": (4,)}, "Stories have 1, 2, 3 steps"),
        ({"split": "test", "steps": ()}, "Stories have 1, 2, 3 steps"),
    ],
)
def test_what_there_is_not(options, told):
    with pytest.raises(UserError, match=re.escape(told)):
        stories.problems(n=3, **options)


def test_a_copy_with_other_numbers_and_people_is_in_the_same_split():
    patterns = {
        split: {
            re.sub(r"\d+|\b(?:" + "|".join(stories._PEOPLE) + r")\b", "#", question)
            for question in stories.problems(split, n=800)["question"]
        }
        for split in stories.SPLITS
    }
    assert not patterns["train"] & patterns["test"] and not patterns["dev"] & patterns["test"]
    assert all(len(found) > 400 for found in patterns.values())
