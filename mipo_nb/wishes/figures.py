"""Wishes for figures: measures, amounts of money, durations, numbers."""

import re

from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.lists import unmarked
from mipo_nb.wishes.phrases import any_of, says

_ONE = (
    r"(?:\d+(?:[.,\d]*\d)?(?:\s?[⁄/]\s?\d+)?|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|"
    r"fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?(?: of)?|"
    r"thousands?(?: of)?|millions?(?: of)?|dozens?(?: of)?|few|several|couple(?: of)?|half(?: of)?|quarters?(?: of)?|thirds? of)"
)
# "two and a half", "a couple of", "20-30", "five to ten", "three quarters of an", "a hundred and fifty"
NUMBER = rf"(?<![\w.,/]){_ONE}(?:(?:\s?[-–]\s?|\s+(?:to|or|and)\s+|[\s-]+){_ONE}){{0,4}}(?![\w%])"


# --- metric units ---

_SIZE = r"(?:milli|centi|deci|kilo|hecto)?"
_AREA = r"(?:square |cubic |metric )?"
_METRIC = any_of(
    r"(?<![\w.,])\d[\d.,]*\s?-?(?:mm|cm|dm|km|mg|[µμ]g|mcg|kg|ml|cl|dl|hl|kph|kmh|km/h|m/s|kpa|hpa|cc|ha)(?:[23²³]|\^[23])?(?![\w/]|\s?/h)",
    r"(?<![\w.,])\d[\d.,]*\s?(?:km/h|m/s|g/l|mg/l|m\^?[23])(?!\w)",
    r"\d\s?°\s?c\b|\d\s+(?:degrees?\s+)?(?:celsius|centigrade)\b|\d\s+degrees?\s+c\b|(?-i:(?<![\w.])\d{2,}\s?C\b)",
    rf"{NUMBER}[\s-]+{_AREA}{_SIZE}(?:met(?:re|er)|lit(?:re|er)|gram(?:me)?)s?\b(?!\s+(?:reader|maid))",
    rf"{NUMBER}[\s-]+{_AREA}(?:kilos?|tonnes?|tons|hectares?|kelvin)\b",
    # One letter is a unit where a thing or a dimension follows, not in "5 m people" or "20 m reading".
    r"(?<![\w.,$])\d[\d.,]*\s?-?(?-i:[mglL])(?=\s*[.,;:)x×]|\s*$|\s*\n|\s+(?:of|and|or|to|by|x|long|wide|high|tall|deep|away|apart|above|below|"
    r"from|per|in (?:length|height|width|depth|diameter)|tape|rope|cable|hose|sprint|dash|pool|butter|sugar|flour|salt|water|milk|"
    r"oil|rice|protein|fibre|fiber|fat|carbs|bottle|pot|tank)\b)|(?<![\w.,$])\d[\d.,]*\s?(?-i:[lL])(?=\s+[^\W\d_])",
)
# Not measures: mobile networks, and minutes where one speaks of spending them.
_NOT_METRIC = any_of(
    r"\b[2-6]g\b(?=\s+(?:network|phone|signal|connection|mobile|coverage|data|internet|tower|device))",
    r"\b(?:spend|wait|rest|takes?|for|every)\s+(?:about\s+)?\d+\s?m\b(?!\s+(?:of|long|wide|high|tall|deep|away|apart))",
    r"[£€$]\s?\d[\d.,]*\s?m\b",
)
# Imperial units count where they follow a number: feet, yards and cups are other things too.
_IMPERIAL = any_of(
    rf"{NUMBER}[\s-]*{_AREA}(?:inch(?:es)?|feet|ft|miles?|ounces?|lbs?|oz|fl\.? ?oz|gallons?|gal|pints?|quarts?|qt|mph|acres?|"
    r"tablespoon(?:ful)?s?|tbsps?|tbs|teaspoon(?:ful)?s?|tsps?)\b(?!\s+of\s+(?:prevention|truth|courage|sense|luck|effort))",
    r"\d(?:ft|in|mph|lbs?|oz|mi|yd|tbsp|tsp|gal|qt|pt)\b|\d\s?in\.?(?=\s+(?:wide|long|tall|deep|high|thick|across|by)\b)",
    rf"{NUMBER}[\s-]+(?:yards?|cups?|foot)\b(?=\s+(?:of|long|wide|high|tall|deep|away|apart|from|fence|ladder|board|plank|rope)\b|[.,;)]|\s*$)"
    r"(?!\s+of\s+(?:\w+\s+)?(?:tea|coffee|cocoa|chocolate|chai|espresso|latte|matcha|joe)\b)",
    r"\d[\d⁄/]*[\s-](?:yards?|cups?|foot)\b(?!\s+of\s+(?:\w+\s+)?(?:tea|coffee|cocoa|chocolate|chai|espresso|latte|matcha|joe)\b)",
    rf"{NUMBER}[\s-]+pounds?\b(?!\s+(?:sterling|note|coin|each|(?:an?|per) (?:day|week|month|hour|year|ticket|person)))",
    r"\d+\s+stone\b(?=[.,;)]|\s*$|\s+(?:and|in weight|heavier|lighter|\d))",
    r"\bfahrenheit\b|\d\s?°\s?f\b|\d\s+degrees?\s+f\b|(?-i:(?<![\w.])\d{2,}\s?F\b)",
    r"(?<![\w'])\d+'(?=\s?\d|\s+[a-z]|[.,;)]|\s*$)",
)
_MONEY = any_of(
    r"\b(?:costs?|pays?|paid|prices?|spend|spent|worth|saves?|charges?|for)\s+(?:(?:only|about|around|just|over|under|roughly)\s+){0,2}"
    rf"{NUMBER}[\s-]+pounds?\b(?!\s+of\b)"
)
_INCH_MARK = re.compile(r"(?<=\d)\s?[\"″]|(?<=\d)\s?''")


