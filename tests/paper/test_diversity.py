"""Differences between responses: by hand, by their laws, and against sacrebleu called directly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.paper import diversity

SHAPE = (4, 6, 2)
WORDS = st.lists(st.sampled_from(["a", "red", "kite", "flies", "over", "the", "old", "town"]), min_size=1, max_size=9)
TEXTS = st.lists(WORDS.map(" ".join), min_size=2, max_size=6)


@pytest.mark.parametrize(("way", "size"), [("draws", 2), ("users", 3), ("users", 2), ("prompts", 4), ("prompts", 2)])
def test_one_thing_varies_within_a_group_and_every_response_is_in_one(way, size):
    indices, labels = diversity.groups(SHAPE, way, size)
    assert sorted(indices.ravel()) == list(range(np.prod(SHAPE)))
    places = dict(zip(("prompts", "users", "draws"), np.unravel_index(indices, SHAPE), strict=True))
    for axis, where in places.items():
        assert all(len(set(row)) == (size if axis == way else 1) for row in where.tolist())
    clusters = places["prompts" if way == "users" else "users"][:, 0]
    assert (labels == clusters).all()


@pytest.mark.parametrize(("way", "size"), [("draws", 4), ("users", 4), ("prompts", 1)])
def test_groups_must_fit(way, size):
    with pytest.raises(ValueError, match="cannot be divided into groups"):
        diversity.groups(SHAPE, way, size)


def test_self_bleu_is_sacrebleus_against_all_others():
    from sacrebleu import sentence_bleu

    texts = ["the red kite flies over town", "the red kite sleeps", "an old town by the sea at night"]
    by_hand = [sentence_bleu(t, [o for o in texts if o != t], use_effective_order=True).score for t in texts]
    assert diversity.self_bleu(texts) == pytest.approx(np.mean(by_hand))


def test_self_bleu_of_copies_of_strangers_and_of_one():
    assert diversity.self_bleu(["the red kite flies over town"] * 3) == pytest.approx(100)
    assert diversity.self_bleu(["one two three four five six", "seven eight nine ten eleven twelve"]) < 10
    assert np.isnan(diversity.self_bleu(["alone"]))
    assert diversity.self_bleu(["", "", "a b"]) == 0


@given(TEXTS, st.integers(1, 6))
def test_more_references_never_lower_self_bleu_of_equal_lengths(texts, number):
    """Clipped counts can only grow. (With unequal lengths the brevity penalty looks for the nearest length.)"""
    same = [" ".join((t.split() * 6)[:6]) for t in texts]
    assert diversity.self_bleu(same, number) <= diversity.self_bleu(same) + 1e-9


@given(st.integers(2, 7), st.integers(0, 50))
def test_spread_is_the_mean_over_pairs(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - vectors[i] @ vectors[j] for i in range(n) for j in range(n) if i != j]
    assert diversity.spread(vectors) == pytest.approx(np.mean(pairs))


def test_spread_of_one_meaning_opposites_and_one():
    one = np.eye(3)[:1]
    assert diversity.spread(np.repeat(one, 4, axis=0)) == pytest.approx(0)
    assert diversity.spread(np.concatenate([one, -one])) == pytest.approx(2)
    assert np.isnan(diversity.spread(one))


def test_measures_of_groups_are_those_of_their_texts():
    texts = ["a red kite", "a red kite", "the old town", "over the sea"]
    vectors = np.eye(4)
    indices, _ = diversity.groups((1, 2, 2), "draws", 2)
    found = diversity.by_group(texts, vectors, indices)
    assert found["self-BLEU"][0] == pytest.approx(100) and found["self-BLEU"][1] < 30
    assert found["distinct"].tolist() == [50, 100] and found["spread"] == pytest.approx([1, 1])
