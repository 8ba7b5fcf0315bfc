"""Preferences that a rule can check, so that personalization is measured without a judge.

Each kind is one function of the response (and of the user's name or a number). Rules look at form or at words, never
at quality: a response can keep a preference and still be bad, which is why text health is measured beside it.
"""

import re
from dataclasses import dataclass
from typing import Callable

_SPANISH = frozenset("el la los las de que y en un una por para con es tu su se no te lo más puedes como si o del al".split())
_FRENCH = frozenset("le la les de des et en un une pour avec est vous votre que ne pas dans du au tu sur ou il ce à".split())
_ENGLISH = frozenset("the a an of and to in is you your for it with that on can this be are as or have at".split())

_METRIC = re.compile(
    r"\d[\d.,]*\s?-?(?:°\s?c|(?:mm|cm|m|km|g|kg|ml|cl|l|kph)\b|km/h)"
    r"|\b(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|half a|a|few|several)[\s-]+"
    r"(?:milli|centi|kilo)?(?:met(?:re|er)|lit(?:re|er)|gram(?:me)?|kilo|kilogram)s?\b"
    r"|\b(?:\d[\d.,]*)\s+degrees? (?:celsius|centigrade)",
    re.IGNORECASE,
)
_IMPERIAL = re.compile(
    r"\b(?:inch(?:es)?|feet|foot|yards?|miles?|ounces?|pounds?|lbs?|oz|gallons?|fahrenheit|cups?|tablespoons?)\b"
    r"|°\s?f\b|\bmph\b",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"\b(?:\d+(?:[.,]\d+)?(?:\s?(?:-|–|to)\s?\d+)?|an?|half an|one|two|three|four|five|six|eight|ten|fifteen|twenty|thirty|"
    r"few|several)[\s-]+(?:minute|hour|min|hr)s?\b",
    re.IGNORECASE,
)


def words(text):
    """Words of a text: runs of letters, digits and inner apostrophes."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text)


def _contains(pattern):
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda response, preference, name: bool(compiled.search(response))


def _in_language(own):
    """More than a fifth of the words are function words of the language, and more of them than English ones."""

    def rule(response, preference, name):
        found = [w.lower() for w in words(response)]
        here = sum(w in own for w in found)
        return len(found) >= 3 and here >= 0.2 * len(found) and here > 2 * sum(w in _ENGLISH for w in found)

    return rule


def _lines_starting(pattern):
    compiled = re.compile(r"(?m)^\s*" + pattern)
    return lambda response, preference, name: len(compiled.findall(response)) >= 2


def _at_most_words(response, preference, name):
    return 0 < len(words(response)) <= preference["value"]


def _ends_with_question(response, preference, name):
    return response.rstrip(" \n\t\"'”’)*").endswith("?")


def _calls_by_name(response, preference, name):
    return bool(re.search(rf"\b{re.escape(name)}\b", response, re.IGNORECASE))


def _metric_units(response, preference, name):
    return bool(_METRIC.search(response)) and not _IMPERIAL.search(response)


def _first_then_finally(response, preference, name):
    text = response.lower()
    at = [re.search(rf"\b{w}\b", text) for w in ("first(?:ly)?", "then", "finally")]
    return all(at) and at[0].start() < at[1].start() < at[2].start()


@dataclass(frozen=True)
class Kind:
    """A kind of checkable preference: its rule, what it asks, and whether it occurs among training users."""

    rule: Callable
    asks: str
    seen: bool = True


KINDS = {
    "at_most_words": Kind(_at_most_words, "at most N words"),
    "numbered_list": Kind(_lines_starting(r"\d+[.)]\s"), "a numbered list"),
    "dash_list": Kind(_lines_starting(r"[-–—]\s"), "bullet points that start with a dash"),
    "ends_with_question": Kind(_ends_with_question, "the answer ends with a question"),
    "calls_by_name": Kind(_calls_by_name, "the user is called by name"),
    "metric_units": Kind(_metric_units, "a figure in metric units, none in imperial ones"),
    "no_exclamation": Kind(lambda r, p, n: "!" not in r and bool(words(r)), "no exclamation mark"),
    "mentions_cost": Kind(_contains(r"\$\s?\d|\d\s?(?:us )?dollars?\b|\bdollars\b"), "a cost in dollars"),
    "starts_with_hello": Kind(lambda r, p, n: bool(re.match(r"\W*hello\b", r, re.IGNORECASE)), "the first word is Hello"),
    "in_spanish": Kind(_in_language(_SPANISH), "the answer is in Spanish"),
    "for_example": Kind(_contains(r"\bfor example\b"), "the words 'for example'"),
    "mentions_science": Kind(
        _contains(r"\b(?:scien\w+|research\w*|stud(?:y|ies) (?:have|has|show|suggest|found)\w*|studies|experiments?)\b"),
        "science or research is mentioned",
    ),
    "mentions_time": Kind(_contains(_DURATION.pattern), "a duration in minutes or hours", seen=False),
    "mentions_safety": Kind(
        _contains(r"\b(?:safe(?:ty|ly|r)?|danger(?:s|ous)?|hazard\w*|careful(?:ly)?|caution\w*|risk(?:s|y)?|injur\w+)\b"),
        "safety or danger is mentioned",
        seen=False,
    ),
    "in_french": Kind(_in_language(_FRENCH), "the answer is in French", seen=False),
    "first_then_finally": Kind(_first_then_finally, "first, then, finally, in this order", seen=False),
}


def keeps(response, preference, name=""):
    """Whether a response keeps one checkable preference.

    `preference` is a mapping with `kind` (a key of `KINDS`) and `value` (the number of words for `at_most_words`);
    `name` is what the user is called. Raises `KeyError` for an unknown kind.
    """
    return KINDS[preference["kind"]].rule(response, preference, name or "")


def checkable(preferences):
    """The preferences of a user that a rule can check."""
    return [p for p in preferences or () if p.get("kind")]
