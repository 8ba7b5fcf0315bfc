"""Attention without copies or padding: for one decoded token, and for sequences packed end to end.

With grouped-query attention several query heads share a key head. transformers repeats keys and values to match them.
Here the query heads of a group stand in the place of further query positions instead: the same numbers from keys and
values that are read once.
"""

from dataclasses import dataclass

import torch

NAME = "grouped_sdpa"


@dataclass(frozen=True)
class Piece:
    """A stretch of tokens that sequences share: its length, and the number of the piece it follows; None for none."""

    length: int
    after: int | None


def use_grouped_attention(model):
    """Switch a model that uses scaled-dot-product attention to `grouped_sdpa`; leaves others as they are."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return model


def grouped_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, pieces=None, **kwargs
):
    """An attention function for transformers. query [B, H, T, D], key and value [B, G, L, D], H a multiple of G.

    With `pieces` (a list of `Piece`; B is 1) a token sees those before it in its piece, and all pieces that this one
    follows.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if pieces is not None:
        return _packed(query, key, value, pieces, scaling).transpose(1, 2), None
    if query.shape[2] == 1 and query.shape[1] != key.shape[1]:
        return _decoded(query, key, value, attention_mask, scaling).transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


def _decoded(query, key, value, mask, scaling):
    """[B, H, 1, D]: one token per row. `mask` broadcasts to [B, 1, 1, L]."""
    batch, heads, _, width = query.shape
    query = query.reshape(batch, key.shape[1], -1, width)
    if query.device.type != "cpu":
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(query, key, value, attn_mask=mask, scale=scaling).view(batch, heads, 1, width)
    scores = torch.matmul(query * (width**-0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if mask is not None:
        scores += mask if mask.is_floating_point() else torch.where(mask, 0.0, float("-inf")).to(scores.dtype)
    return torch.matmul(scores.softmax(-1), value).view(batch, heads, 1, width)


def _packed(query, key, value, pieces, scaling):
    """[1, H, T, D]: every piece attends to what it follows and, causally, to itself."""
    _, heads, _, width = query.shape
    groups = key.shape[1]
    lengths = [piece.length for piece in pieces]
    query = query.view(groups, heads // groups, -1, width)
    parts = zip(query.split(lengths, 2), key[0].split(lengths, 1), value[0].split(lengths, 1), strict=True)
    seen, out = [], []  # keys and values of each piece with all that it follows
    for piece, (q, *own) in zip(pieces, parts, strict=True):
        before = () if piece.after is None else seen[piece.after]
        seen.append([torch.cat(both, 1) for both in zip(before, own, strict=True)] if before else own)
        out.append(_attend(q, *seen[-1], scaling))
    return torch.cat(out, 2).view(1, heads, -1, width)


def _attend(query, key, value, scaling):
    """[G, S, n, D] from query of that shape and key, value [G, L, D]: the queries stand at the last n of L places."""
    groups, shared, n, width = query.shape
    scaling = width**-0.5 if scaling is None else scaling
    flat = query.reshape(groups, shared * n, width)
    if query.device.type == "cpu":
        return _Attention.apply(flat, key, value, n, scaling).view_as(query)
    seen = torch.ones(n, key.shape[1], dtype=torch.bool, device=query.device).tril_(key.shape[1] - n).repeat(shared, 1)
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(flat[None], key[None], value[None], attn_mask=seen, scale=scaling).view_as(query)


class _Attention(torch.autograd.Function):
    """softmax(q k^T) v by whole products: on a CPU, for pieces this short, over twice as fast as the fused kernel."""

    @staticmethod
    def forward(ctx, query, key, value, n, scaling):
        query = query * scaling
        share = torch.bmm(query, key.transpose(1, 2))
        own = share.view(len(key), -1, n, key.shape[1])[..., key.shape[1] - n :]
        own += torch.full((n, n), float("-inf"), dtype=share.dtype).triu_(1)  # none sees what comes after it
        share = share.softmax(-1)
        out = torch.bmm(share, value)
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value, share, out)
        return out

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, share, out = ctx.saved_tensors
        to_scores = torch.bmm(gradient, value.transpose(1, 2))
        to_scores.sub_((gradient * out).sum(-1, keepdim=True)).mul_(share)
        to_key, to_value = torch.bmm(to_scores.transpose(1, 2), query), torch.bmm(share.transpose(1, 2), gradient)
        return torch.bmm(to_scores, key).mul_(ctx.scaling), to_key, to_value, None, None
