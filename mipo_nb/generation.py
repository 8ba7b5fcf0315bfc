"""Sample responses in batches, with progress and resume.

One interface for two backends: a model in this process, or an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...).
"""

import bisect
import itertools
import re
from pathlib import Path

import torch

from mipo_nb import prompts
from mipo_nb.base.files import kept
from mipo_nb.base.progress import progress
from mipo_nb.engine.decoding import Sampling, chances, decode, ends_of
from mipo_nb.engine.linear import packed_weights
from mipo_nb.engine.plain_decoding import generate
from mipo_nb.engine.routes import packs_by_default
from mipo_nb.engine.server import Server

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)*]*(?=\s|$)|\n")
_LONE_MARKER = re.compile(r"(?:^|\n)\s*(?:\d+[.)]|[-*•])$")


def cut_to_sentence(text):
    """`text` up to its last complete sentence or line; "" if it has none. For responses cut off at the token limit."""
    ends = [m.end() for m in _SENTENCE_END.finditer(text)]
    text = text[: ends[-1]].rstrip() if ends else ""
    # A list marker such as "4." that stands alone on its line is not a sentence.
    return _LONE_MARKER.sub("", text).rstrip()


def sample(model, tokenizer, conversations, sampling, *, seed, folder=None, description="sampling"):
    """A `datasets.Dataset` with one row per conversation (message lists): `text`, `tokens` and `finished`.

    `tokens` are the ids that were drawn, the token that ended the response included. A response that reaches
    `max_new_tokens` has `finished` False, no end among its tokens, and the text that `sampling.at_limit` leaves of it.
    Row i is drawn with the random numbers of (seed, i) (`decoding.chances`). With a `folder` each finished batch is
    kept there, so a killed run loses one batch at most and goes on to the same texts. `model` may be a `Server`, whose
    answers are kept one by one and have no `tokens`. Raises `UserError` for a conversation longer than the model takes,
    or a server that gives up.
    """
    return sample_draws(
        model, tokenizer, conversations, sampling, seeds=[seed], folder=folder, description=description
    )[0]


def sample_draws(model, tokenizer, conversations, sampling, *, seeds, folder=None, description="sampling"):
    """A list of what `sample` returns for each of `seeds`, up to rounding: several responses to each conversation, sooner
    than one by one, because a conversation is read once for all of them that are drawn in one batch."""
    if isinstance(model, Server):
        how = {"folder": folder, "description": description}
        drawn = [model.sample(conversations, sampling, seed=seed, **how) for seed in seeds]
    else:
        drawn = _drawn(model, tokenizer, conversations, sampling, seeds=seeds, folder=folder, description=description)
    return [at_limit(responses, sampling, None if isinstance(model, Server) else tokenizer) for responses in drawn]


def replies(model, tokenizer, conversations, *, max_tokens, batch_size=32, description="replies"):
    """The model's greedy answers as a list of texts, each cut off after `max_tokens` tokens wherever that is."""
    greedy = Sampling(temperature=0, max_new_tokens=max_tokens, batch_size=batch_size)
    drawn = _drawn(model, tokenizer, conversations, greedy, seeds=[0], description=description)
    return [r["text"] for r in drawn[0]]


def _drawn(model, tokenizer, conversations, sampling, **options):
    ids, ends = token_ids(model, tokenizer, conversations, sampling), ends_of(model, tokenizer)

    def respond(rows, *how):
        return continued(model, [ids[i] for i in rows], sampling, ends, *how)

    return in_batches(respond, model, tokenizer, ids, sampling, **options)


def continued(model, ids, sampling, ends, *how):
    """(new tokens, finished) for each row of token `ids`: by `decoding.decode`, or by `plain_decoding.generate` where it cannot run."""
    return decode(model, ids, sampling, ends, *how) if packs_by_default(model) else generate(model, ids, sampling, ends)


def token_ids(model, tokenizer, conversations, sampling):
    """Token ids of each conversation, a list of lists. Raises `UserError` where one and its response are too long."""
    if limit := window_of(model):
        prompts.check_length(tokenizer, conversations, sampling.max_new_tokens, limit)
    return [prompts.prompt_ids(tokenizer, c) for c in conversations]


def window_of(model):
    """How many tokens, prompt and response together, the model reads at once; None where nothing limits it, and for a
    `Server`, which knows its own."""
    if isinstance(model, Server):
        return None
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def in_batches(respond, model, tokenizer, ids, sampling, *, seeds, folder=None, description="sampling"):
    """For each of `seeds` [{"text", "tokens", "finished"}] from `respond(rows, ticks, chance)`: (tokens, finished) for each of
    these rows, among which one may be several times.

    `ids` are the rows' token ids, which decide what is batched together; `respond` advances `ticks` at each token and
    draws by `chance` (`decoding.chances`).
    """
    lots = [(seed, row) for seed in seeds for row in range(len(ids))]
    order = sorted(range(len(lots)), key=lambda k: ids[lots[k][1]])  # neighbours share what they begin with
    batches = [order[k : k + sampling.batch_size] for k in range(0, len(order), sampling.batch_size)]
    responses = {}
    with torch.inference_mode(), packed_weights(model):
        bar = iter(progress(range(len(batches) * sampling.max_new_tokens), description))
        for number, batch in enumerate(batches):
            ticks, drawn = itertools.islice(bar, sampling.max_new_tokens), [lots[k] for k in batch]

            def draw(number=number, drawn=drawn, ticks=ticks):
                torch.manual_seed((seeds[0] * 1_000_003 + number) % 2**63)  # for `generate`, which draws for itself
                chance = chances(drawn, sampling.max_new_tokens)
                return _texts(tokenizer, respond([row for _, row in drawn], ticks, chance))

            file = Path(folder) / f"batch-{number:04d}.json" if folder else None
            responses.update(zip(batch, kept(file, draw), strict=True))
            list(ticks)  # advances the bar past the tokens that a batch which ended early did not need
        list(bar)  # closes it
    return [[responses[k * len(ids) + row] for row in range(len(ids))] for k in range(len(seeds))]


def at_limit(responses, sampling, tokenizer):
    """Responses {"text", "tokens", "finished"} as a `datasets.Dataset`, unfinished ones as `sampling.at_limit` says.

    A text is cut where its tokens can be: behind the token in which its last sentence ends.
    """
    from datasets import Dataset

    def left_of(response):
        if response["finished"] or sampling.at_limit == "whole":
            return response
        text = cut_to_sentence(response["text"]) if sampling.at_limit == "sentence" else ""
        if "tokens" not in response:
            return {**response, "text": text}
        tokens = response["tokens"]
        spells = lambda n: _spelt(tokenizer, tokens[:n]).startswith(text)  # noqa: E731
        tokens = tokens[: bisect.bisect_left(range(len(tokens)), True, key=spells)] if text else []
        return {**response, "text": _spelt(tokenizer, tokens), "tokens": tokens}

    return Dataset.from_list([left_of(response) for response in responses])


def _spelt(tokenizer, tokens):
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def _texts(tokenizer, responses):
    """Rows of (tokens, finished) with their texts, to which the token that ends a response does not belong."""
    ends = [len(tokens) - finished for tokens, finished in responses]
    texts = [_spelt(tokenizer, tokens[:end]) for (tokens, _), end in zip(responses, ends, strict=True)]
    return [{"text": y, "tokens": ids, "finished": done} for y, (ids, done) in zip(texts, responses, strict=True)]
