"""Badges: what the recorded results of a claim say of it, by one rule.

A result that is a core decides, one that is a guard may only put a price on a yes. Nothing here is typed: a badge follows
from intervals, from what was expected of them, and from when it was written down.
"""

import math
import re

from mipo_nb.base.errors import UserError
from mipo_nb.lab.runs import formatted
from mipo_nb.statistics import Estimate, detectable, equivalent

NOT_TESTABLE, OPEN, SMALL = "not testable here", "open", "small"

_NUMBER = r"(-?\d+(?:\.\d+)?)"
ANSWERS = {  # outcome: (tested on the claim's own terms, tested on our small model)
    "yes": ("reproduced", "holds at our scale"),
    "price": ("reproduced, at a price", "holds at our scale, at a price"),
    "partly": ("partly reproduced", "holds in part at our scale"),
    "no": ("not reproduced", "does not hold at our scale"),
    SMALL: ("no gain larger than", "no gain at our scale larger than"),
    "undecided": ("undecided", "undecided at our scale"),
}


def is_core(result):
    """Whether a result decides a claim: something is expected of it, and it is no guard."""
    return "expects" in result and result.get("role", "core") == "core"


def region(expects, where=""):
    """(low, high) of "above A", "below B" or "between A and B"."""
    for form, bounds in (
        (rf"above {_NUMBER}", lambda a: (float(a), math.inf)),
        (rf"below {_NUMBER}", lambda b: (-math.inf, float(b))),
        (rf"between {_NUMBER} and {_NUMBER}", lambda a, b: (float(a), float(b))),
    ):
        if (match := re.fullmatch(form, str(expects))) and (found := bounds(*match.groups()))[0] < found[1]:
            return found
    raise UserError(f"{where}: '{expects}' is no expectation; write 'above A', 'below B' or 'between A and B'.")


def met(expects, result, *, exact=False, smallest=None):
    """Whether a recorded result is as expected: True where its whole 95% interval lies inside, False where it lies
    outside, else None; an end on the edge is neither. "between -A and A" says that something stays, which two one-sided
    tests decide (`statistics.equivalent`). Where a gain was expected ("above 0") and they show that there is none of
    `smallest` or more, either way, it is SMALL. A value without an interval gives None unless `exact` (computed, not
    sampled). A recorded interval counts as a normal's; with few trainings that leaves more open than a page may."""
    low, high = region(expects)
    if result["low"] is None and not exact:
        return None
    least, most = (result["value"],) * 2 if result["low"] is None else (result["low"], result["high"])
    found = Estimate(result["value"], least, most, result["n"] or 0)
    if low == -high and least < most:
        return equivalent(found, high)[0]
    if most < low or least > high or (exact and least == most and not low < least < high):
        return False
    if smallest and expects == "above 0" and least < most and equivalent(found, smallest)[0]:
        return SMALL
    return True if low < least and most < high else None


def recorded(claim, records):
    """The results of a claim as dictionaries: what claims.toml lists, its `notebook`, the recorded `result`, whether it
    is `core`, and `answer`, what `met` says (None for a result only shown).

    `records` are the recorded results by notebook. Raises `UserError` where one that the claim names is not among them.
    """
    rows = []
    for listed in claim.results:
        notebook, name, expects = listed.get("notebook", claim.notebook), listed["name"], listed.get("expects")
        by_name = {result["name"]: result for result in records.get(notebook, ())}
        if name not in by_name:
            raise UserError(
                f"claims.toml, claim '{claim.id}': no committed notebook {notebook} recorded a result '{name}'; "
                "take a name from results/recorded.csv, or publish the notebook first."
            )
        exact, smallest = claim.about == "method", listed.get("smallest")
        answer = met(expects, by_name[name], exact=exact, smallest=smallest) if expects else None
        found = {"notebook": notebook, "result": by_name[name], "core": is_core(listed), "answer": answer}
        rows.append({**listed, **found})
    return rows


def outcome(claim, rows):
    """What the rows of `recorded` say of a claim: a key of `ANSWERS`, or "" where no result decides."""
    answers = [row["answer"] for row in rows if row["core"]]
    if not answers:
        return ""
    if any(answer is True for answer in answers):
        whole = all(answer is True for answer in answers) and claim.covers == "whole"
        guard_failed = any(row["answer"] is False for row in rows if not row["core"])
        return "partly" if not whole else "price" if guard_failed else "yes"
    return "no" if False in answers else SMALL if set(answers) == {SMALL} else "undecided"


def is_registered(outcome, cores):
    """Whether an outcome was written down before: all `cores` were, and a gain that is too small to matter was not: most
    sizes that matter were chosen when results were known."""
    return outcome != SMALL and all("registered" in row for row in cores)


def badge(claim, records, profile=""):
    """The badge of a claim, from the `records` {notebook: its recorded results} of runs of this `profile`.

    By its cores: yes where each is met, partly where some are, no where none is and one fails, "no gain larger than X"
    where each is, undecided otherwise. Guards earn nothing; one that fails puts a price on a yes. Partly at best where
    the results cover a part of the claim. Without cores it is "open", what `verdict` says, or what was read in the code.
    Only the `paper` profile reproduces a claim about models; any other tests it at our scale. Raises `UserError` as
    `recorded` does.
    """
    rows = recorded(claim, records)
    if claim.verdict and profile != "paper":
        return claim.verdict
    parts = [f"read in the code: {claim.reading}"] if claim.read else []
    if found := outcome(claim, rows):
        said, cores = ANSWERS[found][claim.about != "method" and profile != "paper"], [r for r in rows if r["core"]]
        size = f" {cores[0]['smallest']:g} {cores[0]['result']['unit']}" if found == SMALL else ""
        when = "registered" if is_registered(found, cores) else "after the fact"
        parts.append(f"{said}{size}, {when}")
    return "; measured: ".join(parts) or claim.verdict or OPEN


def line(row):
    """A row of `recorded` in words: its name, the number, what was expected of it, and whether that came."""
    said, result = f"{row['name']}: {formatted(row['result'])}", row["result"]
    if not (expects := row.get("expects")):
        return said
    words = {True: "met", False: "failed", None: "undecided", SMALL: f"no larger than {row.get('smallest', 0):g}"}
    if row["answer"] is None and result["low"] is not None:
        words[None] = undecided(Estimate(result["value"], result["low"], result["high"], result["n"] or 0))
    when = f", registered in {row['registered']}" if "registered" in row else ""
    return f"{said}; {'' if row['core'] else 'guard, '}expected {expects}{when}: {words[row['answer']]}"


def undecided(found, unit=""):
    """ "undecided", and the smallest effect that a test with the error of `found`, an `Estimate`, sees in four of five cases."""
    could = detectable(found)
    return (
        f"undecided, {could:.{0 if could >= 10 else 1 if could >= 1 else 2}f} {unit}".rstrip() + " could have been seen"
    )


def verb(change, unit="", *, up="rose", down="fell", still="did not move measurably"):
    """The verb that the interval of `change`, an `Estimate`, allows; beside `still` the effect that could have been seen."""
    return up if change.low > 0 else down if change.high < 0 else undecided(change, unit).replace("undecided", still)
