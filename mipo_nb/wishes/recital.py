"""Telling a wish back is no answer: the sentences and phrases of a response that do so, and what is left without them.

A sentence tells a wish back when the user wishes in it ("Ana wants to hear the science behind things", "she asked for a
price"), or when three of its words in a row, those of grammar aside, are the wish's. "You need 200 ml of milk" and "I
would like to suggest a walk" are advice: where the subject is you, I or they, the sentence must speak of answers, or
say little that the wish does not say.
"""

import re
from functools import lru_cache

from mipo_nb.wishes.grammar import FUNCTION_WORDS, THE_USER, WISHES
from mipo_nb.wishes.sentences import fold, normal, sentences, words

_WOULD = r"(?:would|'d) (?:\w+ )?(?:like|love|prefer|rather|enjoy|appreciate|want|value)"
_TO_WISH = "want|like|prefer|need|ask|wish|hope|expect|request|enjoy|love|desire|seek|demand|require|appreciate|value"
# What somebody is who wishes, and what somebody has.
_IS = (
    r"(?:is|are|was|were|am|be|seems|'s|'re|'m) (?:\w+ )?(?:interested in|looking for|searching for|seeking|asking|hoping|"
    r"requesting|wanting|fond of|keen (?:on|to)|eager|curious|drawn to|in need of|partial to|happiest|glad of|pleased by)"
)
_HAS = (
    r"(?:has|have|had|'s|'ve) (?:\w+ )?(?:asked|requested|wanted|wished|expressed|preferred|"
    r"an? (?:\w+ )?(?:wish|preference|interest|fondness|liking|need))"
)
_NOT = rf"(?:does|did|do)(?: not|n't) (?:{_TO_WISH}|care)"
_ADVICE = r"(?! to (?!know|hear|see|be (?:told|called|addressed|answered|warned)))"  # "she needs to find a date"
# "She wishes", in all its forms; "you wish", where many a sentence is advice.
_SHE_WISHES = (
    rf"(?:wants|wanted|likes|liked|prefers|preferred|needs{_ADVICE}|needed{_ADVICE}|asks|asked|wishes|wished|hopes|hoped|expects|expected|"
    r"requests|requested|enjoys|enjoyed|loves|loved|desires|desired|seeks|sought|demands|demanded|requires|required|"
    r"appreciates|appreciated|values|favou?rs|dislikes|hates|insists|insisted|craves|welcomes|cares about|"
    r"(?:said|says|mentioned) (?:that )?(?:she|he|they)|"
    r"(?:should|must|ought to|has to|have to|is to) (?:\w+ )?(?:be (?:called|addressed|told|answered|given|warned)|hear)|"
    rf"looks for|looked for|{_WOULD}|{_IS}|{_HAS}|{_NOT})"
)
_YOU_WISH = rf"(?:(?:{_TO_WISH})(?:e?d)?|{_WOULD}|{_IS}|{_HAS}|{_NOT})"
_YOU_ASKED = r"(?:asked|requested|told me|(?:said|mentioned) (?:that )?(?:you|i|they))"
# What is wished of answers; "what you need to know" is advice.
_ANSWERS = (
    r"(?: \w+){0,3}? (?:(?<!need )to (?:know|hear|be (?:told|called|addressed|answered|warned))|(?:answers|replies|responses)|"
    r"(?:every|each|all|any|my|your|short|brief|long|whole|full) (?:\w+ )?(?:answer|reply|response)|"
    r"(?:an?|the) (?:\w+ )?(?:answer|reply|response) (?:in|with|as|that|to|of))"
)
_OF_ANSWERS = re.compile(
    r"\b(?:each|every|any|all|my|your|this) (?:\w+ )?(?:repl(?:y|ies)|responses?|answers?)\b", re.IGNORECASE
)
_WISH = r"(?:wish|wishes|preferences?|requests?|desire|liking|fondness|requirement|expectation|interest in|need for)"
# Between subject and verb stand an apposition and a few words, but no other subject.
_BETWEEN = (
    r"(?:, (?:who|whose|an?|the|our) [^,.;]{0,80},)?(?: (?!(?:you|your|i|it|that|which|they|we|if)\b)[\w'-]+){0,5}? ?"
)
_CAUSE = re.compile(
    r"\W*(?:since|as|because|given|knowing|if|while|although|though|considering|per|following|for(?! (?:example|instance))|based on|in line with|to)\b"
)
_GOES_ON = re.compile(r"\W*(?:with|as|and|or|in|on|at|which|who|that|such|including|without|but|like|never|not|no)\b")
_SO = re.compile(r"(?:so|therefore|thus|hence|here)\b")
_EDGE = re.compile(r"[,:;]\s+|\s[–—-]\s")
_FIGURES = frozenset(
    "one two three four five six seven eight nine ten fifteen twenty thirty forty fifty hundred half".split()
)
_FILLERS = frozenset(
    "sure okay ok of course certainly yes no well hello hi hey dear great so then for example thanks absolutely first".split()
)


