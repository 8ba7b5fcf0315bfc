"""Steering at inference: what knowing the user does to each token, done more strongly, without any training.

The model reads the prompt twice, with the user's context ("told") and without it. At each token the two sets of scores
are combined, a token is drawn, and both readings go on with it. Context-aware decoding (CAD, Shi et al., arXiv
2305.14739) combines logits, context steering (CoS, He et al., arXiv 2405.01768) log-probabilities; a softmax takes both
to the same distribution.
"""

import math

import numpy as np
import torch
from transformers import LogitsProcessor

from mipo_nb import generation, pairs, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.progress import progress
from mipo_nb.engine import decoding, plain_decoding
from mipo_nb.engine.linear import packed_weights
from mipo_nb.engine.routes import packs_by_default


def steered(told, untold, strength):
    """Scores [..., V] of p(v|x,c) [p(v|x,c) / p(v|x)]^strength, up to a constant: told + strength (told - untold).

    `told` and `untold` are logits or log-probabilities of the next token with and without the context, of one shape.
    CAD's (1 + a) logit(x,c) - a logit(x) and CoS's lp_c + k (lp_c - lp_nc) are both this, with a = k = `strength`. At
    strength 0 it is `told`, at -1 `untold`.
    """
    told = told.float()  # the difference of two rounded numbers is made larger: round as late as can be
    return told + strength * (told - untold.float())


class Both:
    """Two continuations (`decoding.Continuation`), told and untold, as one: scores are combined, tokens go to both."""

    def __init__(self, told, untold, strength):
        self.told, self.untold, self.strength = told, untold, strength

    def scores(self):
        """Steered logits [rows, V] of what comes next."""
        return steered(self.told.scores(), self.untold.scores(), self.strength)

    def keep(self, rows):
        """Go on with these rows only, [k]."""
        self.told.keep(rows)
        self.untold.keep(rows)

    def add(self, tokens):
        """Lengthen each row by its token [rows], in both readings."""
        self.told.add(tokens)
        self.untold.add(tokens)


class Steering(LogitsProcessor):
    """Steering for transformers' `generate`, which reads the told prompts; this reads `untold` (lists of token ids).

    It keeps the untold reading's own cache and adds, at each call, the token that `generate` has just drawn: one more
    pass per token. It comes before temperature, top-k and top-p. An object serves one call of `generate`, without
    beams; raises `ValueError` otherwise, because its cache would be that of other texts.
    """

    def __init__(self, model, untold, strength):
        self.model, self.untold, self.strength = model, untold, strength
        self.read = None  # how many tokens `generate` had at the last call

    def __call__(self, input_ids, scores):
        rows, width = input_ids.shape
        if rows != len(self.untold) or self.read not in (None, width - 1):
            raise ValueError("A Steering serves one call of generate, with one row per untold prompt and no beams.")
        if self.read is None:
            longest, device = max(map(len, self.untold)), input_ids.device
            tokens = torch.tensor([[0] * (longest - len(ids)) + ids for ids in self.untold], device=device)
            self.mask = torch.tensor(
                [[0] * (longest - len(ids)) + [1] * len(ids) for ids in self.untold], device=device
            )
            positions, self.cache = (self.mask.cumsum(-1) - 1).clamp(min=0), None
        else:
            tokens, positions = input_ids[:, -1:], self.mask.sum(-1, keepdim=True)
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        with torch.inference_mode():
            cached = {"attention_mask": self.mask, "past_key_values": self.cache, "use_cache": True}
            placed = {"position_ids": positions} if plain_decoding.takes_positions(self.model) else {}
            out = self.model(tokens, logits_to_keep=1, **placed, **cached)
        self.read, self.cache = width, out.past_key_values
        return steered(scores, out.logits[:, -1].to(scores.device), self.strength)


