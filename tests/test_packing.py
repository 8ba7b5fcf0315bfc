"""Groups of sequences, the masks that hide branches from one another, and models that cannot take them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import attention, packing
from mipo_nb.packing import Group


def test_pack_lays_branches_after_their_prefix():
    packed = packing.pack([Group([1, 2], [[3, 4, 5], [7]], [3, 1]), Group([8], [[9, 10]], [1])], "cpu")
    assert packed.tokens.tolist() == [[1, 2, 3, 4, 5, 7, 8, 9, 10]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 2]]
    assert [row.pieces for row in packed.rows] == [[2, 3, 1], [1, 2]]
    assert packed.at.tolist() == [1, 2, 3, 1, 7]  # the first token of a branch is predicted by the prefix's last
    assert packed.target.tolist() == [3, 4, 5, 7, 10]
    assert packed.places == [[0, 1, 2, 3, 4], [0, 1, 5], [6, 7, 8]]


sequences = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=12), min_size=1, max_size=12)


@given(sequences, st.data())
def test_groups_hold_every_sequence_once(rows, data):
    limits = [data.draw(st.integers(1, len(row))) for row in rows]
    groups, order = packing.group(rows, limits)
    assert sorted(order) == list(range(len(rows)))
    whole = [(g.prefix + b, n) for g in groups for b, n in zip(g.branches, g.scored, strict=True)]
    assert whole == [(rows[i], len(rows[i]) - limits[i]) for i in order]
    # Nothing scored is shared, so that every scored token has a place of its own.
    assert all(len(b) >= n for g in groups for b, n in zip(g.branches, g.scored, strict=True))
    assert sum(len(g.prefix) + sum(map(len, g.branches)) for g in groups) <= sum(map(len, rows))


@given(sequences)
def test_packed_places_lead_back_to_the_sequences(rows):
    groups, order = packing.group(rows, list(map(len, rows)))
    packed = packing.pack(groups, "cpu")
    found = [packed.tokens[0, place].tolist() for place in packed.places]
    assert found == [rows[i] for i in order]
    assert all(packed.positions[0, place].tolist() == list(range(len(place))) for place in packed.places)


def test_one_context_is_read_once():
    context = list(range(40))
    groups, _ = packing.group([context + [50, 51], context + [60], [70] * 30], [42, 41, 30])
    assert [len(g.prefix) for g in groups] == [40, 30]


def test_a_row_stays_within_its_limit():
    groups, _ = packing.group([[1] * 500 + [k] for k in range(3000)], [501] * 3000)
    assert max(len(g.prefix) + sum(map(len, g.branches)) for g in groups) <= packing._LONGEST_ROW


@pytest.mark.model
def test_the_embedded_model_shares_prefixes(model_and_tokenizer):
    assert packing.shares_prefixes(model_and_tokenizer[0])


@pytest.mark.model
def test_a_model_that_ignores_the_mask_is_found_out(model_and_tokenizer, monkeypatch):
    # A model for which the second branch comes after the first, and so sees it.
    monkeypatch.setattr(packing, "Row", lambda prefix, branches: attention.Row(prefix + sum(branches), ()))
    assert not packing._tried(model_and_tokenizer[0])
