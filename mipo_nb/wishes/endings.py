"""How an answer begins and ends: with a question, with an exclamation."""

import re

from mipo_nb.wishes import lists
from mipo_nb.wishes.sentences import sentences, words

_OPENING, _CLOSING = "\"“«„‘'", "\"”»“’'"
# What may stand after the mark that ends a sentence: quotation marks, brackets, emphasis, an emoji.
_MARKED = re.compile(r"[\w\"'”’»)\]*_%$€°]\s*(?P<marks>[?؟!]+)(?P<after>[^\w.,;:]*)$")
_SMILEY = re.compile(r"\s*[:;=]-?[)(DPp]$")
_QUESTION = re.compile(
    r"\W*(?:(?:so|and|but|well|or|now|also|then|finally|\w+,),?\s+)*(?:what|who|whom|whose|which|why|when|where|how|do|does|"
    r"did|have|has|had|is|are|am|was|were|can|could|would|will|should|shall|may|might|don't|isn't|aren't|won't)\b",
    re.IGNORECASE,
)


def ends_with(mark):
    """The rule that the last sentence of the answer ends with a question mark or an exclamation mark."""

    def rule(response, value):
        last = _last(response.answer)
        return _ends_with(last, mark, alone=last == response.answer)

    return rule


def begins_with_question(response, value):
    """Whether the first sentence of the answer is a question."""
    first = next((s for s in sentences(lists.unmarked(response.answer)) if words(s)), "")
    return _ends_with(first, "?", alone=first.strip() == response.answer)


def _last(text):
    """The last sentence with a word and what follows it."""
    parts = sentences(text)
    while len(parts) > 1 and not words(parts[-1]):
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts[-1] if parts else ""


def _ends_with(sentence, mark, *, alone):
    """Whether a sentence has this mark at its end, and not as part of a quotation in a sentence of another sort.

    `alone`: there is no other sentence, so that quotation marks around it are an ornament.
    """
    found = _MARKED.search(_SMILEY.sub("", sentence.rstrip()))
    if not found or mark not in found["marks"].replace("؟", "?") or (mark == "!" and "?" in found["marks"]):
        return False
    if not set(found["after"]) & set(_CLOSING):
        return True
    opened = max(sentence.rfind(quote, 0, found.start("marks")) for quote in _OPENING)
    before = sentence[: max(opened, 0)].strip(" *_")
    if opened < 0 or not words(before):
        return opened >= 0 and alone
    return mark == "?" and bool(_QUESTION.match(before)) and before[-1] not in ":,"