def decode(model, told, untold, sampling, ends, strength, *how):
    """What `decoding.decode` returns, steered; `told` and `untold` are lists of token lists, row by row."""
    if not packs_by_default(model):
        parts = [[k] for k in range(len(told))] if plain_decoding.one_by_one(model) else [range(len(told))]
        steers = [[Steering(model, [untold[k] for k in part], strength)] for part in parts]
        drawn = [
            plain_decoding.generate(model, [told[k] for k in part], sampling, ends, steer)
            for part, steer in zip(parts, steers, strict=True)
        ]
        return [response for responses in drawn for response in responses]
    readings = [decoding.Continuation(model, rows, sampling.max_new_tokens) for rows in (told, untold)]
    return decoding.go_on(Both(*readings, strength), sampling, ends, *how)


def asked(arm, model, tokenizer, rows, s):
    """What `arms.answers` is to call, for an arm that trains nothing: `sample`, steered away from what the arm's negative
    would say, with strength 1 / `arm.beta`; MIPO's optimum at that beta is this tilt, of whole responses."""
    conversations = pairs.positive_conversations(rows), pairs.negative_conversations(rows, arm.negative)
    half = generation.Sampling.of(s, batch_size=max(1, s.sampling_batch // 2))  # each row is held twice
    return sample_draws, model, tokenizer, *conversations, half, 1 / arm.beta


def sample(model, tokenizer, told, untold, sampling, strength, *, seed, folder=None):
    """The first of `sample_draws` with one seed."""
    return sample_draws(model, tokenizer, told, untold, sampling, strength, seeds=[seed], folder=folder)[0]


def sample_draws(model, tokenizer, told, untold, sampling, strength, *, seeds, folder=None):
    """What `generation.sample_draws` returns for the conversations `told`, steered away from `untold`, row by row.

    `untold` is what the rejected side of a MIPO pair would be sampled from (`pairs.negative_conversations`): without
    the context, or with another user's. Raises `UserError` for lists of different lengths, a strength that is no finite
    number, or a conversation longer than the model takes.
    """
    if len(told) != len(untold):
        raise UserError(f"There are {len(told)} conversations to steer towards and {len(untold)} to steer away from.")
    if not math.isfinite(strength):
        raise UserError(f"The strength of steering must be a finite number, not {strength!r}.")
    ids, untold_ids = (generation.token_ids(model, tokenizer, rows, sampling) for rows in (told, untold))
    ends = generation.ends_of(model, tokenizer)

    def respond(rows, *how):
        return decode(model, [ids[i] for i in rows], [untold_ids[i] for i in rows], sampling, ends, strength, *how)

    options = {"seeds": seeds, "folder": folder, "description": "steered sampling"}
    drawn = generation.in_batches(respond, model, tokenizer, ids, sampling, **options)
    return [generation.at_limit(responses, sampling, tokenizer) for responses in drawn]


def divergences(policy, model, tokenizer, told, untold, responses, candidates, *, description="divergences"):
    """Array [n, C]: KL(policy || candidate) of the next token in nats, averaged over the tokens of each response. A
    candidate is (strength, temperature): `model` steered so, then divided by the temperature, over the whole
    vocabulary. (0, 1) is the model itself with the context. `policy` reads the context too."""
    rows = []
    with torch.inference_mode(), packed_weights(model), packed_weights(policy):
        for *conversations, response in zip(progress(told, description), untold, responses, strict=True):
            target = next_token_scores(policy, tokenizer, conversations[0], response).log_softmax(-1)
            p, row = target.exp(), []
            both = [next_token_scores(model, tokenizer, conversation, response) for conversation in conversations]
            for strength, temperature in candidates:
                candidate = (steered(*both, strength) / temperature).log_softmax(-1)
                row.append((p * (target - candidate)).sum(-1).mean().item())
            rows.append(row)
    return np.array(rows)


def next_token_scores(model, tokenizer, conversation, response):
    """Tensor [T, V]: the model's logits, in float32, where it predicts each of the T tokens of the response."""
    start = prompts.prompt_ids(tokenizer, conversation)
    end = prompts.completion_ids(tokenizer, conversation, response)
    tokens = torch.tensor([start + end], device=model.device)
    return model(tokens, logits_to_keep=len(end) + 1).logits[0, -len(end) - 1 : -1].float()