def answer(text, wishes=(), name=""):
    """What a text says apart from telling wishes back; "" where that is nothing but "Sure" or a greeting.

    `wishes` are texts of the user's wishes, `name` is what the user is called; either may be missing.
    """
    parts = sentences(text)
    kept = [_without_recital(part, tuple(wishes), fold(name).strip()) for part in parts]
    left = "".join(kept).strip("\n").rstrip()
    if kept != parts and set(words(fold(left))) <= _FILLERS | set(words(fold(name))):
        return ""
    return left


def without_phrases(text, wishes):
    """A text without sentences that speak of answers ("use music in each reply"), and without what it repeats of the wishes
    and says nothing by: two of their words in a row that stand beside "or" or "about" ("a song or an instrument", where an
    answer would choose; "a word about safety"), or that are promised ("help you stay safe"). Other words in a row may well
    be an answer: "play a musical instrument".
    """
    phrases = _phrases(tuple(wishes))
    left = "".join(_break(part) if _OF_ANSWERS.search(part) else part for part in sentences(text))
    return phrases.sub(" ", left) if phrases else left


@lru_cache(maxsize=1024)
def _phrases(wishes):
    """The pattern of the phrases of `without_phrases`, None where there are none."""
    found = set()
    for wish in wishes:
        told = words(normal(wish).lower())
        content = [i for i, word in enumerate(told) if word not in FUNCTION_WORDS["en"]]
        for first, last in zip(content, content[1:], strict=False):
            phrase = r"\W+".join(map(re.escape, told[first : last + 1]))
            loose = {"or", "about"} & {*told[first:last]}
            found.add(phrase if loose else rf"help(?:s|ing)? (?:(?:you|me|us|them|to) )*{phrase}")
    return re.compile(rf"\b(?:{'|'.join(sorted(found))})\b", re.IGNORECASE) if found else None


def wishes_in(context, texts):
    """The `texts` of a user's wishes, and the sentences of the context that say one of them in other words."""
    found = [s for s in sentences(context) if any(len({*_content(s)} & {*_content(text)}) >= 2 for text in texts)]
    return (*texts, *found)


def _without_recital(sentence, wishes, name):
    """A sentence; what it says after "Since Ana wants ...," or "..., so"; or "" where all of it tells a wish back."""
    plain = fold(sentence).replace("’", "'")
    end = _end_of_wishing(plain, wishes, name)
    if end is None:
        return _without_copy(sentence, wishes)
    edges = [edge.end() for edge in _EDGE.finditer(plain, end)] if len(plain) == len(sentence) else []
    after = [at for at in edges if _SO.match(plain, at)]
    if edges and _CAUSE.match(plain) and not _GOES_ON.match(plain, edges[0]):
        after.insert(0, edges[0])
    for at in after:
        if not any(_says_little_else(plain[at:], wish) for wish in wishes):
            return _without_recital(sentence[at:], wishes, name)
    return _break(sentence)


