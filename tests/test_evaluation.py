"""The views of personalization: preferences kept, text health, and telling contexts apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import evaluation, sources
from mipo_nb.base.errors import UserError


def wish(kind, value=None):
    return {"text": f"wants {kind}", "kind": kind, "value": value}


TASTE = {"text": "likes a warm tone", "kind": None, "value": None}


def row(*wishes, name="Ada", context="Ada repairs clocks in a small town.", user="u1"):
    return {"prompt": "What now?", "context": context, "user_id": user, "name": name, "preferences": list(wishes)}


# --- preferences ---


def test_the_share_of_kept_preferences_by_hand():
    both = row(TASTE, wish("at_most_words", 4), wish("ends_with_question"))
    rows = [both, both, both, row(TASTE), row(), row(wish("calls_by_name")), row(wish("calls_by_name"), name="Bo")]
    responses = [
        "Shall we walk?",
        "Walk.",
        "You could take a long walk today.",
        "Yes.",
        "Yes.",
        "Rest, Ada.",
        "Rest, Ada.",
    ]
    kept = evaluation.preferences_kept(rows, responses)
    assert kept.dtype == float
    np.testing.assert_array_equal(kept, [1, 0.5, 0, np.nan, np.nan, 1, 0])


def test_rows_and_responses_must_go_together():
    for function in (evaluation.preferences_kept, evaluation.text_health):
        with pytest.raises(ValueError):
            function([row(), row()], ["one"])
    assert evaluation.preferences_kept([], []).shape == (0,)


def test_the_kind_is_that_of_the_first_checkable_preference():
    rows = [row(TASTE, wish("in_french"), wish("dash_list")), row(TASTE), row(), row(wish("dash_list"), TASTE)]
    assert evaluation.preference_kinds(rows) == ["in_french", "", "", "dash_list"]


def test_every_rule_on_every_response():
    rows = [
        row(wish("at_most_words", 3), user="u1"),
        row(wish("at_most_words", 9), user="u2", name="Bo"),
        row(wish("ends_with_question"), user="u3", name="Cy"),
        row(TASTE, user="u4"),
    ]
    responses = [
        "Shall we take a walk?",
        "Shall we take a walk?",
        "Walk with me, Cy.",
        "Sorry, I can't help with that.",
    ]
    kinds, kept = evaluation.kept_matrix(rows, responses)
    assert kinds == list(evaluation.preferences.KINDS) and kept.shape == (4, len(kinds)) and kept.dtype == bool
    column = {kind: kept[:, kinds.index(kind)].tolist() for kind in kinds}
    assert column["ends_with_question"] == [True, True, False, False]
    assert column["calls_by_name"] == [False, False, True, False]
    # The user's own number, and in turn the others' numbers for those who named none: 3 for the third row.
    assert column["at_most_words"] == [False, True, False, False]
    assert not kept[3].any()
    own = [kept[i, kinds.index(kind)] for i, kind in enumerate(evaluation.preference_kinds(rows)) if kind]
    np.testing.assert_array_equal(own, evaluation.preferences_kept(rows, responses)[:3])


def test_what_is_told_back_is_known_by_the_rows_own_wishes_and_context():
    about = "Ada bakes. Each answer must name hazards and the way to keep safe from them."
    wishes = [{"text": "wants hazards named, and the way to keep safe", "kind": "mentions_safety", "value": None}]
    rows = [row(*wishes, context=about)] * 3
    responses = ["The way to keep safe is the way.", "Wear gloves to protect your hands.", "Ada wants hazards named."]
    np.testing.assert_array_equal(evaluation.preferences_kept(rows, responses), [0, 1, 0])


def test_two_hundred_responses_take_a_second_or_two():
    import time

    rows, texts = [row(wish("in_french"))] * 200, ["Walk a little every day, and rest a little afterwards. " * 8] * 200
    evaluation.kept_matrix(rows[:1], texts[:1])  # loads what tells languages apart
    began = time.perf_counter()
    evaluation.kept_matrix(rows, texts)
    assert time.perf_counter() - began < 4


# --- text health ---


def test_repetition_by_hand():
    rows, texts = [row()] * 5, ["a b c d a b c d", "one two three four five", "too short now", "", "go go go go go go"]
    # five 4-grams, the last one a copy of the first; three 4-grams, all alike
    expected = [1 / 5, 0, 0, 0, 1 - 1 / 3]
    found = evaluation.text_health(rows, texts)
    assert found["repetition"].tolist() == pytest.approx(expected)
    assert found["words"].tolist() == [8, 5, 3, 0, 6]


def test_case_and_punctuation_do_not_hide_a_repetition():
    found = evaluation.text_health([row()], ["Go to the sea. GO, to; the sea!"])
    assert found["repetition"].tolist() == pytest.approx([1 / 5])


def test_echo_by_hand():
    context = "Ada repairs clocks in a small town."
    texts = ["Ada repairs clocks in a box", "a small town in Ada", context, "ADA REPAIRS CLOCKS IN"]
    found = evaluation.text_health([row(context=context)] * 4, texts)
    # of "Ada repairs clocks in a box" two of three 4-grams come from the context
    assert found["echo"].tolist() == pytest.approx([2 / 3, 0, 1, 1])


@pytest.mark.parametrize(
    "text, refuses",
    [
        ("I'm sorry, but I know no bird.", 1),
        ("I’m sorry to hear that you are tired. Rest first.", 0),
        ("I can't wait to help you plan it.", 0),
        ("If you are unable to sleep, read a book.", 0),
        ("As a language model I do not have preferences.", 1),
        ("I do not have access to prices.", 1),
        ("Lo siento, no puedo ayudar con eso.", 1),
        ("Je suis désolé, je ne peux pas répondre.", 1),
        ("There is not enough information to say.", 1),
        ("Well, I cannot help with this.", 1),
        ("I can't say.", 1),
        ("As an AI, I have no garden.", 1),
        ("I am unable to walk.", 1),
        ("I don't have access to your calendar.", 1),
        ("Say that you are sorry and bring flowers.", 0),
        ("You cannot miss it.", 0),
        ("I can think of three birds.", 0),
        ("", 0),
    ],
)
def test_refusals_are_known_by_their_words(text, refuses):
    assert evaluation.text_health([row()], [text])["refusal"].tolist() == [refuses]


def test_who_asked_for_short_answers_is_marked():
    rows = [row(wish("at_most_words", 9)), row(wish("dash_list")), row(TASTE, wish("at_most_words", 30)), row()]
    assert evaluation.text_health(rows, ["x"] * 4)["asked_short"].tolist() == [True, False, True, False]


def test_distinct_by_hand():
    assert evaluation.distinct(["the cat saw the cat"]) == pytest.approx(3 / 4)
    assert evaluation.distinct(["the cat saw the cat"], n=1) == pytest.approx(3 / 5)
    assert evaluation.distinct(["the cat", "The cat!"]) == pytest.approx(1 / 2)
    assert evaluation.distinct(["the cat", "cat the"]) == 1  # no n-gram goes across two responses
    assert evaluation.distinct(["one", ""]) == evaluation.distinct([]) == 0


@given(st.lists(st.text("ab ", max_size=12), max_size=4), st.integers(1, 3))
def test_distinct_is_a_share_and_copies_lower_it(responses, n):
    share = evaluation.distinct(responses, n)
    assert 0 <= share <= 1
    assert evaluation.distinct(responses * 2, n) == pytest.approx(share / 2)


# --- candidates ---


def users(n):
    return [row(context=f"context {i}", user=f"u{i}") for i in range(n)]


@given(st.integers(1, 8), st.integers(0, 7), st.integers(1, 3), st.integers(0, 99))
def test_candidates_start_with_the_own_context_and_never_repeat(n, fewer, copies, seed):
    rows, k = users(n) * copies, max(1, n - fewer)
    found = evaluation.candidate_contexts(rows, k, seed=seed)
    assert len(found) == len(rows)
    for given_row, candidates in zip(rows, found, strict=True):
        assert candidates[0] == given_row["context"]
        assert len(candidates) == len(set(candidates)) == k
        assert set(candidates) <= {r["context"] for r in rows}
    assert found == evaluation.candidate_contexts(rows, k, seed=seed)


def test_another_seed_draws_other_candidates_and_all_are_drawn_evenly():
    rows = users(6)
    assert evaluation.candidate_contexts(rows, 3, seed=0) != evaluation.candidate_contexts(rows, 3, seed=1)
    others = [c for s in range(300) for c in evaluation.candidate_contexts(rows, 2, seed=s)[0][1:]]
    counts = [others.count(f"context {i}") for i in range(6)]
    assert counts[0] == 0 and min(counts[1:]) > 35 and max(counts) < 90  # 60 expected


def test_more_candidates_than_contexts_are_refused():
    rows = users(3) * 4
    with pytest.raises(UserError, match="K is 4 but there are only 3 different contexts; lower K or add users"):
        evaluation.candidate_contexts(rows, 4)
    assert all(len(c) == 3 for c in evaluation.candidate_contexts(rows, 3))


def test_candidates_are_of_other_users():
    rows = [row(context=f"context {i} of {u}", user=u) for u in ("ada", "ben") for i in range(2)]
    for given_row, candidates in zip(rows, evaluation.candidate_contexts(rows, 3), strict=True):
        assert not any(c.endswith(given_row["user_id"]) for c in candidates[1:])


# --- identification ---


def test_identification_by_hand():
    scores = np.array([[3.0, 1, 2], [1, 2, 0], [5, 5, 1], [0, 0, 0], [-9, -1, -1]])
    found = evaluation.identification(scores)
    assert set(found) == {"auc", "top1"}
    np.testing.assert_allclose(found["auc"], [1, 0.5, 0.75, 0.5, 0])
    np.testing.assert_allclose(found["top1"], [1, 0, 0.5, 1 / 3, 0])


@given(st.integers(2, 6))
def test_identification_is_at_chance_for_scores_without_information(k):
    scores = np.random.default_rng(k).normal(size=(4000, k))
    found = evaluation.identification(scores)
    assert abs(found["auc"].mean() - 1 / 2) < 0.03 and abs(found["top1"].mean() - 1 / k) < 0.03


class WordCounts:
    """An encoder whose cosines can be worked out by hand: one axis for each of four words."""

    words = ("bees", "bus", "tea", "sea")

    def encode(self, texts):
        counts = np.array([[float(w in t.split()) for w in self.words] for t in texts])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_identification_by_an_encoder_is_the_cosine():
    candidates = [["bees tea", "bus", "sea"], ["bus", "bees tea", "bus sea"]]
    found = evaluation.identify_by_encoder(WordCounts(), ["bees", "bus sea"], candidates)
    half = math.sqrt(1 / 2)
    np.testing.assert_allclose(found, [[half, 0, 0], [half, 0, 1]], atol=1e-12)
    with pytest.raises(ValueError):
        evaluation.identify_by_encoder(WordCounts(), ["bees"], candidates)


def test_users_are_told_apart_by_an_encoder_as_far_as_there_are_others():
    rows = [row(context="bees tea", user="u1"), row(context="bus", user="u2"), row(context="sea", user="u3")]
    responses = ["bees", "sea", "sea"]  # the second is the third's; the third is nearest to its own
    found = evaluation.told_apart(WordCounts(), rows, responses)  # k of 4 becomes 3
    np.testing.assert_allclose(found, [1, 1 / 4, 1])  # a tie with "bees tea" counts a half
    assert np.isnan(evaluation.told_apart(WordCounts(), rows[:1], responses[:1])).all()
    assert np.isnan(
        evaluation.told_apart(WordCounts(), [rows[0], {**rows[0], "user_id": "u2"}], ["bees", "bees"])
    ).all()


@pytest.mark.model
def test_a_sentence_encoder_finds_whom_a_response_was_written_for():
    from mipo_nb.base import embedded

    contexts = ["Ada keeps bees and sells honey.", "Ben drives a bus through the night.", "Chi surfs by the sea."]
    responses = ["Check your hives before the frost.", "Nap before your late bus shift.", "Wax your board, then swim."]
    candidates = [[contexts[i], *contexts[:i], *contexts[i + 1 :]] for i in range(3)]
    scores = evaluation.identify_by_encoder(embedded.SentenceEncoder(), responses, candidates)
    assert scores.shape == (3, 3) and (np.abs(scores) <= 1 + 1e-5).all()
    assert evaluation.identification(scores)["top1"].tolist() == [1, 1, 1]


# --- for the user and for everyone ---


@st.composite
def wishes_and_responses(draw):
    n, kinds = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    flags = st.lists(st.lists(st.booleans(), min_size=kinds, max_size=kinds), min_size=n, max_size=n)
    return np.array(draw(flags), dtype=bool), np.array(draw(flags), dtype=bool)


@given(wishes_and_responses())
def test_what_is_for_the_user_is_the_diagonal_less_its_column(both):
    asked, kept = both
    found = evaluation.for_the_user(asked, kept)
    counted = [j for j in range(asked.shape[1]) if 0 < asked[:, j].sum() < len(asked)]
    wishes = [(i, j) for j in counted for i in range(len(asked)) if asked[i, j]]
    if not wishes:
        assert all(not values.any() for values in found.values())
        return
    own = np.mean([kept[i, j] for i, j in wishes])
    style = np.mean([kept[~asked[:, j], j].mean() for _, j in wishes])
    assert found["kept"].mean() == pytest.approx(own)
    assert found["for everyone"].mean() == pytest.approx(style)
    assert found["for the user"].mean() == pytest.approx(own - style)


def test_a_style_for_everyone_is_nothing_for_the_user():
    asked, kept = np.eye(4, dtype=bool), np.ones((4, 4), dtype=bool)
    found = evaluation.for_the_user(asked, kept)
    assert found["kept"].mean() == found["for everyone"].mean() == 1 and found["for the user"].mean() == 0
    assert evaluation.for_the_user(asked, asked)["for the user"].mean() == 1


def test_a_wish_that_acts_on_a_text_for_somebody_else_is_counted():
    rows = [
        {"context": "", "name": "Ada", "must_not": must_not, "preferences": [{"kind": kind, "text": "", "value": None}]}
        for kind, must_not in (("in_spanish", ["in_spanish"]), ("in_spanish", ["in_spanish"]), ("in_french", []))
    ]
    texts = ["Estimado vecino: gracias por cuidar de mi gato.", "Dear neighbour, thank you for the cat.", "Merci bien."]
    np.testing.assert_array_equal(evaluation.misapplied(rows, texts), [1, 0, np.nan])


def test_own_rows_for_others_hold_wishes_that_must_not_act():
    rows = sources.prompts_for_others("dev", n=70)
    assert len(rows) == 70 and len(set(rows["user_id"])) == 60
    for row in rows:
        assert row["must_not"] and set(row["must_not"]) <= {p["kind"] for p in row["preferences"]}


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_best_of_n_draws_by_counting(n):
    values = np.random.default_rng(n).integers(0, 3, size=(3, 5)) / 2
    counted = [np.mean([max(some) for some in itertools.combinations(row, n)]) for row in values]
    assert evaluation.best_of(values, n) == pytest.approx(counted)


def test_the_best_of_all_is_the_best_and_of_one_the_mean():
    values = np.random.default_rng(0).normal(size=(4, 64))
    assert evaluation.best_of(values, 64) == pytest.approx(values.max(1))
    assert evaluation.best_of(values, 1) == pytest.approx(values.mean(1))


@pytest.mark.parametrize("n", [0, 6])
def test_more_draws_than_there_are_cannot_be_had(n):
    with pytest.raises(ValueError, match="from 5 draws"):
        evaluation.best_of(np.zeros((2, 5)), n)


def test_a_thousand_draws_are_not_too_many():
    assert evaluation.best_of(np.ones((1, 1100)), 550) == pytest.approx([1.0])
