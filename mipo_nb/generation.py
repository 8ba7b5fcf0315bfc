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
    a `Server`; it gets `batch_size` requests at a time, and each answer is kept. Raises `UserError` for a conversation
    longer than the model takes, or a server that gives up.
    """
    if isinstance(model, Server):
        answers = model.sample(conversations, sampling, seed=seed, folder=folder, description=description)
        return _whole_sentences(answers)
    ids = token_ids(model, tokenizer, conversations, sampling)

    def respond(rows, ticks):
        return _responses(model, [ids[i] for i in rows], sampling, ends_of(model, tokenizer), ticks)

    return in_batches(respond, model, tokenizer, ids, sampling, seed=seed, folder=folder, description=description)


def token_ids(model, tokenizer, conversations, sampling):
    """List of lists: the conversations' token ids. Raises `UserError` where one and its response are too long."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit:
        prompts.check_length(tokenizer, conversations, sampling.max_new_tokens, limit)
    return [prompts.prompt_ids(tokenizer, c) for c in conversations]


def in_batches(respond, model, tokenizer, ids, sampling, *, seed, folder=None, description="sampling"):
    """What `sample` returns, from `respond(rows, ticks)`, which gives (tokens, finished) for each of these rows.

    `ids` are the rows' token ids, which say what belongs together in a batch; `ticks` is to be moved on at each token.
    """
    import torch

    order = sorted(range(len(ids)), key=lambda i: ids[i])  # neighbours share what they begin with
    batches = [order[k : k + sampling.batch_size] for k in range(0, len(order), sampling.batch_size)]
    responses = [None] * len(ids)
    with torch.inference_mode(), packed_weights(model):
        bar = iter(progress(range(len(batches) * sampling.max_new_tokens), description))
        for number, batch in enumerate(batches):
            ticks = itertools.islice(bar, sampling.max_new_tokens)

            def draw(number=number, batch=batch, ticks=ticks):
                torch.manual_seed((seed * 1_000_003 + number) % 2**63)
                return _texts(tokenizer, respond(batch, ticks))

            found = kept(Path(folder) / f"batch-{number:04d}.json" if folder else None, draw)
            for i, response in zip(batch, found, strict=True):
                responses[i] = response
            for _ in ticks:  # a batch that ended early
                pass
        for _ in bar:
            pass
    return _whole_sentences(responses)


def _whole_sentences(responses):
    """Responses {"text", "finished"} as a `datasets.Dataset`, those that are not finished cut to their last sentence."""
    from datasets import Dataset

    return Dataset.from_list([r if r["finished"] else {**r, "text": cut_to_sentence(r["text"])} for r in responses])


def _responses(model, ids, sampling, ends, ticks=None):
    return decode(model, ids, sampling, ends, ticks) if enable_packing(model) else generate(model, ids, sampling, ends)


def _texts(tokenizer, made):
    return [
        {"text": tokenizer.decode(tokens, skip_special_tokens=True).strip(), "finished": finished}
        for tokens, finished in made
    ]


def generate(model, ids, sampling, ends, processors=()):
    """What `decoding.decode` returns, by transformers' own `generate`: the reference, and the way of other models.

    `processors` are of transformers' class `LogitsProcessor`; they come before temperature, top-k and top-p.
    """
    import torch
    from transformers import LogitsProcessorList

    width = max(map(len, ids))
    pad = min(ends)
    tokens = torch.tensor([[pad] * (width - len(i)) + i for i in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids], device=model.device)
    drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    with torch.inference_mode():
        out = model.generate(
            tokens,
            attention_mask=mask,
            do_sample=sampling.temperature > 0,
            **(drawn if sampling.temperature > 0 else {}),
            logits_processor=LogitsProcessorList(processors),
            repetition_penalty=1.0,  # some models' files ask for another; then it would not be the model's distribution
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
        )[:, width:]
    found = []
    for row in out.tolist():
        stop = next((k for k, t in enumerate(row) if t in ends), None)
        found.append((row[:stop], stop is not None))
    return found


def replies(model, tokenizer, conversations, *, max_tokens, batch_size=32, description="replies"):
    """The model's greedy answers as a list of texts, each cut off after `max_tokens` tokens wherever that is."""
    import torch

    how = Sampling(temperature=0, max_new_tokens=max_tokens)
    ids = token_ids(model, tokenizer, conversations, how)
    order, ends, found = sorted(range(len(ids)), key=lambda i: ids[i]), ends_of(model, tokenizer), [None] * len(ids)
    with torch.inference_mode(), packed_weights(model):
        for start in progress(range(0, len(ids), batch_size), description):
            batch = order[start : start + batch_size]
            made = _texts(tokenizer, _responses(model, [ids[i] for i in batch], how, ends))
            for i, response in zip(batch, made, strict=True):
                found[i] = response["text"]
    return found
