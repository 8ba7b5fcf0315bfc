"""Lists in a response: their items, what marks each, and whether one list holds another."""

import re
from dataclasses import dataclass

DASHES = "-–—−‐‑‒―⁃"
_OTHER_MARKS = "*+•·◦▪▫●○■□►▸▶‣∙★☆✦✧✓✔☑✅➤➔→»◆◇❖"
_EMOJI = "\u2600-\u27bf\U0001f300-\U0001faff"
_BEFORE = r"(?P<indent>[ \t]*)(?:>[ \t]*)*(?:#{1,6}[ \t]+)?(?:\*\*|__)?"
_LABEL = r"(?:(?:step|tip|idea|item|point|option|number|no\.?|reason|way|rule)\s+|#)?"
# 1. 1) 1: 1 - (1) [1] "Step 1:" and "1\."; a figure such as 1.5 or 10:30 follows at once.
_NUMBER = rf"{_LABEL}[(\[]?(?P<number>\d{{1,2}})(?:\\?[.)\]:/]{{1,2}}(?!\d)|\*\*[.):]|[ \t]+[{DASHES}](?=[ \t]+\D))"
_LINE = re.compile(
    rf"^{_BEFORE}(?:{_NUMBER}|(?P<mark>[{DASHES}]{{1,2}}(?=[ \t]|[^\W\d]|\*\*|\")|[{_OTHER_MARKS}](?=[ \t])|[{_EMOJI}](?=[ \t]?)))(?P<text>.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_AFTER_MARK = re.compile(rf"\s*(?:\*\*|__)?{_NUMBER}", re.IGNORECASE)
_INLINE = re.compile(rf"(?:^|(?<=[\s(\[]))(?:{_NUMBER})(?=\s*[^\W\d])", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One item: the width of the blanks before it, its mark ("" where numbered), its number, its text."""

    indent: int
    mark: str
    number: int | None
    text: str


def items(text):
    """The items of the lists of a text, each with the lines under it, that hold a word."""
    matches = list(_LINE.finditer(text))
    found = []
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        end = following.start() if following else len(text)
        counted = match if match["number"] else _AFTER_MARK.match(match["text"])
        number = int(counted["number"]) if counted else None
        said = match["text"] + text[match.end() : end]
        if re.search(r"[^\W\d_]" if number is not None else r"[^\W_]", said):
            found.append(Item(len(match["indent"].expandtabs()), match["mark"] or "", number, said))
    return found


def outer_items(text):
    """The items that are inside no other: those as far to the left as any."""
    found = items(text)
    left = min((item.indent for item in found), default=0)
    return [item for item in found if item.indent == left]


def bulleted(text, marks=None):
    """Whether a text has a list of two or more items with a mark, one of `marks` if given."""
    found = outer_items(text)
    marked = [item for item in found if item.mark and (marks is None or item.mark[0] in marks)]
    return len(marked) >= 2 and 2 * len(marked) > len(found)


def numbered(text):
    """Whether a text has two or more items numbered one after the other, on lines or in running text."""
    numbers = [item.number for item in outer_items(text) if item.number is not None]
    return any(b == a + 1 for a, b in zip(numbers, numbers[1:], strict=False)) or _numbered_inline(text)


def _numbered_inline(text):
    """Whether 1, 2 and so on stand in running text: "(1)" and "1)" anywhere, "1." after an edge or before a capital."""
    due = 1
    for match in _INLINE.finditer(text):
        begins = text[: match.start()].rstrip()[-1:] in ("", *".:;,!?")
        goes_on = due > 1 and text[match.end() :].lstrip()[:1].isupper()
        if int(match["number"]) == due and (match[0].endswith(")") or begins or goes_on):
            due += 1
    return due > 2


def unmarked(text):
    """A text without the marks of its lists."""
    return _LINE.sub(lambda match: f"{match['indent']}{match['text']}", text)
