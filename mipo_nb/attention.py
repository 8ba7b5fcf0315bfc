"""Attention without copies: for one decoded token, and for rows packed end to end.

With grouped-query attention several query heads share a key head. transformers repeats keys and values to match them.
Here the query heads of a group stand in the place of further query positions instead: the same numbers from keys and
values that are read once.
"""

from dataclasses import dataclass

NAME = "grouped_sdpa"


@dataclass(frozen=True)
class Row:
    """One of several rows packed end to end: its number of tokens, and a mask [tokens, tokens], true where one sees."""

    tokens: int
    mask: object


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
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, rows=None, **kwargs
):
    """An attention function for transformers. query [B, H, T, D], key and value [B, G, L, D], H a multiple of G.

    With `rows` (a list of `Row`; B is 1) each row of tokens sees itself alone, through its own mask.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if rows is not None:
        lengths = [row.tokens for row in rows]
        parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), rows, strict=True)
        out = [_grouped(q, k, v, row.mask, scaling) for q, k, v, row in parts]
        return torch.cat(out, dim=2).transpose(1, 2), None
    if query.shape[2] == 1 and query.shape[1] != key.shape[1]:
        return _grouped(query, key, value, attention_mask, scaling).transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )


def _grouped(query, key, value, mask, scaling):
    """[B, H, T, D]. `mask` broadcasts to [B, 1, T, L]."""
    import torch

    batch, heads, length, width = query.shape
    groups = key.shape[1]
    shared = heads // groups
    query = query.reshape(batch, groups, shared * length, width)
    if mask is not None and length > 1:
        mask = mask.repeat(shared, 1)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(batch, heads, length, width)
