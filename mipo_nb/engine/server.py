"""A chat model behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...), several requests at a time."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import kept
from mipo_nb.base.progress import progress


class Server:
    """A chat model behind an OpenAI-compatible server. `url` ends in /v1; the key comes from OPENAI_API_KEY, if any."""

    def __init__(self, url, model, *, timeout=60.0, retries=3):
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
        """`reply` to each conversation, as a list, 8 requests at a time."""
        return _at_once(lambda c: self.reply(c, max_tokens=max_tokens), conversations, 8, description)

    def sample(self, conversations, sampling, *, seed, folder=None, description="sampling"):
        """Answers [{"text", "finished"}] to conversations, `sampling.batch_size` requests at a time. Answers that came
        are kept in `folder`, even if a later request fails. `top_k` is not in the protocol and stays with the server.
        The client tries failed requests again, waiting longer each time."""

        limits = {"top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}

        def ask(number):
            options = {"temperature": sampling.temperature, "seed": (seed * 1_000_003 + number) % 2**31, **limits}
            choice = self._choice(conversations[number], **options)
            return {"text": (choice.message.content or "").strip(), "finished": choice.finish_reason != "length"}

        def answer(number):
            return kept(Path(folder) / f"answer-{number:05d}.json" if folder else None, lambda: ask(number))

        return _at_once(answer, range(len(conversations)), sampling.batch_size, description)

    def _choice(self, conversation, **options):
        from openai import OpenAIError

        try:
            choice = self.client.chat.completions.create(model=self.model, messages=conversation, **options).choices[0]
            choice.message.content  # noqa: B018  raises where the answer is not of the protocol
            return choice
        except (OpenAIError, ValueError, AttributeError, TypeError, IndexError) as e:
            # The client lets answers through that are not of the protocol: a web page, an empty list of choices.
            raise UserError(
                f"The server at {self.client.base_url} gave no usable answer for model '{self.model}' ({e}); "
                "check that it runs, serves this model, and speaks the OpenAI chat format."
            ) from e


def _at_once(call, rows, number, description):
    """[call(row)] in order, `number` at a time; calls that have not begun when one fails are dropped."""
    pool = ThreadPoolExecutor(number)
    try:
        waiting = [pool.submit(call, row) for row in rows]
        return [answer.result() for answer in progress(waiting, description)]
    finally:
        pool.shutdown(cancel_futures=True)
