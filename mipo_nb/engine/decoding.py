"""Sample a batch token by token: what conversations share is read once, and finished rows leave the batch.

transformers' `generate` reads every padded conversation in full, copies the whole cache to lengthen it by one token,
sorts the vocabulary at each step, and goes on computing rows that have ended. The distribution here is the same.
"""

from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from mipo_nb.engine import packing

_DROP = 1 / 8  # rows leave the batch when this share of them has ended: leaving copies the cache
_SHARED = 64  # tokens that all rows begin with are kept once from this many on: less is not worth a product of its own


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
    return set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}


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
def decode(model, conversations, sampling, ends, ticks=None):
    """New tokens of each conversation, a list of lists; the token in `ends` that closes a response is left out of it.

    `conversations` is a list of token lists, `sampling` a `Sampling`. Returns (tokens, finished) per row.
    `ticks` is an iterator that is moved on by each token of all rows, a progress bar. The model must be one that takes packed sequences (`packing.enable_packing`).
    """
    return go_on(Continuation(model, conversations, sampling.max_new_tokens), sampling, ends, ticks)


@torch.inference_mode()
def go_on(continuation, sampling, ends, ticks=None):
    """What `decode` returns, from a `Continuation` or whatever else has its `scores`, `add` and `keep`."""
    scores, ticks = continuation.scores(), iter(ticks or ())
    ends = torch.tensor(sorted(ends), device=scores.device)
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
            keep = going.nonzero()[:, 0]
            rows, tokens = rows[keep], tokens[keep]
            continuation.keep(keep)
        continuation.add(tokens)
        scores = continuation.scores()
    rows = zip(written.tolist(), finished.tolist(), strict=True)
    return [([token for token in tokens if token >= 0], done) for tokens, done in rows]


class Continuation:
    """Conversations (lists of token ids) that a model has read and that go on a token at a time, `room` tokens at most."""

    def __init__(self, model, conversations, room):
        self.model = packing.without_adapter_shell(model)
        self.hidden, self.cache, self.lengths, self.hides, self.filled, self.shared = _read(
            self.model, conversations, room
        )

    def scores(self):
        """Logits [rows, V] of what comes next."""
        return self.model.get_output_embeddings()(self.hidden)

    def keep(self, rows):
        """Go on with these rows only (their numbers, [k]); the next token is to be added before scores are asked for."""
        self.hides, self.lengths = self.hides[rows], self.lengths[rows]
        self.cache.batch_select_indices(rows)

    def add(self, tokens):
        """Lengthen each row by its token [rows]."""
        self.hides[..., self.filled] = 0
        self.hidden = self.model.get_decoder()(
            input_ids=tokens[:, None],
            attention_mask=self.hides,
            position_ids=self.lengths,
            past_key_values=self.cache,
            use_cache=True,
            **self.shared,
        )[0][:, 0]
        self.lengths, self.filled = self.lengths + 1, self.filled + 1


def _read(model, conversations, room):
    """The conversations' last hidden states [B, h]; a cache of width W with one row each, padded on the left, and `room`
    for more tokens; the lengths [B, 1]; the mask of padding and room, to be added to scores [B, 1, 1, W + room]; W; and
    {"shared": keys and values of what all begin with}, which rows then lack, or {}. With worked examples before each
    problem that is most of a row, and reading it for every row at every token most of the work."""
    packed = packing.pack(conversations, list(map(len, conversations)), model.device)
    cache = DynamicCache(config=model.config)
    hidden = packing.hidden_states(model, packed, cache)
    lengths = torch.tensor(list(map(len, packed.places)), device=model.device)[:, None]
    first = packed.pieces[0].length if sum(piece.after is None for piece in packed.pieces) == 1 else 0
    first = first if first >= _SHARED and len(conversations) > 1 else 0
    shared = [(layer.keys[0, :, :first].clone(), layer.values[0, :, :first].clone()) for layer in cache.layers]
    own = [place[first:] for place in packed.places]
    width = int(lengths.max()) - first
    at = torch.arange(width + room, device=model.device)
    empty = (at < width + first - lengths) | (at >= width)
    hides = torch.zeros(empty.shape, dtype=hidden.dtype, device=model.device).masked_fill_(empty, float("-inf"))
    for number, layer in enumerate(cache.layers):
        cache.layers[number] = _Roomy(layer, own, width, room)
    last = hidden[[place[-1] for place in packed.places]]
    return last, cache, lengths, hides[:, None, None], width, {"shared": shared} if first else {}


class _Roomy(DynamicLayer):
    """Keys and values [B, G, W + room, D] in memory that stays where it is: adding a token copies nothing else.

    The room is handed out with the rest, under the mask: on a CPU, products with a part of a tensor copy the part first.
    """

    def __init__(self, packed, places, width, room):
        super().__init__()
        self.lazy_initialization(packed.keys, packed.values)
        self.filled = width
        _, heads, _, size = packed.keys.shape
        # Zeros, because what lies under the mask is multiplied with its share of nothing, and must be a number.
        self.keys, self.values = (
            x.new_zeros(len(places), heads, width + room, size) for x in (packed.keys, packed.values)
        )
        for row, place in enumerate(places):
            self.keys[row, :, width - len(place) : width] = packed.keys[0][:, place]
            self.values[row, :, width - len(place) : width] = packed.values[0][:, place]

    def update(self, keys, values, *args, **kwargs):
        self.keys[:, :, self.filled] = keys[:, :, 0]
        self.values[:, :, self.filled] = values[:, :, 0]
        self.filled += 1
        return self.keys, self.values

    def batch_select_indices(self, indices):
        self.keys, self.values = self.keys[indices], self.values[indices]
