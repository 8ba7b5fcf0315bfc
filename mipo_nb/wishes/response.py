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
    def said(self):
        """The answer without phrases of the wishes that say nothing; rules by words look here."""
        return recital.without_phrases(self.answer, self.wishes)

    @cached_property
    def language(self):
        """The main language of the answer, the user's name aside, as `languages.main_language` gives it; "" where the
        answer is the smaller part of the text and the whole is in another: a few words after a wish told back in English."""
        found = main_language(self._without_name(self.answer))
        most = 2 * len(words(self.answer)) >= len(words(self.whole))
        return found if most or found == main_language(self._without_name(self.whole)) else ""

    def _without_name(self, text):
        name = re.escape(normal(self.name))
        return re.sub(rf"(?<!\w){name}(?!\w)", "", text) if name else text
