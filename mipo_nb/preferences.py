"""Preferences that a rule can check, so that personalization is measured without a judge.

Each kind is one function of the response (and of the user's name or a number). Rules look at form or at words, never
at quality: a response can keep a preference and still be bad, which is why text health is measured beside it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# Function words of one language only, and those that Spanish and French share.
_SPANISH = """el los las y una por para con su lo más pero como del al muy hay está son puedes puede esto eso donde
cuando sin sobre también tus sus mi me ser algo cada""".split()
_FRENCH = """le les des et une pour avec est vous votre vos ne pas dans du au aux ou il ce cette ça avez pouvez peut qui
sur sont c d l j n s qu ton ta tes mais plus puis prends peux elle""".split()
_BOTH = "la de que en un tu te se es si a à no y".split()
_ENGLISH = "the an of and to in is you your for it with that on can this be are as or have at will from if".split()

_NUMBER = (
    r"(?:\d[\d.,]*|half an?|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|"
    r"forty|forty-five|fifty|sixty|ninety|few|several|couple of)"
)
_METRIC = re.compile(
    r"\d[\d.,]*\s?-?(?:°\s?c\b|(?:mm|cm|m|km|mg|g|kg|ml|cl|dl|l|kph)\b|km/h)"
    rf"|\b{_NUMBER}[\s-]+(?:square |cubic )?(?:milli|centi|deci|kilo)?(?:met(?:re|er)|lit(?:re|er)|gram(?:me)?|kilo)s?\b"
    r"|\d\s+degrees? (?:celsius|centigrade|c)\b",
    re.IGNORECASE,
)
_NOT_METRIC = re.compile(r"\b[345]g\b", re.IGNORECASE)  # mobile networks
# Imperial units count where they follow a number: feet, yards and cups are other things too.
_IMPERIAL = re.compile(
    rf"\b{_NUMBER}[\s-]*(?:inch(?:es)?|feet|foot|ft|yards?|miles?|ounces?|pounds?|lbs?|oz|gallons?|pints?|tablespoons?|"
    r"mph)\b|\bfahrenheit\b|\d\s?°?\s?f\b",
    re.IGNORECASE,
)
_DURATION = (
    rf"\b{_NUMBER}(?:\s?(?:-|–|to|or)\s?{_NUMBER})?[\s-]+(?:of )?(?:minute|hour|min|hr)s?\b"
    r"|\d\s?(?:min|mins|h|hrs?)\b|\bhalf[\s-](?:an )?hour\b"
)
_SCIENCE = (
    r"\b(?:scien\w+|researchers?|(?:the |some |recent |new |to |in |that )research"
    r"|research (?:shows?|suggests?|has|found|finds)|studies|experiments"
    r"|(?:a|one|recent|the|this) study (?:\w+ ){0,4}(?:found|shows?|showed|suggests?)"
    r"|stud(?:y|ies) (?:have|has|shows?|suggests?|found|finds?))\b"
)
_SAFETY = (
    r"\b(?:(?:un)?saf(?:e|ety|ely|er|est)|danger(?:s|ous|ously)?|hazard\w*|careful(?:ly)?|cautio(?:n|us|usly)\w*"
    r"|risk(?:s|y)?|injur\w+)\b"
)


def words(text):
    """Words of a text: runs of letters, digits and inner apostrophes."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text)


def _contains(pattern, times=1):
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda response, preference, name: len(compiled.findall(response)) >= times


def _in_language(function_words, other_words):
    """A fifth of the words are function words of the language, and more are of this language than of the other."""
    vocabularies = [frozenset(v) for v in (function_words, other_words, _ENGLISH, _BOTH)]

    def rule(response, preference, name):
        tokens = [token.lower() for token in re.findall(r"[^\W\d_]+", response)]
        this, other, english, both = (sum(t in vocabulary for t in tokens) for vocabulary in vocabularies)
        return len(tokens) >= 3 and this + both >= 0.2 * len(tokens) and this > other and this + both > 2 * english

    return rule


def _calls_by_name(response, preference, name):
    return bool(name) and bool(re.search(rf"\b{re.escape(name)}\b", response, re.IGNORECASE))


def _metric_units(response, preference, name):
    return bool(_METRIC.search(_NOT_METRIC.sub("", response))) and not _IMPERIAL.search(response)


@dataclass(frozen=True)
class Kind:
    """A kind of checkable preference: its rule, what it asks, and whether it occurs among training users."""

    rule: Callable
    asks: str
    seen: bool = True


KINDS = {
    "at_most_words": Kind(lambda r, p, n: 0 < len(words(r)) <= p["value"], "at most N words"),
    "numbered_list": Kind(_contains(r"(?m)^\s*\**\d+[.)]\**\s", times=2), "a numbered list"),
    "dash_list": Kind(_contains(r"(?m)^\s*[-–—]\s", times=2), "bullet points that start with a dash"),
    # Quotation marks, brackets, emphasis and an emoji may follow the question mark.
    "ends_with_question": Kind(_contains(r"\?[^\w.!,;:]*$"), "the answer ends with a question"),
    "calls_by_name": Kind(_calls_by_name, "the user is called by name"),
    "metric_units": Kind(_metric_units, "a figure in metric units, none in imperial ones"),
    "no_exclamation": Kind(lambda r, p, n: "!" not in r and bool(words(r)), "no exclamation mark"),
    "mentions_cost": Kind(_contains(r"\$\s?\d|\bdollars?\b|\d\s?USD\b"), "a cost in dollars"),
    "starts_with_hello": Kind(_contains(r"^\W*hello\b"), "the first word is Hello"),
    "in_spanish": Kind(_in_language(_SPANISH, _FRENCH), "the answer is in Spanish"),
    "for_example": Kind(_contains(r"\bfor example\b"), "the words 'for example'"),
    "mentions_science": Kind(_contains(_SCIENCE), "science or research is mentioned"),
    "mentions_time": Kind(_contains(_DURATION), "a duration in minutes or hours", seen=False),
    "mentions_safety": Kind(_contains(_SAFETY), "safety or danger is mentioned", seen=False),
    "in_french": Kind(_in_language(_FRENCH, _SPANISH), "the answer is in French", seen=False),
    "first_then_finally": Kind(
        _contains(r"(?s)\bfirst(?:ly)?\b.*\bthen\b.*\bfinally\b"), "first, then, finally, in this order", seen=False
    ),
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
