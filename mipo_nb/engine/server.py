"""A chat model behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...), some requests at a time."""

import os
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import kept
from mipo_nb.base.progress import progress


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
        """Answers [{"text", "finished"}] to conversations, `sampling.batch_size` requests at a time.

        Answers that came are kept in `folder`, also when a later one does not come. `top_k` is not in the protocol and
        stays with the server. Failed requests are tried again by the client, waiting longer each time.
        """

        def ask(number):
            choice = self._choice(
                conversations[number],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=(seed * 1_000_003 + number) % 2**31,
            )
            text, finished = (choice.message.content or "").strip(), choice.finish_reason != "length"
            return {"text": text, "finished": finished}

        def one(number):
            return kept(Path(folder) / f"answer-{number:05d}.json" if folder else None, lambda: ask(number))

        return _at_once(one, range(len(conversations)), sampling.batch_size, description)

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
