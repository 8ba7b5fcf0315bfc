"""What a user can mend, in one sentence."""

import difflib


class UserError(Exception):
    """Something the user can mend; its message is one sentence that says how."""


def did_you_mean(name, known):
    """The end of an error message: the nearest known name, or all of them."""
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(name).lower(), list(lower), n=1)
    return f"did you mean '{lower[near[0]]}'?" if near else f"known: {', '.join(sorted(known))}."


def require_known(what, name, known):
    """Raise `UserError` where `name` is none of the `known` names of `what`."""
    if name not in known:
        raise UserError(f"Unknown {what} '{name}'; {did_you_mean(name, known)}")
