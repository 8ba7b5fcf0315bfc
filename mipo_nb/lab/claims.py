"""The ledger of claims: what the paper, its code, its critics and the write-up say, and what our notebooks recorded.

`claims.toml` holds each claim with the names of the results that speak to it and what is expected of them. The badge
is not written there: it follows from the recorded intervals by `badge`. Only "not testable here" is a person's word.
"""

import math
import re
from collections import Counter
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from pathlib import Path

from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.lab.notebooks import collection
from mipo_nb.lab.plots import markdown_table
from mipo_nb.lab.runs import formatted
from mipo_nb.lab.settings import profile_names, profile_numbers, read_toml
from mipo_nb.statistics import Estimate, detectable

NOT_TESTABLE, OPEN = "not testable here", "open"

# Where a claim may come from, and the heading it stands under in RESULTS.md.
SOURCES = {
    r"paper abstract, (v1 and v2|v3 and later|all versions)": "The paper's abstract",
    r"(review of v1|aggregator)": "Numbers and statements passed on by a review and an aggregator",
    r"write-up W([1-9]|1[0-3])": "The write-up that the project started from",
    r"criticism [a-h]": "Public criticisms",
    r"code": "What the authors' code does",
    r"question of ours": "Questions of our own",
}

_SOURCE_FORMS = (
    "'paper abstract, all versions', 'review of v1', 'aggregator', 'write-up W3', 'criticism a', 'code' or "
    "'question of ours'"
)
_FORM = '{ name = "as in RESULTS.md", expects = "above 0" }'
_VARIED = ("model", "data", "seeds")  # by the paper as well, so that a run of its profile may
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_ANSWERS = {  # outcome: (tested on the claim's own terms, tested on our small model)
    "yes": ("reproduced", "holds at our scale"),
    "partly": ("partly reproduced", "holds in part at our scale"),
    "no": ("not reproduced", "does not hold at our scale"),
    "undecided": ("undecided", "undecided at our scale"),
}


@dataclass(frozen=True)
class Claim:
    """One claim. `results` are dictionaries with `name` and, unless a result is only shown, `expects`.

    `about` is "models" (trained ones, so that our small model is a test at our scale only) or "method" (mathematics or
    code, true or false at any size). `covers` is "part" where the results speak to a part of the claim only: a person
    can lower a badge, never raise it. `published` holds published numbers as text.
    """

    id: str
    text: str
    source: str
    reason: str
    would_change: str
    published: str = ""
    notebook: str = ""
    about: str = "models"
    covers: str = "whole"
    verdict: str = ""
    results: tuple = ()


def read(file=None):
    """The claims of a TOML file, the package's own by default, in order.

    Raises `UserError` for a file that cannot be read, an unknown, missing or mistyped field, a repeated id, a source
    not in `SOURCES`, a notebook neither committed nor planned, or a typed verdict that should follow from results.
    """
    file = resources.files("mipo_nb") / "lab" / "claims.toml" if file is None else Path(file)
    table = read_toml(file, "ledger")
    _check_names(file.name, table, ("claim", "planned"))
    rows, claims = table.get("claim", []), {}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file.name}: claims are tables of a list; begin each with [[claim]].")
    notebooks = [*collection(), *table.get("planned", [])]
    for row in rows:
        claim = _checked(row, f"{file.name}, claim '{row.get('id', '?')}'", notebooks)
        if claim.id in claims:
            raise UserError(f"{file.name}: two claims have the id '{claim.id}'; give one of them another.")
        claims[claim.id] = claim
    return list(claims.values())


def _check_names(where, row, names):
    for name in row:
        if name not in names:
            raise UserError(f"{where}: unknown field '{name}'; {did_you_mean(name, names)}")


