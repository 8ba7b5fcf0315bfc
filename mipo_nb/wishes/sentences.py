"""A response in its parts: one form of writing, words, sentences."""

import re
import unicodedata

# Inner hyphens, points of numbers and initials, and slashes belong to a word: well-known, 3.5, U.S.A, km/h.
_WORD = re.compile(
    r"[^\W_]+(?:(?:['’‐‑/-]|(?<=\d)[.,:](?=\d)|(?<=\b[^\W\d_])\.(?=[^\W\d_]\b))[^\W_]+)*",
)
# What has other forms than the usual one; the rest is left to Unicode's compatibility form.
_CIRCLED = {chr(first + n): f"{n + 1}." for first in (0x2460, 0x2776, 0x2780, 0x278A) for n in range(10)}
_FORMS = str.maketrans({"º": "°", "\ufe0f": "", "\u200b": "", "\u2060": "", "\u20e3": ".", **_CIRCLED})
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "ı": "i", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th"})
# A point after the first never ends a sentence, after the second only before a capital.
_BEFORE_MORE = frozenset("mr mrs ms dr prof st vs e.g i.e approx fig vol z.b bzw".split())
_AT_ENDS_TOO = frozenset("jr sr etc inc dept est min mins max hr hrs".split())
_END = re.compile(r"((?<![.!?])[.!?]+[\"'”’»)\]*_]*(?=\s)|\n+)\s*")


def normal(text):
    """A text in one form: full-width and small-letter variants, ½, …, ² and no-break spaces as the usual characters."""
    text = unicodedata.normalize("NFKC", text.translate(_FORMS))
    text = re.sub(r"(?<=\w)’(?=\w)", "'", text).replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()  # the first line keeps the blanks before a list's item


def fold(text):
    """A text without case and accents, to compare names and words: Ayşe and AYSE are one."""
    letters = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def words(text):
    """Words of a text: runs of letters and digits, with apostrophes, hyphens, slashes and points inside."""
    return _WORD.findall(text)


def sentences(text):
    """The sentences of a text, each with the space after it, so that they join to the text; a line ends one too."""
    found, start = [], 0
    for match in _END.finditer(text):
        if "\n" in match[0] or _ends(match[1], text[start : match.start()], text[match.end() : match.end() + 1]):
            found.append(text[start : match.end()])
            start = match.end()
    return [sentence for sentence in [*found, text[start:]] if sentence]


def _ends(mark, before, after):
    """Whether a mark ends a sentence: not the point of a list's number, an initial or an abbreviation, nor dots, or the
    end of a quotation or bracket, that a small letter follows."""
    if after.islower() and (mark.startswith("..") or mark[-1] in "\"'”’»)"):
        return False
    last = before.split()[-1].lstrip("(\"'“‘«").lower() if before.split() else ""
    if mark[0] != "." or not last:
        return True
    if re.fullmatch(r"\W*\d{1,2}", before) or last in _BEFORE_MORE or (last == "no" and after.isdigit()):
        return False
    initials = re.fullmatch(r"[^\W\d_](?:\.[^\W\d_])+", last)
    return after.isupper() or not (initials or last in _AT_ENDS_TOO)
