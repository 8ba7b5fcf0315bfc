"""A response to one user, read once for all rules."""

import re
from dataclasses import dataclass
from functools import cached_property

from mipo_nb.wishes import recital
from mipo_nb.wishes.languages import main_language
from mipo_nb.wishes.refusals import refuses
from mipo_nb.wishes.sentences import normal, words


@dataclass(frozen=True)
class Response:
    """`text` is what the model wrote, `name` what the user is called, `wishes` texts of the user's wishes."""

    text: str
    name: str = ""
    wishes: tuple = ()

    @cached_property
    def whole(self):
        """The text in one form of writing."""
        return normal(self.text)

    @cached_property
    def answer(self):
        """The text without sentences that tell a wish back; "" for a refusal and where nothing else is left."""
        left = recital.answer(self.whole, self.wishes, normal(self.name))
        return left if words(left) and not refuses(self.text) else ""

    @cached_property
    def language(self):
        """The main language of the answer, the user's name aside, as `languages.main_language` gives it."""
        name = re.escape(normal(self.name))
        return main_language(re.sub(rf"(?<!\w){name}(?!\w)", "", self.answer) if name else self.answer)
