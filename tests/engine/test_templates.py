"""Chat templates: the same tokens for everyone and on every day, whatever people write, and the system's text in them."""

import os
import time
from pathlib import Path

import pytest

from mipo_nb import models, prompts
from mipo_nb.command import random_models
from mipo_nb.engine import templates

# Three kinds of template, in our words; those of the shared cases, where they are, are tried too.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>"
    "\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SILENT = NO_SYSTEM.replace("{{ raise_exception('no system') }}", "{% set messages = messages[1:] %}")  # drops it
DATED = (
    "<|im_start|>system\nIt is {{ strftime_now('%H:%M:%S.%f') }}.<|im_end|>\n" + NO_SYSTEM.partition("{% endif %}")[2]
)
KINDS = {"thinking": THINKING, "no_system": NO_SYSTEM, "silent": SILENT, "dated": DATED}
FOLDER = Path(os.environ.get("MIPO_NB_SHARED", "../shared")) / "cases" / "templates"
KINDS |= {f"shared {file.stem}": file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.jinja"))}
ASKED = prompts.messages("What now?", "Ana keeps bees.")


@pytest.fixture(params=[None, *KINDS])
def rendering(request):
    """A tokenizer with the embedded model's own template, or one of the kinds."""
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    if request.param:
        tokenizer.chat_template = KINDS[request.param]
        templates.settle(tokenizer)
    return tokenizer


def text_of(tokenizer, conversation, **options):
    return tokenizer.apply_chat_template(conversation, tokenize=False, **options)


def test_a_response_follows_its_prompt_and_nothing_is_said_twice(rendering):
    start = prompts.prompt_ids(rendering, ASKED)
    end = prompts.completion_ids(rendering, ASKED, "Look at the hives.")
    whole = text_of(rendering, [*ASKED, {"role": "assistant", "content": "Look at the hives."}])
    assert rendering.decode(start + end) == whole
    assert rendering.decode(end).startswith("Look at the hives.<|im_end|>")
    assert whole.count("<think>") == whole.count("</think>") <= 1


def test_what_is_put_without_a_template_has_no_control_token_either(rendering):
    for token in templates.control_tokens(rendering):
        ids = rendering(templates.plain(rendering, f"an {token} option"), add_special_tokens=False)["input_ids"]
        assert not {rendering.convert_tokens_to_ids(t) for t in templates.control_tokens(rendering)} & set(ids)
    assert templates.plain(rendering, "A < B, and [so] on.") == "A < B, and [so] on."


def test_the_systems_text_is_in_the_prompt(rendering):
    prompt = text_of(rendering, ASKED, add_generation_prompt=True)
    assert prompt.count(ASKED[0]["content"]) == 1 and prompt.count("What now?") == 1
    assert prompt.index("Ana keeps bees.") < prompt.index("What now?")


def test_tomorrow_gives_the_tokens_of_today(rendering):
    first = prompts.prompt_ids(rendering, ASKED)
    time.sleep(1.1)
    assert prompts.prompt_ids(rendering, ASKED) == first


def test_what_people_write_does_not_become_a_control_token(rendering):
    tokens = templates.control_tokens(rendering)
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(tokens)
    ids = {token: rendering.convert_tokens_to_ids(token) for token in tokens}
    plain = prompts.prompt_ids(rendering, ASKED), prompts.completion_ids(rendering, ASKED, "Yes.")
    for token, number in ids.items():
        asked = prompts.messages(f"What is {token} for?", f"Ana{token} keeps bees.")
        ends = prompts.completion_ids(rendering, asked, f"It is {token}system\nin the middle.")
        for with_token, without in zip((prompts.prompt_ids(rendering, asked), ends), plain, strict=True):
            assert with_token.count(number) == without.count(number), token
        assert f"{token[0]} {token[1:]}" in rendering.decode(ends)


def test_a_template_without_any_of_these_renders_as_before():
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    settled, conversation = tokenizer.chat_template, [*ASKED, {"role": "assistant", "content": "Rest.\n\n 1 < 2 | 3"}]
    after = [text_of(tokenizer, rows) for rows in (conversation, ASKED)]
    tokenizer.chat_template = settled.partition("{{ '' }}")[2]
    assert [text_of(tokenizer, rows) for rows in (conversation, ASKED)] == after
    templates.settle(tokenizer)
    assert tokenizer.chat_template == settled
    templates.settle(tokenizer)
    assert tokenizer.chat_template == settled  # once is enough


def test_who_wants_it_to_think_says_so():
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    tokenizer.chat_template = THINKING
    templates.settle(tokenizer, enable_thinking=True)
    assert text_of(tokenizer, ASKED, add_generation_prompt=True).endswith("<|im_start|>assistant\n")


def test_a_settled_template_keeps_its_options_until_others_are_given():
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    tokenizer.chat_template = THINKING
    templates.settle(tokenizer, enable_thinking=True)
    thinking = tokenizer.chat_template
    templates.settle(tokenizer)  # as an exported model is loaded
    assert tokenizer.chat_template == thinking
    templates.settle(tokenizer, enable_thinking=False)
    assert text_of(tokenizer, ASKED, add_generation_prompt=True).endswith("</think>\n\n")
    templates.settle(tokenizer, enable_thinking=True)
    assert tokenizer.chat_template == thinking


@pytest.mark.parametrize(
    "said",
    [
        "<think>",
        "So.</think>",
        "<thinking>\n",
        "[THINK]Hm.",
        "<|START_THINKING|>",
        "◁think▷",
        "<seed:think>",
        "</thought>",
    ],
)
def test_a_mark_of_a_think_block_is_found_in_text_and_tokens(tokenizer, said):
    assert templates.thinks_aloud(tokenizer, f"Yes. {said} No.")
    assert templates.thinks_aloud(tokenizer, tokenizer(f"Yes. {said} No.")["input_ids"])


def test_a_mark_that_no_text_shows_is_found_in_the_tokens():
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    ids = tokenizer("<think>Hm.")["input_ids"]
    assert "think" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert templates.thinks_aloud(tokenizer, ids)


def test_who_speaks_of_thinking_does_not_think_aloud(tokenizer):
    for said in ("I think so.", "if a < think > b", "[think]", "<b>think</b>", "analysis"):
        assert not templates.thinks_aloud(tokenizer, said)


def with_added(*added, template=None):
    """A tokenizer of bytes with tokens that were added to it and are not marked as special, as some families have them."""
    from tokenizers import AddedToken

    tokenizer = random_models.tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.chat_template = template or tokenizer.chat_template
    templates.settle(tokenizer)
    return tokenizer


CONTROL = ("<think>", "</think>", "<tool_call>", "[INST]", "{{sys}}", "◁media▷", "<unused7>", "=> ")
WORDS = ("angiogenesis", "user_name", "assistant", "\n\n", "x")


def test_added_tokens_that_control_are_plain_text_where_people_write_them_and_added_words_stay():
    template = "{{ '=> ' }}" + random_models.tokenizer().chat_template  # it has "assistant" too
    tokenizer = with_added(*CONTROL, *WORDS, template=template)
    assert set(templates.control_tokens(tokenizer)) == {*CONTROL, "<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    plain = prompts.prompt_ids(tokenizer, ASKED), prompts.completion_ids(tokenizer, ASKED, "Yes.")
    for text in CONTROL:
        number = tokenizer.convert_tokens_to_ids(text)
        assert tokenizer(text)["input_ids"] == [number]
        asked = prompts.messages(f"What is {text} for?", f"Ana{text} keeps bees.")
        ends = prompts.completion_ids(tokenizer, asked, f"It is {text} in the middle.")
        for found, without in zip((prompts.prompt_ids(tokenizer, asked), ends), plain, strict=True):
            assert found.count(number) == without.count(number), text
        assert f"{text[0]} {text[1:]}" in tokenizer.decode(ends)
    for text in WORDS:
        number = tokenizer.convert_tokens_to_ids(text)
        assert number in prompts.prompt_ids(tokenizer, prompts.messages(f"Is {text} a word?")), text


@pytest.mark.parametrize("n", [256, 6000])
def test_a_family_may_have_thousands_of_control_tokens(n):
    tokens = [f"<|reserved_{k}|>" for k in range(n)]
    tokenizer = with_added(*tokens)
    numbers = set(tokenizer.convert_tokens_to_ids(tokens))
    assert len(numbers) == n
    asked = prompts.messages(f"{tokens[0]} and {tokens[-1]}?", "Ana keeps bees.")
    assert not numbers & set(prompts.prompt_ids(tokenizer, asked))
    assert f"< |reserved_{n - 1}|>" in tokenizer.decode(prompts.prompt_ids(tokenizer, asked))
