"""Crossed contexts, masked names, probes, and rules beside readings."""

import numpy as np
import pandas as pd
import pytest

from mipo_nb import sources
from mipo_nb.base.errors import UserError
from mipo_nb.preferences import KINDS, Response
from mipo_nb.studies import recognition


@pytest.fixture(scope="module")
def rows():
    return sources.personal_prompts("dev", n=60)


@pytest.mark.parametrize(("part", "kept"), [("biography", "wish"), ("wish", "biography")])
def test_candidates_differ_from_the_row_in_one_part_alone_and_hold_no_name(rows, part, kept):
    for row, contexts in zip(rows, recognition.crossed_contexts(rows, 4, part), strict=True):
        own = recognition.masked(row[kept], row["name"])
        assert len(set(contexts)) == 4 and contexts[0] == recognition.masked(row["context"], row["name"])
        assert all(own in context for context in contexts)
        assert not any(row["name"] in context.split() for context in contexts)
    assert recognition.crossed_contexts(rows, 4, part) == recognition.crossed_contexts(rows, 4, part)


def test_a_name_is_masked_as_a_whole_word():
    assert recognition.masked("Ana likes bananas, Ana's own.", "Ana") == "Kim likes bananas, Kim's own."
    assert recognition.masked("Nobody is named.", "") == "Nobody is named."


def test_rows_without_parts_and_too_few_users_are_refused(rows):
    with pytest.raises(UserError, match="a biography and a wish"):
        recognition.crossed_contexts(rows.map(lambda row: {"wish": None}), 2, "wish")
    with pytest.raises(UserError, match="lower K or add users"):
        recognition.crossed_contexts(rows.select(range(2)), 4, "wish")
    with pytest.raises(UserError, match="part"):
        recognition.crossed_contexts(rows, 2, "name")


def test_every_probe_is_put_to_a_user_whose_rule_parts_the_two_answers():
    found = recognition.probe_rows("test")
    assert sorted(found["probe_id"]) == sorted(p["probe_id"] for p in sources.own_probes())
    assert len(set(found["user_id"])) > 90
    for row in found:
        [wish] = [p for p in row["preferences"] if p["kind"] == row["kind"]]
        keeps, breaks = (Response(row[side], row["name"], (row["wish"],)) for side in ("keeps", "breaks"))
        assert KINDS[row["kind"]].keeps(keeps, wish["value"]) and not KINDS[row["kind"]].keeps(breaks, wish["value"])


def test_rules_are_set_beside_the_readings_that_agree():
    found = recognition.rules_against_readings()
    assert found["sample"].value_counts().to_dict() == {"random": 398, "topics": 147}
    assert (found[found["sample"] == "random"]["weight"] == 1).all()
    for _, some in found[found["sample"] == "random"].groupby("model"):
        assert all(share.value > 0.9 for share in recognition.precision_and_recall(some).values())


def test_precision_is_of_what_is_called_kept_and_recall_counts_by_weight():
    some = pd.DataFrame(
        {"read": [True, True, False, False], "kept": [True, False, True, False], "weight": [1.0, 9.0, 1.0, 9.0]}
    )
    found = recognition.precision_and_recall(some)
    assert found["precision"].value == 0.5 and found["recall"].value == pytest.approx(0.1)


@pytest.mark.model
def test_a_probe_is_a_difference_of_two_log_probabilities(model_and_tokenizer):
    from mipo_nb import prompts, scoring

    model, tokenizer = model_and_tokenizer
    few = recognition.probe_rows("test").select(range(3))
    asked = [prompts.messages(row["prompt"], row["context"]) for row in few]
    keeps, breaks = (
        scoring.log_probabilities(model, tokenizer, asked, list(few[side])) for side in ("keeps", "breaks")
    )
    np.testing.assert_allclose(recognition.probed(model, tokenizer, few), keeps - breaks, atol=0.3)