def _in_inches(text):
    """Whether a mark of inches stands in a line: one that closes no quotation."""
    for line in text.split("\n"):
        for match in _INCH_MARK.finditer(line):
            if line[: match.start()].count('"') % 2 == 0:
                return True
    return False


def _metric_units(response, value):
    text = response.answer
    if _IMPERIAL.search(_MONEY.sub(" ", text)) or _in_inches(text) or "′" in text or "″" in text:
        return False
    return bool(_METRIC.search(_NOT_METRIC.sub(" ", text)))


# --- costs ---

_COST = any_of(
    r"(?<![\w$])(?:US|USD|CA|AU|NZ)?\s?\$\s?\.?\d(?![^$\n]{0,30}[=+\\^][^$\n]{0,30}\$)|(?<![\w.,$])\d[\d.,]*\s?\$(?!\w)",
    r"\busd\s?\d|\d\s?usd\b",
    rf"{NUMBER}[\s-]+(?:(?:us|american|canadian|australian|singapore)\s+)?(?:dollars?|bucks?)\b(?!\s+(?:figure|amount|price|value|cost|sign|bill|range|term)s?\b)",
    rf"{NUMBER}[\s-]+(?:k\s+)?cents?\b|\d\s?¢",
    r"\d\s?k\s+dollars\b",
)
# Sayings, and things that are called by dollars.
_NO_COST = any_of(
    r"\b(?:like|as)\s+an?\s+(?:million|billion)\s+(?:dollars|bucks)\b|\bmillion[\s-]dollar\b|\b(?:sand|silver|bottom|top)\s+dollars?\b",
    r"\bdollar\s+(?:store|shop|tree|general|sign|bill)s?\b|\banother\s+dollar\b|\b(?:my|your|his|her)\s+(?:two|2)\s+cents\b",
    r"\bfeel(?:s|ing)?\s+like\s+\$\s?\d[\d.,]*\s?(?:million|m)?\b|\b(?:one|a)\s+cent\s+(?:coin|piece)\b",
)

# --- durations ---