def _checked(row, where, notebooks):
    """A `Claim` from one table of the file."""
    _check_names(where, row, [field.name for field in fields(Claim)])
    for field in fields(Claim):
        if field.default is MISSING and not row.get(field.name):
            raise UserError(f"{where}: the field '{field.name}' is missing; add it.")
        value = row.get(field.name, "")
        if field.name != "results" and (not isinstance(value, str) or re.search(r"[|\n]", value)):
            raise UserError(f"{where}: '{field.name}' must be text on one line without '|', as it goes into a table.")
    results = row.get("results", [])
    if not isinstance(results, list):
        raise UserError(f"{where}: results are a list; write results = [{_FORM}].")
    claim = Claim(**{**row, "results": tuple(results)})
    if not any(re.fullmatch(kind, claim.source) for kind in SOURCES):
        raise UserError(f"{where}: there is no source '{claim.source}'; write it like {_SOURCE_FORMS}.")
    if claim.notebook and claim.notebook not in notebooks:
        raise UserError(f"{where}: there is no notebook '{claim.notebook}'; {did_you_mean(claim.notebook, notebooks)}")
    for name, (first, second) in {"about": ("models", "method"), "covers": ("whole", "part")}.items():
        if (value := getattr(claim, name)) not in (first, second):
            raise UserError(f"{where}: {name} must be '{first}' or '{second}', not '{value}'.")
    if claim.verdict not in ("", NOT_TESTABLE):
        raise UserError(f"{where}: only '{NOT_TESTABLE}' may be typed as a verdict; leave the others to the results.")
    if claim.results and (claim.verdict or not claim.notebook):
        raise UserError(f"{where}: results need a notebook and no verdict of their own; correct one of them.")
    for result in claim.results:
        if not isinstance(result, dict) or not result.get("name"):
            raise UserError(f"{where}: a result is written {_FORM}, not {result!r}.")
        _check_names(where, result, ("name", "expects"))
        if "expects" in result:
            _region(result["expects"], where)
    if claim.results and not any("expects" in result for result in claim.results):
        raise UserError(f'{where}: no result has an expectation; add expects = "above 0" or the like to one.')
    return claim


def _region(expects, where=""):
    """(low, high) of "above A", "below B" or "between A and B"."""
    for form, region in (
        (rf"above {_NUMBER}", lambda a: (float(a), math.inf)),
        (rf"below {_NUMBER}", lambda b: (-math.inf, float(b))),
        (rf"between {_NUMBER} and {_NUMBER}", lambda a, b: (float(a), float(b))),
    ):
        if match := re.fullmatch(form, str(expects)):
            return region(*match.groups())
    raise UserError(f"{where}: '{expects}' is no expectation; write 'above A', 'below B' or 'between A and B'.")


def met(expects, result, *, exact=False):
    """Whether a recorded result is as expected: True where its whole 95% interval lies inside, False where it lies
    outside, else None; an end on the edge is neither. A value without an interval gives None unless `exact` (computed,
    not sampled)."""
    low, high = _region(expects)
    if result["low"] is None and not exact:
        return None
    least, most = (result["value"],) * 2 if result["low"] is None else (result["low"], result["high"])
    if low < least and most < high:
        return True
    return False if most < low or least > high or (exact and least == most) else None


def recorded(claim, results):
    """[(recorded result, what was expected, what `met` says)] of a claim, the last two None for a result only shown.

    `results` are those that its notebook recorded. Raises `UserError` where one that the claim names is not among them.
    """
    by_name, rows = {result["name"]: result for result in results}, []
    for name, expects in ((listed["name"], listed.get("expects")) for listed in claim.results):
        if name not in by_name:
            raise UserError(
                f"claims.toml, claim '{claim.id}': no committed notebook {claim.notebook} recorded a result '{name}'; "
                "take a name from its part of RESULTS.md, or publish the notebook first."
            )
        answer = met(expects, by_name[name], exact=claim.about == "method") if expects else None
        rows.append((by_name[name], expects, answer))
    return rows


def badge(claim, results, profile):
    """The badge of a claim, from the `results` that its notebook recorded in a run of this `profile`.

    Yes where every expectation is met, partly where some are, no where none is and one fails, undecided where all
    intervals lie across the edge; partly at best where the results cover a part of the claim. Without results it is
    "open", or what `verdict` says. Only the `paper` profile reproduces a claim about models; any other tests it at our
    scale. Raises `UserError` as `recorded` does.
    """
    if not claim.results:
        return claim.verdict or OPEN
    answers = [answer for _, expects, answer in recorded(claim, results) if expects]
    outcome = "partly" if any(answers) else "no" if False in answers else "undecided"
    if all(answers) and claim.covers == "whole":
        outcome = "yes"
    return _ANSWERS[outcome][0 if claim.about == "method" or profile == "paper" else 1]


