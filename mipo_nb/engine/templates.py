"""Chat templates that give the same tokens to everyone and on every day: what is put before a model's own template.

A template is a program. Some think aloud unless they are told not to, some write today's date, some know no system role,
and all of them turn `<|im_end|>` in a person's text into the end of a turn. The lines put before it settle these for
whoever renders it: sampling, scoring, and TRL, which takes the template from the tokenizer.
"""

import re

DATE = "01 Jan 2026"  # for templates that write the day on which they are rendered
_SETTLED = "{#- settled -#}"
_BEGINS = "{{ '' }}"  # before the model's own template: a line break that it begins with stays one


def settle(tokenizer, **options):
    """Put lines before the tokenizer's chat template; only those that it needs, and only once: a template that comes
    settled, with an exported model, stays so, and is settled anew where `options` are given.

    `options` are variables that the template reads, `enable_thinking` and `date_string` unless given otherwise. Control
    tokens in the contents of messages get a blank after their first character, and so are plain text. Where the template
    refuses or drops a system message, its text begins the first user turn.
    """
    template = tokenizer.chat_template
    template = template.get("default", next(iter(template.values()))) if isinstance(template, dict) else template
    if template.startswith(_SETTLED):
        if not options:
            return
        template = template.partition(_BEGINS)[2]
    options = variables(options)
    lines = [f"{{% set {name} = {_literal(value)} %}}" for name, value in options.items() if name in template]
    if "strftime_now" in template:
        lines.append(f"{{% macro strftime_now(format) %}}{options['date_string']}{{% endmacro %}}")
    template = _BEGINS + template
    tokenizer.chat_template = "".join([_SETTLED, *lines, template])
    if not _shows_system(tokenizer):
        lines.append(_FOLDED)
    tokenizer.chat_template = "".join([_SETTLED, _plain_contents(control_tokens(tokenizer)), *lines, template])


def variables(options):
    """The variables that every template is given: `options`, and what is settled where they do not say."""
    return {"enable_thinking": False, "date_string": DATE, **options}


def control_tokens(tokenizer):
    """The texts of a tokenizer's control tokens, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
    return sorted((text for text in texts if len(text.strip()) > 1), key=lambda text: (-len(text), text))


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
    """Lines that give every message the same content with each of the control tokens broken."""
    broken = "".join(f" | replace({token!r}, {token[:1] + ' ' + token[1:]!r})" for token in tokens)
    return (
        "{% set plain = namespace(messages=[]) %}{% for message in messages %}{% if message['content'] is string %}"
        f"{{% set message = dict(message, content=message['content']{broken}) %}}{{% endif %}}"
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