_ADJECTIVES = (
    r"(?:(?:short|good|full|whole|more|extra|additional|solid|quick|brief|long|quiet|spare|free|single|nice|peaceful|relaxing|"
    r"precious|uninterrupted|focused|hard|gentle|calm|easy|slow|entire|other|leisurely|lovely)[\s-]+)"
)
_DURATION = any_of(
    rf"{NUMBER}[\s-]+{_ADJECTIVES}{{0,2}}(?:of\s+)?(?:minute|hour|min|hr)s?\b",
    r"(?<![\w.,:])\d[\d.,]*\s?-?(?:min|mins|minutes?|hours?|h|hrs?)\b(?:\s?\d{1,2}\b)?",
    r"\b(?:under|over|within|nearly|almost|less than|more than|about)\s+(?:an|the)\s+hour\b",
)
# Sayings, rates, times of opening, and points in time.
_NO_DURATION = any_of(
    r"\b(?:wait|just|hold on|hang on|give (?:me|it)|one)[\s,]+(?:a|one)\s+minute\b(?=\s*(?:[,!.;:?…]|$|that|this|i\b|what))",
    r"\ba\s+minute\s+(?:amount|detail|difference|quantity|fraction|change|particle|trace|piece)s?\b",
    r"\b(?:open|closed|available|service|staffed|reception|works?|runs?|news)\b[^.!?\n]{0,25}\b(?:24|twenty[\s-]four)\s?[\s-]?hours?\b",
    r"\b(?:24|twenty[\s-]four)\s?[\s-]?hours?(?:\s+a\s+day|[\s-]+(?:service|store|shop|hotline|gym|news|clock|diner|pharmacy|reception))",
    r"\b(?:miles?|km|kilomet(?:er|re)s?|knots|times|twice|once|dollars|bucks|euros|pounds|cents|mph|litres|liters)\s+an?\s+(?:hour|minute)\b",
    r"(?:[$€£]\s?\d[\d.,]*|\d\s?[$€£])\s+an?\s+(?:hour|minute)\b",
    rf"{NUMBER}[\s-]+(?:minute|hour)s?\s+(?:ago|earlier)\b",
    r"\b(?:a|the|an)\s+(?:rush|happy|last|zero|office|opening|visiting|business|lunch|golden|peak|witching|eleventh|early|small)[\s-]+(?:hour|minute)s?\b",
    r"\bone\s+minute\b(?=[^.!?\n]{0,40}\bthe next\b)|\bone[\s-]hour\s+photo\b|\b60\s+minutes\b(?=\s+(?:on tv|episode))",
    r"\bnot\s+(?:a|one)\s+minute\s+(?:too|later|sooner)\b|\bby\s+the\s+(?:hour|minute)\b|\bminutes\s+of\s+the\b",
)


def _a_number(response, value):
    return bool(re.search(r"\d", unmarked(response.answer)))


KINDS = {
    "metric_units": Kind(
        _metric_units,
        "words",
        "a figure in metric units, none in imperial ones",
        ("Walk 3 km along the river.", "Walk a hundred metres.", "Bake it at 180 °C.", "10 m of rope"),
        (
            "Walk three miles.",
            "Add 200 ml of milk and 2 cups of flour.",
            "There were 5 m people.",
            "Bake it at 180 °C (350 °F).",
        ),
        recital_proof=True,
    ),
    "mentions_cost": Kind(
        says(_COST, _NO_COST),
        "words",
        "a cost in dollars",
        ("A used bike costs about $120.", "A ticket is 20 dollars.", "It costs five bucks."),
        ("A used bike is cheap.", "It costs 20 euros.", "You will feel like a million dollars."),
        recital_proof=True,
    ),
    "mentions_time": Kind(
        says(_DURATION, _NO_DURATION),
        "words",
        "a duration in minutes or hours",
        ("Boil the eggs for 8 minutes.", "It takes two and a half hours.", "Take half an hour for yourself."),
        ("Wait a minute, that is odd.", "We are open 24 hours.", "Enjoy every minute of it."),
        recital_proof=True,
    ),
    "mentions_a_number": Kind(
        _a_number,
        "words",
        "a number in digits",
        ("Walk 3 km.", "1. Take 2 eggs.\n2. Boil them."),
        ("Walk three kilometres.", "1. Boil the rice.\n2. Fry the onions."),
        recital_proof=False,
    ),
}