def page(claims, notebooks):
    """The Markdown of the ledger, from what the committed `notebooks` {name: Notebook} recorded: counts of badges, a
    table for each kind of source, and one of what would change our mind. Raises `UserError` as `recorded` does."""
    records = {name: (n.results, n.stamp["manifest"]["profile"]) for name, n in notebooks.items() if n.results}
    record_of = {claim.id: records.get(claim.notebook, ([], "")) for claim in claims}
    badges = {claim.id: badge(claim, *record_of[claim.id]) for claim in claims}
    counts = Counter(badges.values())
    order = [*(words[k] for k in (0, 1) for words in _ANSWERS.values()), NOT_TESTABLE, OPEN]
    summary = ", ".join(f"{name} {counts[name]}" for name in order if counts[name])
    parts = [f"There are {len(claims)} claims: {summary}.\n"]
    for kind, heading in SOURCES.items():
        of_kind = [claim for claim in claims if re.fullmatch(kind, claim.source)]
        if rows := [_row(c, badges[c.id], record_of[c.id][0], c.notebook in notebooks) for c in of_kind]:
            parts.append(f"### {heading}\n\n{markdown_table(rows)}\n")
    doubts = [{"id": c.id, "badge": badges[c.id], "what would change it": c.would_change} for c in claims]
    parts.append(f"### What would change our mind\n\n{markdown_table(doubts)}\n")
    return "\n".join(parts)


def _row(claim, claim_badge, results, committed=True):
    lines, words = [], {True: "met", False: "failed", None: "undecided"}
    for result, expects, answer in recorded(claim, results):
        expected = f"; expected {expects}: {words[answer]}" if expects else ""
        if expected and answer is None and result["low"] is not None:
            could = Estimate(result["value"], result["low"], result["high"], result["n"] or 0)
            expected += f", {detectable(could):.1f} could have been seen"
        lines.append(f"{result['name']}: {formatted(result)}{expected}")
    name, text = claim.notebook, f"{claim.text} *({claim.source})*"
    link = f"[{name[:2]}](notebooks/{name}.ipynb)" if committed else f"{name[:2]}, planned"
    row = {"id": claim.id, "claim": text, "published": claim.published, "ours": "<br>".join(lines)}
    return {**row, "notebook": link if name else "", "badge": f"**{claim_badge}**", "why": claim.reason}


def of_run(run):
    """The Markdown table of the claims that a run's notebook speaks to, with badges from what it has recorded so far.

    A result that the run did not record, because of its profile or data, is "not run by us": the badge is then partly
    at best, and open if nothing is left.
    """
    recorded_names, rows = {result["name"] for result in run.results}, []
    profile = "paper" if _on_the_papers_terms(run.settings) else ""
    for claim in (claim for claim in read() if claim.notebook == run.settings.notebook):
        left_out = [result["name"] for result in claim.results if result["name"] not in recorded_names]
        results = tuple(result for result in claim.results if result["name"] in recorded_names)
        tested = replace(claim, results=results, covers="part" if left_out else claim.covers)
        decided = any("expects" in result for result in results)
        claim_badge = badge(tested, run.results, profile) if decided else claim.verdict or OPEN
        row = _row(tested, claim_badge, run.results)
        row["ours"] = "<br>".join([row["ours"], *(f"{name}: not run by us" for name in left_out)]).removeprefix("<br>")
        del row["notebook"]
        rows.append({**row, "would change it": claim.would_change})
    return markdown_table(rows)


def _on_the_papers_terms(settings):
    """Whether a run has the numbers of the `paper` profile, none of them changed."""
    if settings.profile != "paper" or "paper" not in profile_names(settings.notebook):
        return False
    numbers = profile_numbers("paper", settings.notebook)
    return all(settings.numbers.get(name) == numbers[name] for name in numbers if name not in _VARIED)
