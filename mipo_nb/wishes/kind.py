"""What a kind of checkable wish is."""

from collections.abc import Callable
from dataclasses import dataclass

FAMILIES = ("form", "words", "language")
NAME = "Ada"  # what the user is called in the examples of kinds


@dataclass(frozen=True)
class Kind:
    """A kind of checkable wish.

    `rule` is a function of a `response.Response` and of a number, for kinds that have one; it is asked where there is an
    answer. `family` is "form" (how it is written), "words" (what it mentions) or "language". `asks` says in a few words
    what is asked. `accepts` and `refuses` are responses to a user called `NAME` that keep and break it, with the kind's
    own number. `recital_proof`: a response that merely tells the wish back breaks it even where the wish is not
    recognized. `seen`: some of the project's training users wish it. `value` is the number where none is named, None where the kind has none.
    """

    rule: Callable
    family: str
    asks: str
    accepts: tuple
    refuses: tuple
    recital_proof: bool = False
    seen: bool = True
    value: int | None = None

    def keeps(self, response, value=None):
        """Whether a `Response` keeps it; a refusal, and a mere telling of the wish, keep nothing."""
        return bool(response.answer) and bool(self.rule(response, self.value if value is None else value))
