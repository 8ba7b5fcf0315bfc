"""Chat templates that give the same tokens to everyone and on every day: what is put before a model's own template.

A template is a program. Some think aloud unless they are told not to, some write today's date, some know no system role,
and all of them turn `<|im_end|>` in a person's text into the end of a turn. The lines put before it settle these for
whoever renders it: sampling, scoring, and TRL, which takes the template from the tokenizer.
"""

import re

from mipo_nb.base.errors import UserError

DATE = "01 Jan 2026"  # for templates that write the day on which they are rendered
_SETTLED = "{#- settled -#}"
_BEGINS = "{{ '' }}"  # before the model's own template: a line break that it begins with stays one


def settle(tokenizer, **options):
    """Put lines before the tokenizer's chat template; only those that it needs, and only once: a template that comes
    settled, with an exported model, stays so, and is settled anew where `options` are given.

    `options` are variables that the template reads, `enable_thinking` and `date_string` unless given otherwise. Control
    tokens in the contents of messages get a blank after their first character, and so are plain text. Where the template
    refuses or drops a system message, its text begins the first user turn. Raises `UserError` for an option that the
    template does not read.
    """
    template = tokenizer.chat_template
    template = template.get("default", next(iter(template.values()))) if isinstance(template, dict) else template
    if template.startswith(_SETTLED):
        if not options:
            return
        template = template.partition(_BEGINS)[2]
    for name in options:
        if name not in variables({}) and not re.search(rf"\b{re.escape(name)}\b", template):
            raise UserError(
                f"The chat template reads no variable '{name}', so TEMPLATE_OPTIONS would change nothing; leave it out."
            )
    options = variables(options)
    lines = [f"{{% set {name} = {_literal(value)} %}}" for name, value in options.items() if name in template]
    if "strftime_now" in template:
        lines.append(f"{{% macro strftime_now(format) %}}{options['date_string']}{{% endmacro %}}")
    template = _BEGINS + template
    tokenizer.chat_template = "".join([_SETTLED, *lines, template])
    if not _shows_system(tokenizer):
        lines.append(_FOLDED)
    tokenizer.chat_template = "".join([_SETTLED, _plain_contents(control_tokens(tokenizer)), *lines, template])


def plain(tokenizer, text):
    """A text with the control tokens in it broken, as a settled template gives it: for what is put without one."""
    for token in control_tokens(tokenizer):
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


def variables(options):
    """The variables that every template is given: `options`, and what is settled where they do not say."""
    return {"enable_thinking": False, "date_string": DATE, **options}


def control_tokens(tokenizer):
    """The texts of a tokenizer's control tokens, the longest first: the special ones, and of the other added tokens those in
    brackets of whatever kind (`<think>`, `<tool_call>`, `[INST]`; families mark few of them as special, and some that are
    plain HTML are among them) and those that the chat template writes. A word that somebody added, with letters and digits
    alone, is none, even if the template has it."""
    added = [token for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if str(token).strip()]
    template = tokenizer.chat_template or ""
    texts = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    for text in map(str, added):
        written = text in template and not text.strip().replace("_", "").isalnum()
        if written or _BRACKETED.fullmatch(text.strip()):
            texts.add(text)
    return sorted((text for text in texts if len(text.strip()) > 1), key=lambda text: (-len(text), text))


_BRACKETED = re.compile(r"[<\[{|◁].*[>\]}|▷]", re.DOTALL)


# How models mark the beginning or end of what they think: Qwen, DeepSeek and others; Mistral; Cohere; Kimi; gpt-oss.
_THOUGHT = re.compile(
    r"</?(?:\w+:)?think(?:ing)?>|</?thought>|\[/?THINK\]|<\|(?:START|END)_THINKING\|>|◁/?think▷|<\|channel\|>analysis"
)


def thinks_aloud(tokenizer, response):
    """Whether a response has a mark of a think block in it: of text, or of token ids, where a mark counts too that its text
    would leave out, as the tokenizer's special tokens."""
    return bool(_THOUGHT.search(response if isinstance(response, str) else tokenizer.decode(response)))


def _literal(value):
    return str(value).lower() if isinstance(value, bool) else repr(value)


_FOLDED = (
    "{% if messages and messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] ~ '\\n\\n' ~ (messages[1]['content'] if messages | length > 1 else '')}] + messages[2:] %}"
    "{% endif %}"
)


def _plain_contents(tokens):
    """Lines that give every message the same content with each of the control tokens broken. A loop, since some families have
    thousands of them: chained filters are nested calls, of which Python compiles some hundred. Most texts have not even
    the first character of one."""
    any_of = " or ".join(f"{first!r} in plain.text" for first in sorted({token.strip()[0] for token in tokens}))
    return (
        f"{{% set control = {tokens!r} %}}{{% set plain = namespace(messages=[], text='') %}}"
        "{% for message in messages %}{% if message['content'] is string %}{% set plain.text = message['content'] %}"
        f"{{% if {any_of or 'false'} %}}{{% for token in control %}}{{% if token in plain.text %}}"
        "{% set plain.text = plain.text | replace(token, token[:1] ~ ' ' ~ token[1:]) %}{% endif %}{% endfor %}{% endif %}"
        "{% set message = dict(message, content=plain.text) %}{% endif %}"
        "{% set plain.messages = plain.messages + [message] %}{% endfor %}{% set messages = plain.messages %}"
    )


def _shows_system(tokenizer):
    """Whether a rendered conversation has the system message's text in it."""
    conversation = [{"role": "system", "content": "Mind the gap."}, {"role": "user", "content": "Where?"}]
    try:
        return "Mind the gap." in tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
    except Exception:  # a template refuses in whatever words it likes
        return False