def _end_of_wishing(plain, wishes, name):
    """Where in a folded sentence the words end by which somebody wishes; None where nobody does."""
    user, somebody, answers, anything = _patterns(name)
    if match := user.search(plain):
        return match.end()
    # She and he are somebody else where the user is spoken to.
    if not re.search(r"\byou(?:r|rs|rself)?\b", plain) and (match := somebody.search(plain)):
        return match.end()
    if plain.rstrip().endswith("?"):  # "Would you like to know more?" asks
        return None
    if match := answers.search(plain):
        return match.end()
    match = anything.search(plain)
    return match.end() if match and any(_says_little_else(plain, wish) for wish in wishes) else None


def _says_little_else(plain, wish):
    """Whether most of what a sentence says besides wishing is in the wish, figures included."""
    said = {*_content(plain)} - {*_content(_TO_WISH.replace("|", " "))}
    more = said - {*_content(wish)}
    return len(more) < len(said) / 2 and not any(word.isdigit() or word in _FIGURES for word in more)


@lru_cache(maxsize=1024)
def _patterns(name):
    """Patterns by which the user wishes, somebody does, you do about answers, and you do about anything."""
    user = rf"\b(?:{re.escape(name)}|{THE_USER})\b" if name else rf"\b(?:{THE_USER})\b"
    you = r"\b(?:you|i|they)(?: (?:also|really|always|still|just|only|both))? ?"
    patterns = (
        rf"{user}{_BETWEEN}{_SHE_WISHES}\b|{user}(?: [\w'-]+){{0,3}} {WISHES}\b|{user}(?:'s|s')? (?:\w+ )?{_WISH}\b"
        rf"|\b(?:matters?|important|of interest|appeals?|interesting|helpful) (?:to|for) {user}"
        rf"|\b(?:pleases?|delights?|interests?) {user}|\b(?:requested|asked(?: for)?|wanted|wished(?: for)?|preferred) by {user}",
        rf"\b(?:she|he){_BETWEEN}{_SHE_WISHES}\b|\b(?:her|his|their) (?:\w+ )?{_WISH}\b",
        rf"\bas (?:requested|asked|wished|desired)\b|\byou (?:have |had |just |also )?{_YOU_ASKED}\b|\byour (?:\w+ )?{_WISH} (?:for|to|of|is|that|about)\b"
        rf"|{you}{_YOU_WISH}{_ANSWERS}\b|\b(?:she|he){_BETWEEN}{_SHE_WISHES}{_ANSWERS}\b",
        rf"{you}{_YOU_WISH}\b",
    )
    return tuple(re.compile(pattern) for pattern in patterns)


def _without_copy(sentence, wishes):
    """A sentence; its part after a colon; or "" where three words in a row are a wish's."""
    copied = frozenset().union(*map(_runs, wishes))
    if not copied & _runs(sentence):
        return sentence
    _, colon, rest = sentence.partition(":")
    if colon and not copied & _runs(rest):
        return rest
    return _break(sentence)


def _break(sentence):
    """The space after a sentence, so that what is left keeps its lines and paragraphs."""
    return sentence[len(sentence.rstrip()) :]


@lru_cache(maxsize=4096)
def _runs(text):
    """The runs of three words of a text, those of grammar aside."""
    content = _content(text)
    return frozenset(zip(content, content[1:], content[2:], strict=False))


@lru_cache(maxsize=4096)
def _content(text):
    """The words of a text that are none of grammar, folded and without endings."""
    return tuple(_stem(word) for word in words(fold(text).replace("’", "'")) if word not in FUNCTION_WORDS["en"])


def _stem(word):
    return re.sub(r"(?:ings?|ed|es|s|ous|y|e)$", "", word) if len(word) > 4 else word
