"""Speaking to the user: by name, and as in a letter."""

import re
from functools import lru_cache

from mipo_nb.wishes.sentences import fold, normal, words

_GREETINGS = (
    r"hello|hi|hey|dear|my dear|welcome|sure|thanks|thank you|good (?:morning|afternoon|evening|night|day|luck)|goodbye|bye|yes|no|"
    r"well|okay|ok|so|but|great|sorry|oh|ah|now|cheers|congratulations|happy birthday|hola|querid[oa]|estimad[oa]|buenos dias|"
    r"bonjour|bonsoir|salut|cher|chere|merci|gracias|hallo|liebe|lieber|guten (?:tag|morgen|abend)|danke|ciao|car[oa]|buongiorno|"
    r"grazie|ola|bom dia|prezad[oa]|obrigad[oa]|enjoy|right|alright|and you|what about you|how about you|you see|listen|look"
)
_TITLE = r"(?:(?:mr|mrs|ms|miss|dr)\.? )?"
# An apposition makes the name a subject: "Mabel, who bakes, could try".
_NO_APPOSITION = (
    r"(?!,\s+(?:who|whose|whom|which|aged|and \w+,)\b)"
    r"(?!,\s+(?:an?|the|our|this)\s[^,.!?\n]{1,60},\s+(?:is|was|has|had|can|could|should|would|might|may|will|does|did|\w+s)\b)"
)
_FORMULA = (
    r"(?:(?:with )?(?:kind|kindest|best|warm|warmest|many|friendly)\s+(?:regards|wishes|greetings)|regards|sincerely|yours|"
    r"all the best|with love|love|lots of love|warmly|cheers|take care|see you soon|until (?:soon|next time)|"
    r"with (?:best|warm|kind) (?:wishes|regards)|your friend|respectfully|best|un abrazo|saludos|cordialement|"
    r"herzliche grusse|mit freundlichen grussen|cordiali saluti|atenciosamente|abraços)"
)
_CLOSES = re.compile(rf"(?:^|[\n.!?])\s*\W*{_FORMULA}\b[^\n.!?]{{0,40}}[.!]?(?:\n[^\n]{{0,40}}){{0,2}}\s*$")


@lru_cache(maxsize=1024)
def _address(name):
    """The pattern of an address to a folded name: between edges of clauses, or after a greeting."""
    name = rf"(?<![^\W_]){_TITLE}{re.escape(name)}(?!['’]?[^\W_])"
    edge = rf"(?:^|[.!?…:;,(\[\n]|\s[–—-]+\s|—)[\W_]*|(?<!\w)(?:{_GREETINGS}),?\s+"
    greeted = r"^\W*(?:hello|hi|hey|dear|hola|bonjour|hallo|ciao|ola),?\s+"
    return re.compile(
        rf"(?:{edge}){name}{_NO_APPOSITION}[\"”»)*_\]]*\s*(?:[!?.:;,…–—]|-\s|[\u2600-\u27bf\U0001f300-\U0001faff]|\n|$)|{greeted}{name}(?!\s+(?:is|was|has)\b)"
    )


def calls_by_name(response, value):
    """Whether the answer speaks to the user by name and says something else too; a mention is no address."""
    name = fold(normal(response.name))
    text = fold(response.answer)
    if not words(name) or set(words(text)) <= set(words(name)):
        return False
    return bool(_address(name).search(text))


def is_a_letter(response, value):
    """Whether the answer opens with a salutation of the user, closes with a formula, and says something between."""
    text, name = fold(response.answer), fold(normal(response.name))
    who = re.escape(name) if words(name) else r"\w+"
    opens = re.match(
        rf"\W*(?:dear|hello|hi|hey|good \w+|querid[oa]|hola|cher|chere|bonjour|liebe|lieber|hallo|car[oa]|ciao|ola)\b[^.!?\n]{{0,30}}\b{who}\b",
        text,
    )
    closes = _CLOSES.search(text)
    return bool(opens and closes) and len(words(text[opens.end() : closes.start()])) >= 5
