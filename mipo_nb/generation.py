"""Sample responses in batches, with progress and resume.

One interface for two backends: a model in this process, or an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...).
"""

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mipo_nb import prompts
from mipo_nb.runs import kept, progress
from mipo_nb.settings import UserError


@dataclass(frozen=True)
class Sampling:
    """How to sample. `temperature=0` is greedy; `top_k=0` and `top_p=1` cut nothing off."""

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    max_new_tokens: int = 72
    batch_size: int = 64


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
        return model.sample(conversations, sampling, seed=seed, folder=folder, description=description)
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


def ends_of(model, tokenizer):
    """The set of tokens that close a response."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}


def in_batches(respond, model, tokenizer, ids, sampling, *, seed, folder=None, description="sampling"):
    """What `sample` returns, from `respond(rows, ticks)`, which gives (tokens, finished) for each of these rows.

    `ids` are the rows' token ids, which say what belongs together in a batch; `ticks` is to be moved on at each token.
    """
    import torch
    from datasets import Dataset

    from mipo_nb.linear import packed_weights

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
                text = response["text"] if response["finished"] else cut_to_sentence(response["text"])
                responses[i] = {**response, "text": text}
            for _ in ticks:  # a batch that ended early
                pass
        for _ in bar:
            pass
    return Dataset.from_list(responses)


def _responses(model, ids, sampling, ends, ticks=None):
    from mipo_nb.decoding import decode
    from mipo_nb.packing import shares_prefixes

    return decode(model, ids, sampling, ends, ticks) if shares_prefixes(model) else generate(model, ids, sampling, ends)


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

    from mipo_nb.linear import packed_weights

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


class Server:
    """A chat model behind an OpenAI-compatible server. `url` ends in /v1; the key comes from OPENAI_API_KEY, if any."""

    def __init__(self, url, model, *, timeout=60.0, retries=3):
        from urllib.parse import urlsplit

        from openai import OpenAI

        if not url.startswith(("http://", "https://")):
            raise UserError(f"The server's address must start with http:// or https://, not '{url}'.")
        try:
            urlsplit(url).port  # noqa: B018  raises for a port that is no number
        except ValueError as e:
            raise UserError(f"'{url}' is not an address ({e}); give one like http://127.0.0.1:8000/v1.") from None
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self.client = OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)
        self.model = model

    def fingerprint(self):
        """What identifies the model for a step's key; the server alone knows which weights it serves."""
        return [str(self.client.base_url), self.model]

    def reply(self, conversation, *, temperature=0.0, max_tokens=16):
        """The server's answer to one conversation, as text. Raises `UserError` when it cannot be had."""
        return self._choice(conversation, temperature=temperature, max_tokens=max_tokens).message.content or ""

    def replies(self, conversations, *, max_tokens=16, description="replies"):
        """`reply` to each of some conversations, 8 requests at a time, as a list."""
        return _at_once(lambda c: self.reply(c, max_tokens=max_tokens), conversations, 8, description)

    def sample(self, conversations, sampling, *, seed, folder=None, description="sampling"):
        """What `generation.sample` gives, `sampling.batch_size` requests at a time.

        Answers that came are kept in `folder`, also when a later one does not come. `top_k` is not in the protocol and
        stays with the server. Failed requests are tried again by the client, waiting longer each time.
        """
        from datasets import Dataset

        def ask(number):
            choice = self._choice(
                conversations[number],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=(seed * 1_000_003 + number) % 2**31,
            )
            text, finished = (choice.message.content or "").strip(), choice.finish_reason != "length"
            return {"text": text if finished else cut_to_sentence(text), "finished": finished}

        def one(number):
            return kept(Path(folder) / f"answer-{number:05d}.json" if folder else None, lambda: ask(number))

        return Dataset.from_list(_at_once(one, range(len(conversations)), sampling.batch_size, description))

    def _choice(self, conversation, **options):
        from openai import OpenAIError

        try:
            answer = self.client.chat.completions.create(model=self.model, messages=conversation, **options)
            answer.choices[0].message.content  # noqa: B018  raises where the answer is not of the protocol
            return answer.choices[0]
        except (OpenAIError, ValueError, AttributeError, TypeError, IndexError) as e:
            # The client lets answers through that are not of the protocol: a web page, an empty list of choices.
            raise UserError(
                f"The server at {self.client.base_url} gave no usable answer for model '{self.model}' ({e}); check that "
                f"it runs, serves this model, and speaks the OpenAI chat format."
            ) from e


def _at_once(call, rows, number, description):
    """[call(row)] in order, so many at a time; what has not begun when one fails is left."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(number)
    try:
        waiting = [pool.submit(call, row) for row in rows]
        return [answer.result() for answer in progress(waiting, description)]
    finally:
        pool.shutdown(cancel_futures=True)
