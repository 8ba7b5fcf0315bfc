"""From a prompt and a user's context to the messages and tokens a model sees.

Everything that samples, scores or trains gets its tokens here, so the three always speak of the same sequence.
"""

import textwrap

from mipo_nb.base.errors import UserError
from mipo_nb.base.frame import SYSTEM, WITH_CONTEXT, Frame, frame, use

__all__ = ["SYSTEM", "WITH_CONTEXT", "Frame", "frame", "use"]  # and what is defined here

PROBLEM = "You are a helpful assistant. Solve the problem in a few short steps and end with: The answer is N."
CHOICE = "You are a helpful assistant. Choose the right option. Say why in one short sentence and end with: The answer is X."  # fmt: skip


def messages(prompt, context=None):
    """Chat messages for a prompt x, with the user's context c where the frame puts it, or without it. `prompt` is text, or a
    list of turns of which the last is the user's: what was said before comes along."""
    *earlier, turn = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    system, asked = frame().put(turn["content"], context)
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, *earlier, {"role": "user", "content": asked}]


def asked(row):
    """What `messages` takes as the prompt of a row: its text, with the turns of its `history` where it has one."""
    return [*row["history"], {"role": "user", "content": row["prompt"]}] if row.get("history") else row["prompt"]


def in_words(row):
    """The prompt of a row as one text, below what was said before it, for whoever judges an answer to it."""
    earlier = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in row.get("history") or ()]
    return "\n".join([*earlier, row["prompt"]])


def problem_text(problem):
    """A problem as the model reads it: the question, and below it one line for each option, "A. text"."""
    options = (f"{letter}. {text}" for letter, text in zip(problem["letters"], problem["options"], strict=True))
    return "\n".join([problem["question"], *options])


def worked(problem, closing=" The answer is {answer}."):
    """A problem's solution as an exemplar shows it: its steps where they are known, then the closing phrase."""
    steps = " ".join(problem["solution"].partition("####")[0].split())
    return (steps + closing.format(answer=problem["answer"])).strip()


def problem_messages(problem, exemplars=()):
    """Chat messages for a problem (a row of `problems`), after `exemplars` with their solutions as earlier turns.

    The published protocol (arXiv 2603.19294) puts its exemplars into one user turn; a small model then goes on to write
    new problems. A turn of its own shows where an answer ends.
    """
    turns = [{"role": "system", "content": CHOICE if problem["letters"] else PROBLEM}]
    for exemplar in exemplars:
        turns.append({"role": "user", "content": problem_text(exemplar)})
        turns.append({"role": "assistant", "content": worked(exemplar)})
    return [*turns, {"role": "user", "content": problem_text(problem)}]


def prompt_ids(tokenizer, conversation):
    """Token ids of a conversation up to where the assistant's answer begins. Raises `UserError` where the template refuses
    it."""
    return _rendered(tokenizer, conversation, add_generation_prompt=True)


def _rendered(tokenizer, conversation, **how):
    """A conversation's token ids, or its text, by the chat template."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(conversation, return_dict=False, **how)
    except TemplateError as e:  # it may refuse roles, their order, or a variable that is not set
        raise UserError(f"This model's chat template refuses the conversation ({e}); set TEMPLATE_OPTIONS.") from e


def completion_ids(tokenizer, conversation, response):
    """Token ids of a response: its own, where it is a list of them, else as the chat template renders its text.

    These are the tokens that are scored and trained on. A text's are what remains of prompt + completion after the
    prompt, end-of-turn tokens included. Raises `UserError` where the template does not render the prompt as a prefix of
    prompt + completion.
    """
    if not isinstance(response, str):
        return list(response)
    prompt = prompt_ids(tokenizer, conversation)
    answer = {"role": "assistant", "content": response}
    whole = _rendered(tokenizer, [*conversation, answer])
    if whole[: len(prompt)] == prompt:
        return whole[len(prompt) :]
    # The last token of the prompt may be another one where something follows; a response is written after the prompt.
    text = _rendered(tokenizer, conversation, add_generation_prompt=True, tokenize=False)
    whole_text = _rendered(tokenizer, [*conversation, answer], tokenize=False)
    if not whole_text.startswith(text):
        raise UserError(
            "This model's chat template changes the prompt once an answer follows, so the answer's tokens cannot be "
            "told apart; use a model or template whose rendered prompt is a prefix of the whole conversation."
        )
    return tokenizer(whole_text[len(text) :], add_special_tokens=False)["input_ids"]


def check_length(tokenizer, conversations, max_new_tokens, limit):
    """Raise `UserError` when a conversation and the response allowed for it do not fit in `limit` tokens."""
    for conversation in conversations:
        n = len(prompt_ids(tokenizer, conversation))
        if n + max_new_tokens > limit:
            begins = textwrap.shorten(conversation[-1]["content"], 60, placeholder=" ...")
            raise UserError(
                f"The prompt that ends with {begins!r} has {n} tokens with its context, and its response may have {max_new_tokens}, "
                f"but the model reads {limit}; shorten the prompt or context, or lower max_new_tokens."
            )
