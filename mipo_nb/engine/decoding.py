"""Sample a batch token by token: what conversations share is read once, and finished rows leave the batch.

transformers' `generate` reads every padded conversation in full, copies the whole cache to lengthen it by one token,
sorts the vocabulary at each step, and goes on computing rows that have ended. The distribution here is the same.
"""

import contextlib
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from mipo_nb.base.errors import require_known
from mipo_nb.engine import packing

AT_LIMIT = ("sentence", "whole", "drop")
_DROP = 1 / 8  # rows leave the batch when this share of them has ended: leaving copies the cache
_SHARED = 64  # from this many on, tokens that all rows begin with are stored once: fewer are not worth a product


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature=0` is greedy; `top_k=0` and `top_p=1` cut nothing off.

    `at_limit` says what becomes of a response that reaches `max_new_tokens`: "sentence" cuts it back to its last whole
    sentence or line, "whole" keeps all of it, "drop" leaves an empty text. Raises `UserError` for another word.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_new_tokens: int = 72
    batch_size: int = 64
    at_limit: str = "sentence"

    def __post_init__(self):
        require_known("at_limit", self.at_limit, AT_LIMIT)

    @classmethod
    def of(cls, settings, **changes):
        """The sampling of a run's settings (`lab.settings.Settings`), some numbers of it changed."""
        names = ("temperature", "top_p", "top_k", "max_new_tokens", "at_limit")
        return cls(
            **{**{name: getattr(settings, name) for name in names}, "batch_size": settings.sampling_batch, **changes}
        )


def ends_of(model, tokenizer):
    """The set of tokens that close a response."""
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    return ends - {None}  # without any, every response goes on to the limit


def draw(scores, temperature, top_k, top_p, chance=None):
    """Tokens [rows] drawn from scores [rows, V] as by transformers' warpers, in their order: temperature, `top_k`,
    `top_p`. Sort and random numbers are over k tokens, not the whole vocabulary. `temperature=0` is greedy, `top_k=0`
    means all. `chance` [rows], each from 0 to 1, says which token of a row: the likeliest ones below it, which sum to
    it (random where None)."""
    if temperature == 0:
        return scores.argmax(-1)
    chance = torch.rand(len(scores), dtype=torch.double, device=scores.device) if chance is None else chance
    if not top_k and top_p >= 1:  # nothing is cut, so nothing has to be sorted
        return _quantile((scores.float() / temperature).softmax(-1), chance)
    k = min(top_k or scores.shape[-1], scores.shape[-1])
    top, index = scores.float().topk(k, dim=-1)
    probabilities = (top / temperature).softmax(-1)
    mass_before = probabilities.cumsum(-1) - probabilities  # of the likelier tokens
    kept = probabilities.masked_fill(mass_before >= top_p, 0.0)
    return index.gather(-1, _quantile(kept, chance)[:, None])[:, 0]


def _quantile(weights, chance):
    """The column [rows] in which the running sum of `weights` [rows, k] passes `chance` [rows] of the whole."""
    sums = weights.double().cumsum(-1)
    return torch.searchsorted(sums, (chance * sums[:, -1])[:, None], right=True)[:, 0].clamp_(max=weights.shape[-1] - 1)


def chances(lots, n):
    """Random numbers [len(lots), n] from 0 to 1, made of each lot, (seed, number of the row), alone.

    With them a response depends neither on the batch that it is drawn in nor on how many tokens others have, and two
    models that are asked the same with one seed share their luck, so that less of it is in their difference.
    """
    draws = [torch.Generator().manual_seed((seed * 1_000_003 + int(row)) % 2**63) for seed, row in lots]
    return torch.stack([torch.rand(n, generator=draw, dtype=torch.double) for draw in draws])


@torch.inference_mode()
def decode(model, conversations, sampling, ends, ticks=None, chance=None):
    """(new tokens, finished) for each of `conversations`, a list of token lists, drawn by a `Sampling`. A finished
    response ends with the token of `ends` that closed it. `ticks`, a progress bar, is an iterator that each token of all
    rows moves on; `chance` [rows, max_new_tokens] is that of `draw`. The model must take packed sequences
    (`routes.enable_packing`)."""
    with without_checkpointing(model):
        return go_on(Continuation(model, conversations, sampling.max_new_tokens), sampling, ends, ticks, chance)


@torch.inference_mode()
def go_on(continuation, sampling, ends, ticks=None, chance=None):
    """What `decode` returns, from a `Continuation` or whatever else has its `scores`, `add` and `keep`."""
    scores, ticks = continuation.scores(), iter(ticks or ())
    if chance is None:
        chance = torch.rand(len(scores), sampling.max_new_tokens, dtype=torch.double)
    chance = chance.to(scores.device)
    ends = torch.tensor(sorted(ends), dtype=torch.long, device=scores.device)
    written = torch.full((len(scores), sampling.max_new_tokens), -1, device=scores.device)
    finished = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    rows = torch.arange(len(scores), device=scores.device)  # the rows still in the batch
    for step in range(sampling.max_new_tokens):
        tokens = draw(scores, sampling.temperature, sampling.top_k, sampling.top_p, chance[rows, step])
        ended = torch.isin(tokens, ends)
        written[rows, step] = tokens.masked_fill(finished[rows], -1)
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


@contextlib.contextmanager
def without_checkpointing(model):
    """While it lasts, a model in training keeps keys and values, as no model does that computes its layers again."""
    layers = [layer for layer in model.modules() if getattr(layer, "gradient_checkpointing", False)]
    for layer in layers:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True


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
