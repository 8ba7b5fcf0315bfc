"""Solutions with one link broken: each text differs from the right one in its link and in nothing else."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.base.errors import UserError
from mipo_nb.verifiable import answers, corruptions, grading, problems, stories

STEP = re.compile(r"(\d+) ([-+x/]) (\d+) = (\d+)")


def problem(seed, steps):
    row = stories.problem(random.Random(seed), steps)
    return {**row, "letters": [], "options": []}


ROWS = {steps: [problem(seed, steps) for seed in range(200)] for steps in stories.STEPS}
SOLUTIONS = {steps: {each["right"] for each in corruptions.broken(rows)} for steps, rows in ROWS.items()}
KIND = {"right": "right", "topic": "off-topic", "arithmetic": "arithmetic slip", "reasoning": "wrong reasoning"}


def texts(seed, steps):
    """(a problem, its texts) beside a hundred others."""
    row = problem(seed, steps)
    return row, corruptions.broken([row, *ROWS[steps][:100]])[0]


anything = given(st.integers(1000, 10**9), st.sampled_from(stories.STEPS))


def test_every_text_is_given_for_every_problem():
    found = corruptions.broken(ROWS[1])
    assert len(found) == 200 and all(list(each) == ["right", *corruptions.LINKS] for each in found)
    assert all(len(set(each.values())) == 5 for each in found)


@anything
def test_the_rules_that_grade_responses_call_each_break_by_its_name(seed, steps):
    """`answers.error_kind`, which knows nothing of how the texts were made."""
    row, found = texts(seed, steps)
    for name, kind in KIND.items():
        reading = answers.read_number(found[name])
        assert reading.marked and answers.error_kind(row["question"], found[name], reading, grading.gold(row)) == kind


@anything
def test_without_its_form_a_solution_is_the_right_one_up_to_its_closing_phrase(seed, steps):
    row, found = texts(seed, steps)
    assert found["right"] == f"{found['form']} The answer is {row['answer']}."
    assert not answers.read_number(found["form"]).marked


@anything
def test_a_wrong_sum_changes_one_number_and_no_length(seed, steps):
    row, found = texts(seed, steps)
    *same, (a, sign, b, right) = STEP.findall(found["right"])
    *before, (*step, wrong) = STEP.findall(found["arithmetic"])
    assert before == same and step == [a, sign, b] and wrong != right and len(wrong) == len(right)
    assert wrong not in (a, b) and abs(int(wrong) - int(right)) <= 4
    assert found["arithmetic"] == re.sub(rf"\b{right}\.", f"{wrong}.", found["right"])
    assert [holds for _, holds in answers.equations(found["arithmetic"])] == [True] * (steps - 1) + [False]


@anything
def test_wrong_reasoning_takes_another_operation_on_the_same_numbers_and_calculates_it_rightly(seed, steps):
    row, found = texts(seed, steps)
    *same, (a, sign, b, right) = STEP.findall(found["right"])
    *before, (first, other, second, result) = STEP.findall(found["reasoning"])
    assert before == same and (first, second) == (a, b) and other != sign and result != right
    assert all(holds for _, holds in answers.equations(found["reasoning"]))
    assert found["reasoning"].endswith(f"The answer is {result}.")


@anything
def test_another_topic_is_another_problems_solution_of_the_same_operations(seed, steps):
    row, found = texts(seed, steps)
    assert found["topic"] in SOLUTIONS[steps]
    if steps == 1:  # of a hundred problems there is one that shares none of the numbers
        assert not set(re.findall(r"\d+", found["topic"])) & set(re.findall(r"\d+", found["right"]))
        assert re.findall(r" ([-+x/]) ", found["topic"]) == re.findall(r" ([-+x/]) ", found["right"])


def test_wrong_sums_lean_neither_way():
    gaps = []
    for row, each in zip(ROWS[1], corruptions.broken(ROWS[1]), strict=True):
        gaps.append(int(answers.read_number(each["arithmetic"]).value) - int(row["answer"]))
    assert 60 < sum(gap > 0 for gap in gaps) < 140


def row_of(solution, answer):
    return {"question": "How many?", "solution": solution, "answer": answer, "letters": [], "task": "stories-1"}


def test_the_texts_of_one_problem():
    found = corruptions.broken(
        [row_of("7 + 5 = 12. #### 12", "12"), row_of("3 + 4 = 7.", "7"), row_of("9 + 2 = 11.", "11")]
    )
    assert found[0]["topic"] == "9 + 2 = 11. The answer is 11."  # the first shares a number
    assert found[0]["form"] == "7 + 5 = 12." and found[0]["reasoning"] == "7 x 5 = 35. The answer is 35."
    assert found[0]["arithmetic"] in ("7 + 5 = 13. The answer is 13.", "7 + 5 = 11. The answer is 11.")
    assert corruptions.broken([row_of("2 x 2 = 4.", "4"), row_of("3 + 4 = 7.", "7")])[0]["reasoning"][:9] == "2 / 2 = 1"


@pytest.mark.parametrize(
    "solution, answer", [("", "3"), ("He has 3.", "3"), ("3 + 4 = 7. So 7", "7"), ("3 + 4 = 7.", "8")]
)
def test_a_solution_without_a_last_step_is_refused(solution, answer):
    with pytest.raises(UserError, match="does not end in a step like"):
        corruptions.broken([row_of(solution, answer), row_of("3 + 4 = 7.", "7")])


def test_one_solution_alone_is_refused():
    with pytest.raises(UserError, match="needs two problems"):
        corruptions.broken([row_of("3 + 4 = 7.", "7")] * 2)


def test_stories_as_notebooks_load_them_can_be_broken():
    rows = list(problems.load("stories-1", "test", n=30))
    assert len(corruptions.broken(rows)) == 30
