"""Sequences as a tree of what they begin with, packed end to end; and models that cannot take them so."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.engine import attention, head, packing, routes
from mipo_nb.engine.attention import Piece, _TreeAttention, in_batches


@pytest.fixture
def share_every_token(monkeypatch):
    monkeypatch.setattr(packing, "_WORTH", 1)


def test_pack_lays_pieces_after_what_they_follow(share_every_token):
    packed = packing.pack([[1, 2, 7], [8, 9, 5], [1, 2, 3, 4, 5]], [2, 2, 2], "cpu")
    assert packed.tokens.tolist() == [[1, 2, 3, 4, 5, 7, 8, 9, 5]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 2]]
    assert packed.pieces == [Piece(2, None), Piece(3, 0), Piece(1, 0), Piece(3, None)]
    assert packed.places == [[0, 1, 5], [6, 7, 8], [0, 1, 2, 3, 4]]
    assert packed.at.tolist() == [
        1,
        7,
        1,
        2,
        3,
    ]  # the first token of a piece is predicted by the last of the one before
    assert packed.target.tolist() == [7, 5, 3, 4, 5]


def test_what_some_share_lies_after_what_all_share(share_every_token):
    pieces, tokens, paths = packing.tree([[1, 2, 3], [1, 2, 4], [1, 5]])
    assert tokens == [(1,), (2,), (3,), (4,), (5,)]
    assert [piece.after for piece in pieces] == [None, 0, 1, 1, 0]
    assert paths == [[0, 1, 2], [0, 1, 3], [0, 4]]


sequences = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=12), min_size=1, max_size=12)


@given(sequences, st.integers(1, 6))
def test_packed_places_lead_back_to_the_sequences(rows, worth):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_WORTH", worth)
        packed = packing.pack(rows, [1] * len(rows), "cpu")
    assert [packed.tokens[0, place].tolist() for place in packed.places] == rows
    assert all(packed.positions[0, place].tolist() == list(range(len(place))) for place in packed.places)
    assert packed.target.tolist() == [token for row in rows for token in row[1:]]
    # A predictor stands one position before its target, and pieces after what they follow.
    assert packed.positions[0, packed.at].tolist() == [k for row in rows for k in range(len(row) - 1)]
    assert all(piece.after is None or piece.after < k for k, piece in enumerate(packed.pieces))


@given(sequences)
def test_every_beginning_is_there_once(rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_WORTH", 1)
        packed = packing.pack(rows, [1] * len(rows), "cpu")
    assert packed.tokens.numel() == len({tuple(row[: k + 1]) for row in rows for k in range(len(row))})


def test_a_few_tokens_are_not_worth_a_piece():
    k = packing._WORTH
    few, enough = [9] * (k - 1), [9] * k
    assert len(packing.tree([[*few, 1], [*few, 2]])[0]) == 2
    assert len(packing.tree([[*enough, 1], [*enough, 2]])[0]) == 3
    # Two of three share enough among themselves, what all three share being too little.
    assert packing.tree([[8, *enough, 1], [8, *enough, 2], [8, 7]])[2] == [[1, 2], [1, 3], [0]]


def test_equal_sequences_are_read_once(share_every_token):
    packed = packing.pack([[1, 2, 3]] * 4, [1] * 4, "cpu")
    assert packed.tokens.tolist() == [[1, 2, 3]] and packed.target.tolist() == [2, 3] * 4


@pytest.mark.model
def test_the_embedded_model_takes_packed_sequences(model_and_tokenizer):
    assert routes.enable_packing(model_and_tokenizer[0])


@pytest.mark.model
def test_a_model_that_ignores_the_tree_is_found_out(model_and_tokenizer, monkeypatch):
    # A model for which every piece comes after the one that lies before it, and so sees it.
    def in_line(pieces, *args):
        return attention.in_batches([Piece(p.length, k - 1 if k else None) for k, p in enumerate(pieces)], *args)

    monkeypatch.setattr(packing, "in_batches", in_line)
    assert "differ by" in routes._trial(model_and_tokenizer[0])


def tree_of_five():
    """Pieces of a tree three deep, and the mask [T, T] that says who sees whom, written out token by token."""
    pieces = [Piece(3, None), Piece(2, 0), Piece(4, 0), Piece(1, 1), Piece(2, 1)]
    spans, start = [], 0
    for piece in pieces:
        spans.append(range(start, start + piece.length))
        start += piece.length
    mask = torch.zeros(start, start, dtype=torch.bool)
    for number, span in enumerate(spans):
        for at in span:
            k = number
            while k is not None:
                for other in spans[k]:
                    mask[at, other] = other <= at
                k = pieces[k].after
    return pieces, mask


def test_tree_attention_is_attention_under_that_mask_forward_and_back():
    """In double precision, against torch's own with the mask written out; the gradient by finite differences too."""
    pieces, mask = tree_of_five()
    tokens, (groups, shared, width) = len(mask), (2, 3, 4)
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(*shape, generator=random, dtype=torch.double).requires_grad_()
        for shape in ((groups, shared, tokens, width), (groups, tokens, width), (groups, tokens, width))
    )
    batches, scaling = in_batches(pieces, torch.double, "cpu"), 0.7

    def ours(query, key, value):
        return _TreeAttention.apply(query, key, value, batches, scaling)

    def plain(query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key[:, None], value[:, None], attn_mask=mask, scale=scaling
        )

    weights = torch.randn(query.shape, generator=random, dtype=torch.double)
    assert torch.allclose(ours(query, key, value), plain(query, key, value), atol=1e-12)
    gradients = [
        torch.autograd.grad((attention(query, key, value) * weights).sum(), (query, key, value))
        for attention in (ours, plain)
    ]
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(*gradients, strict=True))
    assert torch.autograd.gradcheck(ours, (query, key, value))


def test_a_head_that_learns_gets_its_gradient_piece_by_piece_and_no_logits_are_kept(monkeypatch):
    monkeypatch.setattr(head.HeadLogProbabilities, "piece", 5)
    torch.manual_seed(0)
    hidden, weight = torch.randn(13, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    target, back, kept = torch.randint(30, (13,)), torch.randn(13), []

    def gradients(log_probs):
        hidden.grad = weight.grad = None
        (log_probs * back).sum().backward()
        return hidden.grad, weight.grad

    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        scores = head.scores_of_learning_head(hidden, weight, target)
    log_probs = (hidden @ weight.T).log_softmax(-1)
    expected = log_probs[torch.arange(13), target]
    torch.testing.assert_close(scores[0], expected)
    torch.testing.assert_close(scores[1], -(log_probs.exp() * log_probs).sum(-1).detach())
    torch.testing.assert_close(gradients(scores[0]), gradients(expected))
    assert not any(shape[-1:] == (30,) for shape in kept)
