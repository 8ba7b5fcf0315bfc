"""How a prompt and a context are put to the model: the words around them, and in whose turn they stand."""

import re
from dataclasses import dataclass

from mipo_nb.base.errors import UserError

SYSTEM = "You are a helpful assistant."
WITH_CONTEXT = SYSTEM + " You are talking to this user: {context}"


@dataclass(frozen=True)
class Frame:
    """How a prompt and a context are put to the model. Raises `UserError` for a `with_context` without {context}.

    `system`: the system message without a context, "" for none. `with_context`: the system message with one; where it
    also has {prompt}, it is the user's turn instead, under the system message.
    """

    system: str = SYSTEM
    with_context: str = WITH_CONTEXT

    def __post_init__(self):
        if "{context}" not in self.with_context:
            raise UserError("WITH_CONTEXT has no {context} in it, where the user's context goes; put it there.")

    def put(self, prompt, context):
        """(system message, user's turn)"""
        if context is None:
            return self.system, prompt
        told = re.sub(
            r"\{(context|prompt)\}", lambda part: {"context": context, "prompt": prompt}[part[1]], self.with_context
        )
        return (self.system, told) if "{prompt}" in self.with_context else (told, prompt)


_frame = Frame()


def frame():
    """The `Frame` that `prompts.messages` uses."""
    return _frame


def use(new):
    """Have `prompts.messages` use another `Frame` from here on, in all that samples, scores and trains."""
    global _frame
    _frame = new
