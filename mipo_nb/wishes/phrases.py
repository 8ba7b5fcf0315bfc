"""Rules by words: a phrase occurs in the answer, and not in a saying where it means something else."""

import re


def any_of(*patterns):
    """One compiled pattern of several, whatever the case of letters."""
    return re.compile("|".join(patterns), re.IGNORECASE)


def any_word_of(listed):
    """The pattern of words and phrases separated by commas, each as it stands or with an s."""
    forms = sorted(" ".join(listed.split()).split(", "), key=len, reverse=True)
    return any_of(rf"\b(?:{'|'.join(map(re.escape, forms))})(?:e?s)?\b")


def says(phrase, but):
    """The rule that the answer has a `phrase` after what matches `but` is taken out; both are compiled patterns. Phrases of
    the wish do not count (`recital.without_phrases`)."""
    return lambda response, value: bool(phrase.search(but.sub(" ", response.said)))
