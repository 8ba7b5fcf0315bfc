"""A chat model behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama ...), several requests at a time."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import digest, kept
from mipo_nb.base.progress import progress

_OPTIONS = "chat_template_kwargs"  # as vLLM, SGLang, llama.cpp and transformers take variables of a chat template
_TO_THINK = 2048  # tokens on top of a reply's own, for a model that thinks first
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff]")  # Japanese and Chinese, which put no spaces between words


class Server:
    """A chat model behind an OpenAI-compatible server. `url` ends in /v1; the key comes from OPENAI_API_KEY, if any.

    `timeout` is in seconds, ten times as long once the model turned out to think before it replies; `retries` is how
    often the client repeats a failed request; at most `at_once` requests are open at a time, through the proxy that the
    environment names, if any, unless `through_proxy` is False. `template_options` are variables that the server's chat
    template reads when it answers for a sample; it does not think aloud unless they say so. Raises `UserError` for an
    address that is none, and where `at_once` is below 1.
    """

    def __init__(self, url, model, *, timeout=60.0, retries=3, at_once=8, through_proxy=True, template_options=()):
        import httpx
        from openai import OpenAI

        if not url.startswith(("http://", "https://")):
            raise UserError(f"The server's address must start with http:// or https://, not '{url}'.")
        try:
            urlsplit(url).port  # noqa: B018  raises for a port that is no number
        except ValueError as e:
            raise UserError(f"'{url}' is not an address ({e}); give one like http://127.0.0.1:8000/v1.") from None
        if at_once < 1:
            raise UserError(f"A server takes at least 1 request at a time, not {at_once}; set at_once to 1 or more.")
        key = os.environ.get("OPENAI_API_KEY") or "none"
        direct = {} if through_proxy else {"http_client": httpx.Client(trust_env=False)}
        self.client = OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries, **direct)
        self.model, self.timeout, self.at_once = model, timeout, at_once
        self.template_options = {"enable_thinking": False, **dict(template_options)}
        # What the server turned out to be like, so that it is found out once and not at every request.
        self._thinks, self._refused, self._told = False, set(), set()

    def fingerprint(self):
        """What identifies the model for a step's key; the server alone knows which weights it serves."""
        return [str(self.client.base_url), self.model, self.template_options]

    def reply(self, conversation, *, temperature=0.0, max_tokens=16):
        """The server's answer to one conversation, as text, of `max_tokens` tokens at most; thoughts do not count.

        A model that spent them all on thinking is asked again with 2048 more. Where a server files the whole answer
        under its thoughts, that is the reply; thoughts that were cut off are none, and give "". Raises `UserError` when
        no answer can be had.
        """
        for room in (_TO_THINK,) if self._thinks else (0, _TO_THINK):
            choice = self._choice(conversation, temperature=temperature, max_tokens=max_tokens + room)
            cut_off = choice.finish_reason == "length"
            if text := _said(choice.message):
                return text
            if not cut_off:
                return _thought(choice.message)
            self._thinks = True
        return ""

    def replies(self, conversations, *, max_tokens=16, folder=None, description="replies"):
        """`reply` to each conversation, as a list, `at_once` requests at a time. With a `folder` each reply is stored
        there as it comes, keyed by model, conversation and `max_tokens`: a server that gives up costs none."""

        def answer(number):
            asked = [self.fingerprint(), conversations[number], max_tokens]
            file = Path(folder) / f"reply-{number:05d}-{digest(asked)[:16]}.json" if folder else None
            return kept(file, lambda: self.reply(conversations[number], max_tokens=max_tokens))

        return _at_once(answer, range(len(conversations)), self.at_once, description)

    def sample(self, conversations, sampling, *, seed, folder=None, description="sampling"):
        """Answers [{"text", "finished"}] to conversations, without thoughts, in as many requests at a time as both
        `at_once` and `sampling.batch_size` allow. Answers that came are kept in `folder`, even if a later one fails.
        `top_k` is not in the protocol and stays with the server. The client tries failed requests again, waiting longer
        each time."""

        limits = {"top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        limits["extra_body"] = {_OPTIONS: self.template_options}

        def ask(number):
            options = {"temperature": sampling.temperature, "seed": (seed * 1_000_003 + number) % 2**31, **limits}
            choice = self._choice(conversations[number], **options)
            return {"text": _said(choice.message).strip(), "finished": choice.finish_reason != "length"}

        def answer(number):
            file = Path(folder) / f"answer-{seed}-{number:05d}.json" if folder else None
            return kept(file, lambda: ask(number))

        return _at_once(answer, range(len(conversations)), min(self.at_once, sampling.batch_size), description)

    def _choice(self, conversation, **options):
        from openai import OpenAIError

        try:
            answer = self._completion(conversation, options)
            choice = answer.choices[0]
            choice.message.content  # noqa: B018  raises where the answer is not of the protocol
        except (OpenAIError, ValueError, AttributeError, TypeError, IndexError) as e:
            # The client lets answers through that are not of the protocol: a web page, an empty list of choices.
            raise UserError(
                f"The server at {self.client.base_url} gave no usable answer for model '{self.model}' ({e}); "
                "check that it runs, serves this model, and speaks the OpenAI chat format."
            ) from e
        self._check_whole(conversation, getattr(answer.usage, "prompt_tokens", None))
        return choice

    def _completion(self, conversation, options):
        """The server's answer, asked again without an option that it says it refuses."""
        from openai import APIStatusError

        timeout = self.timeout * (10 if self._thinks else 1)
        while True:
            sent = dict(options)
            if "max_tokens" in self._refused:
                sent["max_completion_tokens"] = sent.pop("max_tokens")
            if "temperature" in self._refused and not sent["temperature"]:
                del sent["temperature"]
            if _OPTIONS in self._refused:
                sent.pop("extra_body", None)
            try:
                call = {"model": self.model, "messages": conversation, "timeout": timeout, **sent}
                return self.client.chat.completions.create(**call)
            except APIStatusError as e:
                refused = _refused(e, sent)
                if refused is None:
                    raise
                self._refused.add(refused)
                if refused == "temperature":
                    self._tell(refused, f"'{self.model}' takes no temperature; its replies are drawn and may differ.")
                if refused == _OPTIONS:
                    self._tell(
                        refused, f"'{self.model}' takes no {_OPTIONS}; where it thinks aloud, tell the server not to."
                    )

    def _check_whole(self, conversation, tokens):
        """Say so where the server read clearly less than was sent: no tokenizer puts many words into one token."""
        text = " ".join(str(message["content"]) for message in conversation)
        sent = len(text.split()) + len(_IDEOGRAPH.findall(text)) // 3
        if isinstance(tokens, int) and 0 < tokens < sent:
            self._tell(
                "cut",
                f"Warning: the server read {tokens} tokens of a prompt of {sent} words or more, so it probably cut the "
                "prompt; give it a longer context (Ollama: num_ctx).",
            )

    def _tell(self, about, line):
        if about not in self._told:  # once, not at each of a thousand requests
            self._told.add(about)
            print(line, flush=True)


def _said(message):
    """What a message says aloud: its content without a think block; "" while that is not closed."""
    content = message.content or ""
    if "</think>" in content:
        return content.rpartition("</think>")[2].strip()
    return "" if content.lstrip().startswith("<think>") else content


def _thought(message):
    return getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""


def _refused(error, sent):
    """The option that a server says it does not take and that can be sent otherwise, or None."""
    said = str(error) if error.status_code in (400, 422) else ""
    if "max_tokens" in sent and "max_completion_tokens" in said:
        return "max_tokens"  # OpenAI's reasoning models know it by the other name alone
    if "extra_body" in sent and _OPTIONS in said:
        return _OPTIONS
    return "temperature" if "temperature" in said and sent.get("temperature") == 0 else None


def _at_once(call, rows, number, description):
    """[call(row)] in order, `number` at a time; calls that have not begun when one fails are dropped."""
    pool = ThreadPoolExecutor(number)
    try:
        waiting = [pool.submit(call, row) for row in rows]
        return [answer.result() for answer in progress(waiting, description)]
    finally:
        pool.shutdown(cancel_futures=True)
