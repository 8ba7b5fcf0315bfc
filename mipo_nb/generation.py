"""Sample responses in batches, with progress and resume.

One interface for two backends: a model in this process, or an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...).
"""

import itertools
import re
from pathlib import Path

from mipo_nb import prompts
from mipo_nb.base.files import kept
from mipo_nb.base.progress import progress
from mipo_nb.engine.decoding import Sampling, decode, ends_of
from mipo_nb.engine.linear import packed_weights
from mipo_nb.engine.packing import enable_packing
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
    """A `datasets.Dataset` with one row per conversation (message lists): `text`, and `finished`.

    A response that reaches `max_new_tokens` is cut back to its last complete sentence and has `finished` False.
    Conversations that begin alike are sampled in one batch; batch i is seeded with (seed, i). With a `folder` each
    finished batch is kept there, so a killed run loses one batch at most and goes on to the same texts. `model` may be
    a `Server`, whose answers are kept one by one. Raises `UserError` for a conversation
    longer than the model takes, or a server that gives up.
    """
    options = {"seed": seed, "folder": folder, "description": description}
    if isinstance(model, Server):
        return whole_sentences(model.sample(conversations, sampling, **options))
    return whole_sentences(_drawn(model, tokenizer, conversations, sampling, **options))


def replies(model, tokenizer, conversations, *, max_tokens, batch_size=32, description="replies"):
    """The model's greedy answers as a list of texts, each cut off after `max_tokens` tokens wherever that is."""
    greedy = Sampling(temperature=0, max_new_tokens=max_tokens, batch_size=batch_size)
    return [r["text"] for r in _drawn(model, tokenizer, conversations, greedy, seed=0, description=description)]


def _drawn(model, tokenizer, conversations, sampling, **options):
    ids, ends = token_ids(model, tokenizer, conversations, sampling), ends_of(model, tokenizer)

    def respond(rows, ticks):
        return continued(model, [ids[i] for i in rows], sampling, ends, ticks)

    return in_batches(respond, model, tokenizer, ids, sampling, **options)


def continued(model, ids, sampling, ends, ticks=None):
    """(new tokens, finished) for each row of token `ids`: by `decoding.decode`, or by `generate` where it cannot run."""
    return decode(model, ids, sampling, ends, ticks) if enable_packing(model) else generate(model, ids, sampling, ends)


def token_ids(model, tokenizer, conversations, sampling):
    """Token ids of each conversation, a list of lists. Raises `UserError` where one and its response are too long."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit:
        prompts.check_length(tokenizer, conversations, sampling.max_new_tokens, limit)
    return [prompts.prompt_ids(tokenizer, c) for c in conversations]


def in_batches(respond, model, tokenizer, ids, sampling, *, seed, folder=None, description="sampling"):
    """[{"text", "finished"}] from `respond(rows, ticks)`, which gives (tokens, finished) for each of these rows.

    `ids` are the rows' token ids, which decide what is batched together; `respond` advances `ticks` at each token.
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
                torch.manual_seed((seed * 1_000_003 + number) % 2**63)
                return _texts(tokenizer, respond(batch, ticks))

            file = Path(folder) / f"batch-{number:04d}.json" if folder else None
            responses.update(zip(batch, kept(file, draw), strict=True))
            list(ticks)  # advances the bar past the tokens that a batch which ended early did not need
        list(bar)  # closes it
    return [responses[i] for i in range(len(ids))]


def whole_sentences(responses):
    """Responses {"text", "finished"} as a `datasets.Dataset`, unfinished ones cut to their last sentence."""
    from datasets import Dataset

    return Dataset.from_list([r if r["finished"] else {**r, "text": cut_to_sentence(r["text"])} for r in responses])


def _texts(tokenizer, responses):
    decoded = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens, _ in responses]
    return [{"text": text, "finished": finished} for text, (_, finished) in zip(decoded, responses, strict=True)]


def generate(model, ids, sampling, ends, processors=()):
    """What `decoding.decode` returns, by transformers' own `generate`: for models it cannot run, and as its check.

    `processors` are of transformers' class `LogitsProcessor`; they come before temperature, top-k and top-p.
    """
    import torch
    from transformers import LogitsProcessorList

    if len(ids) > 1 and getattr(model, "_is_stateful", False):  # padding would go through its recurrent layers
        return [generate(model, [row], sampling, ends, processors)[0] for row in ids]
    width, pad = max(map(len, ids)), min(ends, default=0)
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    options = {"max_new_tokens": sampling.max_new_tokens, "eos_token_id": sorted(ends) or None, "pad_token_id": pad}
    options["repetition_penalty"] = 1.0  # some models' files set another, which would change the distribution
    options["do_sample"] = sampling.temperature > 0
    if options["do_sample"]:
        options |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    processors = LogitsProcessorList(processors)
    with torch.inference_mode():
        sequences = model.generate(tokens, attention_mask=mask, logits_processor=processors, **options)
    completions = sequences[:, width:].tolist()
    stops = [next((k for k, t in enumerate(row) if t in ends), None) for row in completions]
    return [(row[:stop], stop is not None) for row, stop in zip(completions, stops, strict=True)]
