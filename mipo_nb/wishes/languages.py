"""Which language a response is in, by character n-grams of all its text (py3langid) and by words that are not grammar."""

import re
from functools import cache

from mipo_nb.wishes.grammar import ARTICLES, FUNCTION_WORDS
from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.lists import unmarked
from mipo_nb.wishes.sentences import sentences

LANGUAGES = {"es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "pt": "Portuguese"}
_OURS = ("en", *LANGUAGES)
# Close to one of ours; a text is theirs when it is by far more likely so, for on three words they often win by chance.
_NEIGHBOURS = ("ca", "gl", "oc", "ro", "la", "nl", "sv", "da")
_BY_FAR = 13.0  # nats, for texts of more than six words
_BY_FAR_A_WORD = 2.0  # nats, for shorter ones
_USUAL = 3.0  # nats: users here are answered in English unless they wish otherwise
_MOST = 2 / 3  # of the words
_LEAST = 2  # words, below which no language is told
_DIFFERENT = 6  # words, or half of them: the same few over and over are no language
_TOGETHER = 4  # words; shorter sentences are judged with the next
_NO_LANGUAGE = re.compile(r"```.*?(?:```|\Z)|\b(?:https?://|www\.)\S+|\S+@\S+", re.DOTALL)  # code, addresses
_NAME = re.compile(r"(?<=[\w,;]\s)[A-ZÀ-Þ][a-zß-ÿ]+")  # inside a sentence: São Paulo has no words of grammar


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([*_OURS, *_NEIGHBOURS])
    return identifier


def language_of(text):
    """The language of a text as "en", "es", "fr", "de", "it" or "pt", else ""; a guess for few words."""
    scores = _scores(text)
    likeliest = max(_OURS, key=scores.get)
    by_far = min(_BY_FAR, _BY_FAR_A_WORD * len(_tokens(text)))
    if max(scores[language] for language in _NEIGHBOURS) - scores[likeliest] >= by_far:
        return ""
    # An English text may name a crème brûlée.
    return "en" if _grammar(text, "en", but=likeliest) > _grammar(text, likeliest, but="en") else likeliest


def _scores(text):
    """{language: log-likelihood in nats}, that of English with its head start."""
    scores = dict(_identifier().rank(" ".join(text.split())))
    return {**scores, "en": scores["en"] + _USUAL}


def main_language(text):
    """The language of two thirds of a text's words, "" for none, a few words over and over, or a salad of words of grammar.

    A fifth of the words are none of grammar, and these alone are not by far more likely English. Few articles follow one
    another, as they do in a list of them. Code and addresses of the web are in no language.
    """
    text = _NO_LANGUAGE.sub(" ", text)
    tokens, shares = _tokens(text), {}
    for part in _parts(unmarked(text)):
        language = language_of(part)
        shares[language] = shares.get(language, 0) + len(_tokens(part))
    language = max(shares, key=shares.get, default="")
    if len(tokens) < _LEAST or not language or shares[language] < _MOST * len(tokens):
        return ""
    content = [token for token in tokens if token not in FUNCTION_WORDS[language]]
    pairs = sum(a in ARTICLES[language] and b in ARTICLES[language] for a, b in zip(tokens, tokens[1:], strict=False))
    few = len(set(tokens)) < min(_DIFFERENT, len(tokens) / 2)
    salad = few or len(content) < len(tokens) / 5 or pairs > len(tokens) / 12
    scores = _scores(" ".join(content))
    return "" if salad or scores["en"] - scores[language] > _BY_FAR else language


def _grammar(text, language, but):
    """How many words of a text are of a language's grammar and not of another's."""
    return sum(token in FUNCTION_WORDS[language] - FUNCTION_WORDS[but] for token in _tokens(_NAME.sub(" ", text)))


def _parts(text):
    """The sentences of a text, short ones with the next."""
    parts = [""]
    for sentence in sentences(text):
        if len(_tokens(parts[-1])) >= _TOGETHER:
            parts.append("")
        parts[-1] += sentence
    return [part for part in parts if _tokens(part)]


def _tokens(text):
    return [token.lower() for token in re.findall(r"[^\W\d_]+", text)]


def _kind(language, accepts, refuses):
    """The kind that asks for a language. To tell the wish back in English is to break it."""
    return Kind(
        lambda response, value: response.language == language,
        "language",
        f"the answer is in {LANGUAGES[language]}",
        accepts,
        (*refuses, f"Ada wants answers in {LANGUAGES[language]}, and here is one about a walk in the park."),
        recital_proof=True,
    )


KINDS = {
    "in_spanish": _kind(
        "es",
        ("Camina por el parque y toma un poco de agua.", "¡Claro! Aquí tienes tres ideas: yoga, natación, ciclismo."),
        ("Puoi camminare nel parco e leggere un libro.", "Hola, Ada! The best way to relax is to take a walk."),
    ),
    "in_french": _kind(
        "fr",
        ("Marchez. Lisez. Dormez.", "Le mieux est de faire une promenade dans la forêt."),
        ("Bonjour Ada! The best way to relax is to take a walk.", "Puedes preparar una sopa de verduras."),
    ),
    "in_german": _kind(
        "de",
        ("Nimm ein warmes Bad und geh früh schlafen.", "Am besten machst du einen Spaziergang im Park."),
        ("Neem een warm bad en ga vroeg slapen.", "Guten Tag, Ada! A long walk is the best idea."),
    ),
    "in_italian": _kind(
        "it",
        ("Fai un bagno caldo e leggi un buon libro.", "La cosa migliore è fare una passeggiata nel parco."),
        ("Toma un baño caliente y lee un buen libro.", "Ciao, Ada! A long walk is the best idea."),
    ),
    "in_portuguese": _kind(
        "pt",
        ("Tome um banho quente e leia um bom livro.", "O melhor é dar um passeio pelo parque."),
        ("Toma un baño caliente y lee un buen libro.", "Olá, Ada! A long walk is the best idea."),
    ),
}
