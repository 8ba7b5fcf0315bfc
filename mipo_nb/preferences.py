"""Preferences that a rule can check, so that personalization is measured without a judge.

A rule judges the answer: sentences that tell the wish back are taken out first, and a refusal keeps nothing. Rules look
at form, at words or at language, never at quality: a response can keep a preference and still be bad, which is why text
health is measured beside it. The rules and the kinds stand in `wishes/`.
"""

from dataclasses import replace

from mipo_nb.wishes import figures, forms, languages, mentions, topics
from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.response import Response
from mipo_nb.wishes.sentences import words

__all__ = ["KINDS", "Kind", "Response", "checkable", "keeps", "words"]

KINDS = {**forms.KINDS, **figures.KINDS, **mentions.KINDS, **topics.KINDS, **languages.KINDS}
_UNSEEN = ("mentions_safety", "mentions_animals", "in_italian")  # test users wish these, training users do not
KINDS |= {kind: replace(KINDS[kind], seen=False) for kind in _UNSEEN}


def keeps(response, preference, name="", wishes=()):
    """Whether a response keeps one checkable preference.

    `preference` is a mapping with `kind` (a key of `KINDS`) and `value` (a number, for kinds that have one); `name` is
    what the user is called, `wishes` are texts of the user's wishes, which are no answer when they are said back. Raises
    `KeyError` for an unknown kind.
    """
    told = (preference.get("text"), *wishes)
    return KINDS[preference["kind"]].keeps(
        Response(response, name or "", tuple(filter(None, told))), preference.get("value")
    )


def checkable(preferences):
    """The preferences of a user that a rule can check."""
    return [p for p in preferences or () if p.get("kind")]
