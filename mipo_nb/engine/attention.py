"""Attention without copies or padding: for one decoded token, and for sequences packed end to end.

With grouped-query attention several query heads share a key head. transformers repeats keys and values to match them.
Here the query heads of a group count as further query positions: the same numbers, with keys and values read once.
"""

import itertools
from dataclasses import dataclass

import torch

NAME = "grouped_sdpa"
_PADDING = 1.5  # a batch of pieces may cost this many times what its pieces need


@dataclass(frozen=True)
class Piece:
    """A stretch of tokens that sequences share: its length, and the number of the piece it follows, None for none."""

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


def grouped_attention(module, query, key, value, attention_mask, scaling=None, pieces=None, shared=None, **kwargs):
    """An attention function for transformers. query [B, H, T, D], key and value [B, G, L, D], H a multiple of G.

    With `pieces` (from `in_batches`; B is 1) a token sees its piece up to itself and all pieces that this follows. With
    `shared` (per layer keys and values [G, P, D] that all rows begin with) a row's new token sees those and its row.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if pieces is not None:
        _, heads, tokens, width = query.shape
        query = query.view(key.shape[1], -1, tokens, width)
        scaling = width**-0.5 if scaling is None else scaling
        out = _TreeAttention.apply(query, key[0], value[0], pieces, scaling).view(1, heads, tokens, width)
        return out.transpose(1, 2), None
    if shared is not None or (query.shape[2] == 1 and query.shape[1] != key.shape[1]):
        shared = None if shared is None else shared[module.layer_idx]
        return _decoded(query, key, value, attention_mask, scaling, shared).transpose(1, 2), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _decoded(query, key, value, mask, scaling, shared=None):
    """[B, H, 1, D]: one token per row; `mask` broadcasts to [B, 1, 1, L]. `shared` keys and values are read once for
    all rows (as in Hydragen, Juravsky et al. 2024, arXiv 2402.05099, but with one softmax over both parts)."""
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
    groups, tokens, _ = keys.shape
    queries = query.transpose(0, 1).reshape(groups, -1, width) * (width**-0.5 if scaling is None else scaling)
    shared_scores = torch.matmul(queries, keys.transpose(-1, -2)).view(groups, batch, -1, tokens).transpose(0, 1)
    weights = torch.cat([shared_scores, scores], -1).softmax(-1)
    shared_weights, row_weights = weights.split([tokens, scores.shape[-1]], -1)
    out = torch.matmul(shared_weights.transpose(0, 1).reshape(groups, -1, tokens), values)
    out = out.view(groups, batch, -1, width).transpose(0, 1)
    return (torch.matmul(row_weights, value) + out).view(batch, heads, 1, width)


def in_batches(pieces, dtype, device):
    """Pieces of about equal size, gathered in one `Batch` each, which is padded and attends in a few products."""
    spans = []  # for each piece, where its tokens and those of all that it follows lie
    for piece, stop in zip(pieces, itertools.accumulate(piece.length for piece in pieces), strict=True):
        prefix, start = [] if piece.after is None else spans[piece.after], stop - piece.length
        if prefix and prefix[-1][1] == start:  # the piece lies right behind: one longer span
            prefix, start = prefix[:-1], prefix[-1][0]
        spans.append([*prefix, (start, stop)])
    sizes = [(sum(b - a for a, b in keys), piece.length) for keys, piece in zip(spans, pieces, strict=True)]
    batches = []  # numbers of pieces
    for k in sorted(range(len(pieces)), key=sizes.__getitem__):
        numbers = [*batches[-1], k] if batches else [k]
        keys, queries = zip(*(sizes[i] for i in numbers), strict=True)
        work = sum(a * b for a, b in zip(keys, queries, strict=True))
        if batches and len(numbers) * max(keys) * max(queries) <= _PADDING * work:
            batches[-1] = numbers
        else:
            batches.append([k])
    return [Batch([spans[k] for k in numbers], [sizes[k] for k in numbers], dtype, device) for numbers in batches]


class Batch:
    """n pieces side by side, padded: their queries as [n, G, S Q, D], the keys that they see as [n, G, L, D]."""

    def __init__(self, spans, sizes, dtype, device):
        self.spans = spans
        self.stretches = [(keys[-1][1] - length, keys[-1][1]) for keys, (_, length) in zip(spans, sizes, strict=True)]
        keys, lengths = (torch.tensor(x, device=device)[:, None, None] for x in zip(*sizes, strict=True))
        self.keys, self.queries = int(keys.max()), int(lengths.max())
        key, query = torch.arange(self.keys, device=device), torch.arange(self.queries, device=device)[:, None]
        unseen = (key >= keys) | (key > keys - lengths + query)  # padding, and what comes after a token
        self.mask = torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill_(unseen, float("-inf"))[:, None]

    def queries_of(self, x):
        """[n, G, S Q, D] of x [G, S, T, D]."""
        groups, shared, _, width = x.shape
        padded = x.new_zeros(len(self.spans), groups, shared, self.queries, width)
        for row, (start, stop) in zip(padded, self.stretches, strict=True):
            row[:, :, : stop - start] = x[:, :, start:stop]
        return padded.view(len(self.spans), groups, -1, width)

    def keys_of(self, x):
        """[n, G, L, D] of x [G, T, D]."""
        padded = x.new_zeros(len(self.spans), len(x), self.keys, x.shape[-1])
        for row, columns, tokens in self._places(padded):
            row[:, columns] = x[:, tokens]
        return padded

    def queries_into(self, out, padded):
        """Put [n, G, S Q, D] back to where the pieces lie in `out` [G, S, T, D]."""
        padded = padded.view(len(self.spans), *out.shape[:2], self.queries, -1)
        for row, (start, stop) in zip(padded, self.stretches, strict=True):
            out[:, :, start:stop] = row[:, :, : stop - start]

    def keys_into(self, out, padded):
        """Add [n, G, L, D] to where the keys come from in `out` [G, T, D]."""
        for row, columns, tokens in self._places(padded):
            out[:, tokens] += row[:, columns]

    def _places(self, padded):
        """(row of `padded`, its columns, the tokens that stand in them), span by span."""
        for row, spans in zip(padded, self.spans, strict=True):
            column = 0
            for start, stop in spans:
                yield row, slice(column, column + stop - start), slice(start, stop)
                column += stop - start


class _TreeAttention(torch.autograd.Function):
    """softmax(q k^T) v of every piece with what it follows: query [G, S, T, D], key and value [G, T, D]. By whole
    products: on a CPU, for pieces this short, over twice as fast as the fused kernel."""

    @staticmethod
    def forward(ctx, query, key, value, batches, scaling):
        out, saved = torch.empty_like(query), []
        for batch in batches:
            q, k, v = batch.queries_of(query).mul_(scaling), batch.keys_of(key), batch.keys_of(value)
            attention = torch.matmul(q, k.transpose(-1, -2))
            attention.view(len(q), -1, batch.queries, batch.keys).add_(batch.mask)
            attention = attention.softmax(-1)
            mean = torch.matmul(attention, v)
            batch.queries_into(out, mean)
            saved += [q, k, v, attention, mean]
        ctx.batches, ctx.scaling = batches, scaling
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx, gradient):
        saved = iter(ctx.saved_tensors)
        groups, _, tokens, width = gradient.shape
        to_query, to_key, to_value = torch.empty_like(gradient), *gradient.new_zeros(2, groups, tokens, width)
        for batch, q, k, v, attention, mean in zip(ctx.batches, saved, saved, saved, saved, saved, strict=False):
            g = batch.queries_of(gradient)
            to_scores = torch.matmul(g, v.transpose(-1, -2))
            to_scores.sub_((g * mean).sum(-1, keepdim=True)).mul_(attention)
            batch.queries_into(to_query, torch.matmul(to_scores, k).mul_(ctx.scaling))
            batch.keys_into(to_key, torch.matmul(to_scores.transpose(-1, -2), q))
            batch.keys_into(to_value, torch.matmul(attention.transpose(-1, -2), g))
        return to_query, to_key, to_value, None, None
