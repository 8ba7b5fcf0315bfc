"""Read an answer out of a response, compare it with the right one, and say what kind of error a wrong one is.

A response may hold an answer, refuse, hold none, or claim two that conflict: four outcomes that an accuracy would blur.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from mipo_nb.evaluation import refuses

ANSWER, REFUSAL, NONE, CONFLICT = "answer", "refusal", "none", "conflict"
KINDS = ("right", "format", "no answer", "off-topic", "arithmetic slip", "wrong reasoning")


@dataclass(frozen=True)
class Reading:
    """What a response claims: `value` is a `Fraction`, a letter, or None; `marked` whether it was said to be the answer."""

    outcome: str
    value: Fraction | str | None = None
    marked: bool = False


_ONES = "zero one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: k for k, word in enumerate(_ONES + _TEENS)} | {word: 10 * k for k, word in enumerate(_TENS, 2)}
_WORDS |= {f"{ten}-{unit}": 10 * t + u for t, ten in enumerate(_TENS, 2) for u, unit in enumerate(_ONES) if u}
_WORDS |= {"hundred": 100, "dozen": 12, "none": 0, "nobody": 0, "half": Fraction(1, 2)}
_WORD = re.compile(r"\b(" + "|".join(sorted(_WORDS, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_GLYPHS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅕": "1/5", "⅛": "1/8"}

# 2 1/2, 3/4, 1,234.50, .5 and -7; not the 5 of "10-5" as a negative number, no digits inside words, no 1st or 2nd.
_NUMBER = (
    r"(?:(?<![\w)\].])-|(?<![\w./]))"
    r"(?:\d+ \d+/[1-9]\d*(?!\.?\d)|\d+/[1-9]\d*(?!\.?\d)|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?!\w*\d)(?!(?:st|nd|rd|th)\b)"
)
_MARKED_NUMBER = (  # by form, which counts first; in words
    [re.compile(rf"####[^\d\n.-]*({_NUMBER})"), re.compile(rf"\\boxed\s*\{{[^\d}}.-]*({_NUMBER})")],
    [re.compile(rf"\banswer\b[^.\n\d]{{0,60}}?(?:\bis\b|:|=|\bequals\b)[^\d\n.]{{0,40}}?({_NUMBER})", re.IGNORECASE)],
)
_LIST_ITEM = re.compile(r"^[ \t]*(?:step[ \t]*)?\d+[.):][ \t]+(?=\S)", re.IGNORECASE | re.MULTILINE)
# The form that GSM8K's solutions end in, and that the published protocol asks for: a number after four hashes.
AFTER_HASHES = re.compile(r"####[^\S\n]*[$€£]?(-?\d[\d,]*(?:\.\d+)?(?:/[1-9]\d*)?)")


def _plain(text):
    """One way of writing for what is written in many: minus signs, fractions, currency, LaTeX, list numbers."""
    text = text.replace("−", "-").replace("–", "-").replace("\\$", "").replace("{,}", ",").replace("\\,", "")
    text = re.sub(r"<<[^>\n]*>>", "", text)  # GSM8K's notes to a calculator
    text = re.sub(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2", text)
    text = re.sub(r"\\(?:text|mathrm)\s*\{([^}]*)\}", r"\1", text)
    text = re.sub(r"(\d?)\s?([½¼¾⅓⅔⅕⅛])", lambda m: f"{m[1]} {_GLYPHS[m[2]]}".strip(), text)
    text = re.sub(r"(?<=\d)\s*\*\s*(?=[\d.$])|(?<=\w)[ \t]+\*[ \t]+(?=[\d.$])", " × ", text)
    text = text.replace("\\times", "×").replace("\\div", "÷")
    return _LIST_ITEM.sub("", re.sub(r"[$€£*_`]", "", text))


def number(text):
    """The number that `text` is, as a `Fraction`: "1,234.5", "-3", "3/4", "2 1/2"."""
    text = text.replace(",", "").replace(" /", "/").replace("/ ", "/")
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * sum(Fraction(part) for part in text.split())


def after_hashes(response):
    """The first number of a response that stands after `####`, as a `Fraction`, or None."""
    match = AFTER_HASHES.search(response)
    return number(match[1].rstrip(",")) if match else None


def read_number(response):
    """The number a response claims, as a `Reading`.

    What is marked as the answer counts: after `####` or in a box, else after "the answer is". Two numbers marked alike
    that differ are a conflict. Without any, it is the last number, in digits or else as a word; list numbers and ordinals are none.
    """
    text = _plain(response)
    formal, in_words = ({number(digits) for p in forms for digits in p.findall(text)} for forms in _MARKED_NUMBER)
    if marked := formal or in_words:
        return Reading(ANSWER, *marked, marked=True) if len(marked) == 1 else Reading(CONFLICT, marked=True)
    if refuses(text):
        return Reading(REFUSAL)
    if numbers := re.findall(_NUMBER, text):
        return Reading(ANSWER, number(numbers[-1]))
    if words := _WORD.findall(text):
        return Reading(ANSWER, Fraction(_WORDS[words[-1].lower()]))
    return Reading(NONE)


def read_letter(response, options):
    """The option a response claims, as a `Reading`. `options` is {letter: text}; letters may also be 1 to 5.

    What is marked as the answer counts: "the answer is (B)", a box, "option B is right", a letter alone or first in the
    response. Two that differ are a conflict. Without any, the one option whose whole text occurs.
    """
    text = re.sub(r"[*_`]", "", response).strip()
    letters = "".join(options)
    upper = rf"[(\[\"']?([{letters}])[)\]\"']?(?![\w'’])(?!\s+(?!because|since|as\b|is\b|and\b|\()[a-z])"
    lower = rf"[(\[\"']?([{letters.lower()}])(?:[)\]\"':.,]|\s*$)"
    answer = r"(?i:\banswer\b[^.\n]{0,60}?(?:\bis\b|:|=)\s*(?:the )?(?:option|choice|letter)?:?)\s*"
    phrases = [
        rf"\\boxed\s*\{{\s*(?:\\text\s*\{{)?\(?([{letters}{letters.lower()}])\b",
        rf"{answer}(?:{upper}|{lower})",
        rf"####\s*(?:{upper}|{lower})",
        rf"(?i:\b(?:option|choice|letter)\s+)?{upper}\s+(?i:(?:is|would be|must be) (?:the )?(?:correct|right|best|true|answer))",
    ]
    alone = [
        rf"\A(?i:(?:option|choice)\s+)?(?:{upper}|{lower})\s*[.):]?\s*\Z",
        rf"\A(?:(?i:option|choice)\s+)?\(?([{letters}])[).:](?=\s|\Z)",
        rf"(?m:^(?i:(?:option|choice)\s+)?\(?([{letters}])\)?\s*[.:]?\s*$)",
    ]
    if marked := _letters(phrases, text) or _letters(alone, text):
        return Reading(ANSWER, *marked, marked=True) if len(marked) == 1 else Reading(CONFLICT, marked=True)
    if refuses(text):
        return Reading(REFUSAL)
    plain = {letter: re.sub(r"[*_`]", "", option).strip() for letter, option in options.items()}
    for says in (_says_exactly, _says):
        named = [letter for letter, option in plain.items() if says(text, option)]
        # Of options that contain one another ("cell", "cell wall") the longest that is said counts.
        if longest := [a for a in named if not any(a != b and says(plain[b], plain[a]) for b in named)]:
            return Reading(ANSWER, *longest) if len(longest) == 1 else Reading(CONFLICT)
    return Reading(NONE)


def _letters(patterns, text):
    matches = (match for pattern in patterns for match in re.finditer(pattern, text))
    return {letter.upper() for match in matches for letter in match.groups() if letter}


def _says_exactly(text, option):
    return bool(option) and bool(re.search(rf"(?<![\w+-]){re.escape(option)}(?!\w)", text))


def _says(text, option):
    words = r"\W+".join(map(re.escape, re.findall(r"\w+", option.lower())))
    return bool(words and re.search(rf"(?<!\w){words}(?!\w)", text.lower()))


def same(value, gold):
    """Whether a value that was read is the right one; numbers may differ by rounding to the cent."""
    if isinstance(value, Fraction) and isinstance(gold, Fraction):
        return abs(value - gold) < Fraction(1, 100) and (value == gold or gold.denominator > 1)
    return value is not None and value == gold


# --- what kind of error ---

_OPERATIONS = {"*": "*", "x": "*", "×": "*", "÷": "/", "times": "*", "plus": "+", "minus": "-", "divided by": "/"}
_OPERATOR = r"(?:[-+/×÷]|\b(?:x|times|plus|minus|divided by)\b)"
_UNIT = r"(?:\s+(?!(?:x|times|plus|minus|divided|and|is|are|equals)\b)[A-Za-z]+){0,3}"
_TERM = r"(?:(?<![\w)\].])-|(?<![\w.]))(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?!\w*\d)"  # a fraction is a division
_EQUATION = re.compile(
    rf"(?<![\d)%.+×÷/,])(?<!\d )(?P<left>{_TERM}{_UNIT}(?:\s*{_OPERATOR}\s*{_TERM}{_UNIT})+)\s*(?:=|\bequals\b|\bis\b)\s*"
    rf"(?P<right>{_TERM})(?!\s?[%+×÷/])"
)
_TOKEN = re.compile(rf"(?P<operator>(?<=[\w\s]){_OPERATOR}(?=[\s\d.]))|(?P<number>{_TERM})")


def equations(response):
    """[(text, whether it holds)] of the arithmetic in a response: "3 x 4 = 12", "5 apples + 2 apples is 7".

    A result may be rounded to the digits it is given with. What has brackets or per cents is left alone.
    """
    results = []
    for match in _EQUATION.finditer(_plain(response)):
        terms, signs = [], []
        for token in _TOKEN.finditer(match["left"]):
            if token["number"] and len(terms) == len(signs):
                terms.append(number(token["number"]))
            elif token["operator"]:
                signs.append(_OPERATIONS.get(token["operator"], token["operator"]))
        value, right = _evaluated(terms, signs), number(match["right"])
        if value is not None:
            digits = len(match["right"].partition(".")[2])
            rounded = value.denominator > 1 and abs(value - right) < Fraction(1, 2 * 10**digits)
            results.append((" ".join(match[0].split()), value == right or rounded))
    return results


def _evaluated(terms, signs):
    """The value of terms with operations between them, products first; None for a division by zero or a lost term."""
    pairs = list(zip(signs, terms[1:], strict=False))
    if len(terms) != len(signs) + 1 or ("/", 0) in pairs:
        return None
    sums = [terms[0]]
    for sign, term in pairs:
        if sign in "*/":
            sums[-1] = sums[-1] * term if sign == "*" else sums[-1] / term
        else:
            sums.append(term if sign == "+" else -term)
    return sum(sums)


_COMMON = set(
    "about after again also been before both does each from have more much must need only over some than that their them "
    "then there these they this those total what when where which while will with would your answer many left find how the "
    "and are was were for has had his her its she who you not but all can did one two".split()
)


def error_kind(question, response, reading, gold):
    """One of `KINDS` for a response: right, or the first of these that fits.

    "no answer": none, a refusal, or two. "format": the right number is in the response, but not where an answer is read.
    "off-topic": hardly a word of the question. "arithmetic slip": an equation does not hold. "wrong reasoning": else.
    """
    if reading.outcome == ANSWER and same(reading.value, gold):
        return "right"
    if not response.strip():
        return "no answer"
    shared = len(_content(question) & _content(response))
    if shared < 2 and shared < 0.2 * len(_content(question)):
        return "off-topic"
    if reading.outcome != ANSWER:
        return "no answer"
    last_numbers = map(number, re.findall(_NUMBER, _plain(response))[-3:])
    if not reading.marked and gold in last_numbers:
        return "format"
    return "wrong reasoning" if all(holds for _, holds in equations(response)) else "arithmetic slip"


def _content(text):
    """The numbers and the words of some weight in a text."""
    words = {w[:5] for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in _COMMON}
    return words | {str(number(digits)) for digits in re.findall(_NUMBER, _plain(text))}
