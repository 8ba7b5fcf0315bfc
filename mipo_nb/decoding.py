"""Sample a batch token by token: what conversations share is read once, and finished rows leave the batch.

transformers' `generate` reads every padded conversation in full, copies the whole cache to lengthen it by one token,
sorts the vocabulary at each step, and goes on computing rows that have ended. The distribution here is the same.
"""

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from mipo_nb import packing

_DROP = 1 / 8  # rows leave the batch when this share of them has ended: leaving copies the cache


def draw(scores, temperature, top_k, top_p):
    """Tokens [rows] drawn from scores [rows, vocabulary]: temperature, the k likeliest, the smallest part holding `top_p`.

    The order of transformers' own warpers and their distribution, but the sort and the random numbers are over k tokens
    instead of the whole vocabulary. `temperature=0` is greedy, `top_k=0` means all.
    """
    if temperature == 0:
        return scores.argmax(-1)
    k = min(top_k or scores.shape[-1], scores.shape[-1])
    top, index = scores.float().topk(k, dim=-1)
    share = (top / temperature).softmax(-1)
    before = share.cumsum(-1) - share
    drawn = share.masked_fill(before >= top_p, 0.0).multinomial(1)
    return index.gather(-1, drawn)[:, 0]


@torch.inference_mode()
def decode(model, conversations, sampling, ends):
    """New tokens of each conversation, a list of lists; the token in `ends` that closes a response is left out of it.

    `conversations` is a list of token lists, `sampling` a `generation.Sampling`. Returns (tokens, finished) per row.
    The model must be one that `packing.shares_prefixes`.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    groups, order = packing.group(conversations, list(map(len, conversations)))
    packed = packing.pack(groups, model.device)
    cache = DynamicCache(config=base.config)
    hidden = packing.hidden_states(base, packed, cache)
    cache, seen = _unpacked(cache, packed.places, sampling.max_new_tokens)
    hidden = hidden[[place[-1] for place in packed.places]]
    lengths = seen.sum(1, keepdim=True)
    ends = torch.tensor(sorted(ends), device=model.device)
    written = torch.full((len(order), sampling.max_new_tokens), -1, device=model.device)
    finished = torch.zeros(len(order), dtype=torch.bool, device=model.device)
    rows = torch.arange(len(order), device=model.device)  # the rows still in the batch
    for step in range(sampling.max_new_tokens):
        tokens = draw(head(hidden), sampling.temperature, sampling.top_k, sampling.top_p)
        ended = torch.isin(tokens, ends)
        written[rows, step] = tokens.masked_fill(finished[rows] | ended, -1)
        finished[rows] |= ended
        going = ~finished[rows]
        if not going.any() or step == sampling.max_new_tokens - 1:
            break
        if (~going).sum() > _DROP * len(rows):
            keep = going.nonzero()[:, 0]
            rows, tokens, seen, lengths = (x[keep] for x in (rows, tokens, seen, lengths))
            cache.batch_select_indices(keep)
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1)
        hidden = base.get_decoder()(
            input_ids=tokens[:, None],
            attention_mask=seen[:, None, None],
            position_ids=lengths,
            past_key_values=cache,
            use_cache=True,
        )[0][:, 0]
        lengths = lengths + 1
    out = [None] * len(order)
    for row, values, done in zip(order, written.tolist(), finished.tolist(), strict=True):
        out[row] = ([t for t in values if t >= 0], done)
    return out


def _unpacked(cache, places, room):
    """A cache with one row per sequence, padded on the left, from one of packed rows; and a mask [B, L] of its tokens."""
    width = max(map(len, places))
    device = cache.layers[0].keys.device
    index = torch.tensor([[place[0]] * (width - len(place)) + place for place in places], device=device)
    seen = torch.tensor([[False] * (width - len(place)) + [True] * len(place) for place in places], device=device)
    for number, layer in enumerate(cache.layers):
        cache.layers[number] = _Roomy(layer, index, room)
    return cache, seen


class _Roomy(DynamicLayer):
    """Keys and values [B, G, L, D] in memory with room for more, so that a token is added without copying the rest."""

    def __init__(self, packed, index, room):
        super().__init__()
        self.lazy_initialization(packed.keys, packed.values)
        self.length = index.shape[1]
        self.held = [self._spread(x[0], index, room) for x in (packed.keys, packed.values)]
        self._show()

    @staticmethod
    def _spread(packed, index, room):
        groups, _, width = packed.shape
        held = packed.new_empty(len(index), groups, index.shape[1] + room, width)
        for row, places in enumerate(index):
            held[row, :, : len(places)] = packed[:, places]
        return held

    def _show(self):
        self.keys, self.values = (x[:, :, : self.length] for x in self.held)

    def update(self, keys, values, *args, **kwargs):
        self.held[0][:, :, self.length] = keys[:, :, 0]
        self.held[1][:, :, self.length] = values[:, :, 0]
        self.length += 1
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices):
        self.held = [x[indices] for x in self.held]
        self._show()
