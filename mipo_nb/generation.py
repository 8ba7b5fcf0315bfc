"""Sample responses in batches, with progress and resume.

One interface for two backends: a model in this process, or an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...).
"""

import bisect
import itertools
import re
from pathlib import Path

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
    options = {"seed": seed, "folder": folder, "description": description}
    if isinstance(model, Server):
        return at_limit(model.sample(conversations, sampling, **options), sampling, None)
    return at_limit(_drawn(model, tokenizer, conversations, sampling, **options), sampling, tokenizer)


def replies(model, tokenizer, conversations, *, max_tokens, batch_size=32, description="replies"):
    """The model's greedy answers as a list of texts, each cut off after `max_tokens` tokens wherever that is."""
    greedy = Sampling(temperature=0, max_new_tokens=max_tokens, batch_size=batch_size)
    return [r["text"] for r in _drawn(model, tokenizer, conversations, greedy, seed=0, description=description)]


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
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit:
        prompts.check_length(tokenizer, conversations, sampling.max_new_tokens, limit)
    return [prompts.prompt_ids(tokenizer, c) for c in conversations]


def in_batches(respond, model, tokenizer, ids, sampling, *, seed, folder=None, description="sampling"):
    """[{"text", "tokens", "finished"}] from `respond(rows, ticks, chance)`: (tokens, finished) for each of these rows.

    `ids` are the rows' token ids, which decide what is batched together; `respond` advances `ticks` at each token and
    draws by `chance` (`decoding.chances`).
    """
    import torch

    order = sorted(range(len(ids)), key=lambda i: ids[i])  # neighbours share what they begin with
    batches = [order[k : k + sampling.batch_size] for k in range(0, len(order), sampling.batch_size)]
    responses = {}
    with torch.inference_mode(), packed_weights(model):
        bar = iter(progress(range(len(batches) * sampling.max_new_tokens), description))
        for number, batch in enumerate(batches):
            ticks = itertools.islice(bar, sampling.max_new_tokens)

            def draw(number=number, batch=batch, ticks=ticks):
                torch.manual_seed((seed * 1_000_003 + number) % 2**63)  # for `generate`, which draws for itself
                return _texts(tokenizer, respond(batch, ticks, chances(seed, batch, sampling.max_new_tokens)))

            file = Path(folder) / f"batch-{number:04d}.json" if folder else None
            responses.update(zip(batch, kept(file, draw), strict=True))
            list(ticks)  # advances the bar past the tokens that a batch which ended early did not need
        list(bar)  # closes it
    return [responses[i] for i in range(len(ids))]


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
