"""Sample a batch token by token: what conversations share is read once, and finished rows leave the batch.

transformers' `generate` reads every padded conversation in full, copies the whole cache to lengthen it by one token,
sorts the vocabulary at each step, and goes on computing rows that have ended. The distribution here is the same.
"""

from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from mipo_nb.engine import packing

_DROP = 1 / 8  # rows leave the batch when this share of them has ended: leaving copies the cache
_SHARED = 64  # from this many on, tokens that all rows begin with are stored once: fewer are not worth a product


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature=0` is greedy; `top_k=0` and `top_p=1` cut nothing off."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_new_tokens: int = 72
    batch_size: int = 64


def ends_of(model, tokenizer):
    """The set of tokens that close a response."""
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    return ends - {None}  # without any, every response goes on to the limit


def draw(scores, temperature, top_k, top_p):
    """Tokens [rows] drawn from scores [rows, V] as by transformers' warpers, in their order: temperature, `top_k`,
    `top_p`. Sort and random numbers are over k tokens, not the whole vocabulary. `temperature=0` is greedy, `top_k=0`
    means all."""
    if temperature == 0:
        return scores.argmax(-1)
    if not top_k and top_p >= 1:  # nothing is cut, so nothing has to be sorted
        return (scores.float() / temperature).softmax(-1).multinomial(1)[:, 0]
    k = min(top_k or scores.shape[-1], scores.shape[-1])
    top, index = scores.float().topk(k, dim=-1)
    probabilities = (top / temperature).softmax(-1)
    mass_before = probabilities.cumsum(-1) - probabilities  # of the likelier tokens
    return index.gather(-1, probabilities.masked_fill(mass_before >= top_p, 0.0).multinomial(1))[:, 0]


@torch.inference_mode()
def decode(model, conversations, sampling, ends, ticks=None):
    """(new tokens, finished) for each of `conversations`, a list of token lists, drawn by a `Sampling`. The token in
    `ends` that closes a response is left out of it. `ticks`, a progress bar, is an iterator that each token of all rows
    moves on. The model must take packed sequences (`packing.enable_packing`)."""
    return go_on(Continuation(model, conversations, sampling.max_new_tokens), sampling, ends, ticks)


@torch.inference_mode()
def go_on(continuation, sampling, ends, ticks=None):
    """What `decode` returns, from a `Continuation` or whatever else has its `scores`, `add` and `keep`."""
    scores, ticks = continuation.scores(), iter(ticks or ())
    ends = torch.tensor(sorted(ends), dtype=torch.long, device=scores.device)
    written = torch.full((len(scores), sampling.max_new_tokens), -1, device=scores.device)
    finished = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    rows = torch.arange(len(scores), device=scores.device)  # the rows still in the batch
    for step in range(sampling.max_new_tokens):
        tokens = draw(scores, sampling.temperature, sampling.top_k, sampling.top_p)
        ended = torch.isin(tokens, ends)
        written[rows, step] = tokens.masked_fill(finished[rows] | ended, -1)
        finished[rows] |= ended
        next(ticks, None)
        going = ~finished[rows]
        if not going.any() or step == sampling.max_new_tokens - 1:
            break
        if (~going).sum() > _DROP * len(rows):
            remaining = going.nonzero()[:, 0]
            rows, tokens = rows[remaining], tokens[remaining]
            continuation.keep(remaining)
        continuation.add(tokens)
        scores = continuation.scores()
    responses = zip(written.tolist(), finished.tolist(), strict=True)
    return [([token for token in tokens if token >= 0], done) for tokens, done in responses]


class Continuation:
    """Conversations (lists of token ids) that a model has read and continues by a token at a time, `room` at most."""

    def __init__(self, model, conversations, room):
        self.model = model = packing.without_adapter_shell(model)
        self.hidden, self.cache, self.lengths, self.mask, self.filled, self.shared = _read(model, conversations, room)

    def scores(self):
        """Logits [rows, V] of what comes next."""
        return self.model.get_output_embeddings()(self.hidden)

    def keep(self, rows):
        """Go on with these rows only (their numbers, [k]); add the next token before asking for scores."""
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]
        self.cache.batch_select_indices(rows)

    def add(self, tokens):
        """Lengthen each row by its token [rows]."""
        self.mask[..., self.filled] = 0
        inputs = {"input_ids": tokens[:, None], "attention_mask": self.mask, "position_ids": self.lengths}
        cache = {"past_key_values": self.cache, "use_cache": True, **self.shared}
        self.hidden = self.model.get_decoder()(**inputs, **cache)[0][:, 0]
        self.lengths, self.filled = self.lengths + 1, self.filled + 1


def _read(model, conversations, room):
    """The conversations' last hidden states [B, h]; a cache of width W with a row each, padded on the left, and `room`
    for more tokens; the lengths [B, 1]; the mask of padding and room, to be added to scores [B, 1, 1, W + room]; W; and
    {"shared": keys and values of what all begin with}, which rows then lack, or {}. With worked examples before each
    problem that is most of a row, and reading it for every row at every token would be most of the work."""
    packed = packing.pack(conversations, list(map(len, conversations)), model.device)
    cache = DynamicCache(config=model.config)
    hidden = packing.hidden_states(model, packed, cache)
    lengths = torch.tensor(list(map(len, packed.places)), device=model.device)[:, None]
    common = packed.pieces[0].length if sum(piece.after is None for piece in packed.pieces) == 1 else 0
    common = common if common >= _SHARED and len(conversations) > 1 else 0
    shared = [(layer.keys[0, :, :common].clone(), layer.values[0, :, :common].clone()) for layer in cache.layers]
    places = [tokens[common:] for tokens in packed.places]
    width = int(lengths.max()) - common
    column = torch.arange(width + room, device=model.device)
    empty = (column < width + common - lengths) | (column >= width)
    mask = torch.zeros(empty.shape, dtype=hidden.dtype, device=model.device).masked_fill_(empty, float("-inf"))
    for number, layer in enumerate(cache.layers):  # one by one, so that each packed layer is freed at once
        cache.layers[number] = _Roomy(layer, places, width, room)
    hidden = hidden[[tokens[-1] for tokens in packed.places]]
    return hidden, cache, lengths, mask[:, None, None], width, {"shared": shared} if common else {}


class _Roomy(DynamicLayer):
    """Keys and values [B, G, W + room, D] in memory that is never moved: adding a token copies nothing else. The room
    is returned too, under the mask: on a CPU, products with a part of a tensor copy the part first."""

    def __init__(self, packed, places, width, room):
        super().__init__()
        self.lazy_initialization(packed.keys, packed.values)
        self.filled = width
        shape = len(places), packed.keys.shape[1], width + room, packed.keys.shape[3]
        # Zeros, because what lies under the mask is multiplied with its weight of zero, and must be a number.
        self.keys, self.values = packed.keys.new_zeros(shape), packed.values.new_zeros(shape)
        for row, tokens in enumerate(places):
            self.keys[row, :, width - len(tokens) : width] = packed.keys[0][:, tokens]
            self.values[row, :, width - len(tokens) : width] = packed.values[0][:, tokens]

    def update(self, keys, values, *args, **kwargs):
        self.keys[:, :, self.filled] = keys[:, :, 0]
        self.values[:, :, self.filled] = values[:, :, 0]
        self.filled += 1
        return self.keys, self.values

    def batch_select_indices(self, indices):
        self.keys, self.values = self.keys[indices], self.values[indices]
