"""Attention without copies or padding: for one decoded token, and for sequences packed end to end.

With grouped-query attention several query heads share a key head. transformers repeats keys and values to match them.
Here the query heads of a group stand in the place of further query positions instead: the same numbers from keys and
values that are read once.
"""

import itertools
from dataclasses import dataclass

import torch

NAME = "grouped_sdpa"
_PADDING = 1.5  # a batch of pieces may cost this many times what its pieces need


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
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    is_causal=None,
    pieces=None,
    shared=None,
    **kwargs,
):
    """An attention function for transformers. query [B, H, T, D], key and value [B, G, L, D], H a multiple of G.

    With `pieces` (what `in_batches` gives; B is 1) a token sees those before it in its piece, and all pieces that this
    one follows. With `shared` (for each layer keys and values [G, P, D] that all rows begin with) the one new token of a
    row sees those, then its row's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if pieces is not None:
        _, heads, tokens, width = query.shape
        query = query.view(key.shape[1], -1, tokens, width)
        scaling = width**-0.5 if scaling is None else scaling
        out = _TreeAttention.apply(query, key[0], value[0], pieces, scaling)
        return out.view(1, heads, tokens, width).transpose(1, 2), None
    if shared is not None:
        return _decoded(query, key, value, attention_mask, scaling, shared[module.layer_idx]).transpose(1, 2), None
    if query.shape[2] == 1 and query.shape[1] != key.shape[1]:
        return _decoded(query, key, value, attention_mask, scaling).transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


def _decoded(query, key, value, mask, scaling, shared=None):
    """[B, H, 1, D]: one token per row. `mask` broadcasts to [B, 1, 1, L].

    `shared` keys and values are read once for all rows, in one product for each key head (as in Hydragen, Juravsky et al.
    2024, arXiv 2402.05099, with one softmax over both parts instead of two that are joined).
    """
    batch, heads, _, width = query.shape
    query = query.reshape(batch, key.shape[1], -1, width)
    if query.device.type != "cpu" and shared is None:
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(query, key, value, attn_mask=mask, scale=scaling).view(batch, heads, 1, width)
    scores = torch.matmul(query * (width**-0.5 if scaling is None else scaling), key.transpose(-1, -2))
    if mask is not None:
        scores += mask if mask.is_floating_point() else torch.where(mask, 0.0, float("-inf")).to(scores.dtype)
    if shared is None:
        return torch.matmul(scores.softmax(-1), value).view(batch, heads, 1, width)
    keys, values = shared
    together = query.transpose(0, 1).reshape(len(keys), -1, width) * (width**-0.5 if scaling is None else scaling)
    first = torch.matmul(together, keys.transpose(-1, -2)).view(len(keys), batch, -1, keys.shape[1]).transpose(0, 1)
    share = torch.cat([first, scores], -1).softmax(-1)
    first, own = share.split([keys.shape[1], scores.shape[-1]], -1)
    seen = torch.matmul(first.transpose(0, 1).reshape(len(keys), -1, keys.shape[1]), values)
    seen = seen.view(len(keys), batch, -1, width).transpose(0, 1)
    return (torch.matmul(own, value) + seen).view(batch, heads, 1, width)


def in_batches(pieces, dtype, device):
    """Pieces of about equal size, gathered in one `Batch` each, which is padded and attends in a few products."""
    spans = []  # where the tokens of a piece and of all that it follows lie
    ends = list(itertools.accumulate(piece.length for piece in pieces))
    for piece, stop in zip(pieces, ends, strict=True):
        before, start = [] if piece.after is None else spans[piece.after], stop - piece.length
        if before and before[-1][1] == start:
            spans.append([*before[:-1], (before[-1][0], stop)])
        else:
            spans.append([*before, (start, stop)])
    sizes = [(sum(b - a for a, b in seen), piece.length) for seen, piece in zip(spans, pieces, strict=True)]
    batches = []
    for k in sorted(range(len(pieces)), key=lambda k: sizes[k]):
        some = [*batches[-1], k] if batches else [k]
        keys, queries = ([sizes[i][side] for i in some] for side in (0, 1))
        work = sum(a * b for a, b in zip(keys, queries, strict=True))
        if batches and len(some) * max(keys) * max(queries) <= _PADDING * work:
            batches[-1] = some
        else:
            batches.append([k])
    return [Batch([spans[k] for k in some], [sizes[k] for k in some], dtype, device) for some in batches]


class Batch:
    """n pieces side by side, their queries padded to Q and the keys that they see to L, as [n, G, S Q, D] and [n, G, L, D]."""

    def __init__(self, spans, sizes, dtype, device):
        self.spans = spans
        self.own = [(seen[-1][1] - length, seen[-1][1]) for seen, (_, length) in zip(spans, sizes, strict=True)]
        keys, lengths = (torch.tensor(x, device=device)[:, None, None] for x in zip(*sizes, strict=True))
        self.keys, self.queries = int(keys.max()), int(lengths.max())
        at, query = torch.arange(self.keys, device=device), torch.arange(self.queries, device=device)[:, None]
        unseen = (at >= keys) | (at > keys - lengths + query)  # padding, and what comes after a token
        self.hides = torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill_(unseen, float("-inf"))[:, None]

    def queries_of(self, x):
        """[n, G, S Q, D] of x [G, S, T, D]."""
        groups, shared, _, width = x.shape
        padded = x.new_zeros(len(self.own), groups, shared, self.queries, width)
        for row, (start, stop) in zip(padded, self.own, strict=True):
            row[:, :, : stop - start] = x[:, :, start:stop]
        return padded.view(len(self.own), groups, -1, width)

    def keys_of(self, x):
        """[n, G, L, D] of x [G, T, D]."""
        padded = x.new_zeros(len(self.own), len(x), self.keys, x.shape[-1])
        for row, here, there in self._places(padded):
            row[:, here] = x[:, there]
        return padded

    def queries_into(self, out, padded):
        """Put [n, G, S Q, D] back to where the pieces lie in `out` [G, S, T, D]."""
        padded = padded.view(len(self.own), *out.shape[:2], self.queries, -1)
        for row, (start, stop) in zip(padded, self.own, strict=True):
            out[:, :, start:stop] = row[:, :, : stop - start]

    def keys_into(self, out, padded):
        """Add [n, G, L, D] to where the keys come from in `out` [G, T, D]."""
        for row, here, there in self._places(padded):
            out[:, there] += row[:, here]

    def _places(self, padded):
        for row, spans in zip(padded, self.spans, strict=True):
            at = 0
            for start, stop in spans:
                yield row, slice(at, at + stop - start), slice(start, stop)
                at += stop - start


class _TreeAttention(torch.autograd.Function):
    """softmax(q k^T) v of every piece with what it follows: query [G, S, T, D], key and value [G, T, D].

    By whole products: on a CPU, for pieces this short, over twice as fast as the fused kernel.
    """

    @staticmethod
    def forward(ctx, query, key, value, batches, scaling):
        out, kept = torch.empty_like(query), []
        for batch in batches:
            q, k, v = batch.queries_of(query).mul_(scaling), batch.keys_of(key), batch.keys_of(value)
            share = torch.matmul(q, k.transpose(-1, -2))
            share.view(len(q), -1, batch.queries, batch.keys).add_(batch.hides)
            share = share.softmax(-1)
            found = torch.matmul(share, v)
            batch.queries_into(out, found)
            kept += [q, k, v, share, found]
        ctx.batches, ctx.scaling = batches, scaling
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    def backward(ctx, gradient):
        kept = iter(ctx.saved_tensors)
        groups, _, tokens, width = gradient.shape
        to_query, to_key, to_value = torch.empty_like(gradient), *gradient.new_zeros(2, groups, tokens, width)
        for batch, q, k, v, share, found in zip(ctx.batches, kept, kept, kept, kept, kept, strict=False):
            g = batch.queries_of(gradient)
            to_scores = torch.matmul(g, v.transpose(-1, -2))
            to_scores.sub_((g * found).sum(-1, keepdim=True)).mul_(share)
            batch.queries_into(to_query, torch.matmul(to_scores, k).mul_(ctx.scaling))
            batch.keys_into(to_key, torch.matmul(to_scores.transpose(-1, -2), q))
            batch.keys_into(to_value, torch.matmul(share.transpose(-1, -2), g))
        return to_query, to_key, to_value, None, None
