"""Preferences that a rule can check, so that personalization is measured without a judge.

A rule judges the answer: sentences that tell the wish back are taken out first, and a refusal keeps nothing. Rules look
at form, at words or at language, never at quality: a response can keep a preference and still be bad, which is why text
health is measured beside it. The rules and the kinds stand in `wishes/`.
"""

from dataclasses import replace

from mipo_nb.base.errors import UserError
from mipo_nb.wishes import figures, forms, languages, mentions, own_kinds, topics
from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.response import Response
from mipo_nb.wishes.sentences import words

__all__ = ["KINDS", "Kind", "Response", "add_kinds", "checkable", "keeps", "kinds_among", "proven", "words"]

KINDS = own_kinds.Kinds({**forms.KINDS, **figures.KINDS, **mentions.KINDS, **topics.KINDS, **languages.KINDS})
_UNSEEN = ("mentions_safety", "mentions_animals", "in_italian")  # test users wish these, training users do not
KINDS |= {kind: replace(KINDS[kind], seen=False) for kind in _UNSEEN}
_FIRST = dict(KINDS)


def add_kinds(path):
    """Add the kinds of a Python file (`wishes.own_kinds.read_kinds`) to `KINDS`, in place of those added before; None adds none.

    Raises `UserError` as it does, and for a name that the project has.
    """
    kinds = own_kinds.read_kinds(path) if path else {}
    if taken := sorted(kinds.keys() & _FIRST.keys()):
        raise UserError(f"{path}: the project has a kind '{taken[0]}' of its own; name yours otherwise.")
    KINDS.clear()
    KINDS.update(_FIRST | kinds)


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


def kinds_among(rows):
    """The names of all kinds: those of `KINDS`, and the patterns that users of `rows` wish."""
    wished = {p["kind"] for row in rows for p in checkable(row["preferences"])}
    return [*KINDS, *sorted(wished - KINDS.keys())]


def proven(kind, rows):
    """Whether telling a wish of this kind back breaks it: as its rule declares, and of a pattern, whether no wording of the
    wish in `rows` matches it."""
    if kind in KINDS:
        return KINDS[kind].recital_proof
    told = {p["text"] for row in rows for p in checkable(row["preferences"]) if p["kind"] == kind}
    return not any(own_kinds.found(kind, text) for text in told)
