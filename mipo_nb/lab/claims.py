"""The ledger of claims: what the paper, its code, its critics and the write-up say, and what our notebooks recorded.

`claims.toml` holds each claim with the names of the results that speak to it and what is expected of them. The badge is
not written there: it follows from the recorded intervals by `badge`. Only "not testable here" and what was read in the
authors' code are a person's word.
"""

import re
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from pathlib import Path

from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.lab.badges import NOT_TESTABLE, badge, is_core, line, recorded, region
from mipo_nb.lab.notebooks import collection
from mipo_nb.lab.plots import markdown_table
from mipo_nb.lab.settings import profile_names, profile_numbers, read_toml

# Where a claim may come from; one that several make names them with "; " between.
SOURCES = (
    r"paper abstract, (v1 and v2|v3 and later|all versions)",
    r"conference abstract",
    r"(review of v1|aggregator)",
    r"write-up W([1-9]|1[0-3])",
    r"criticism [a-h]",
    r"code",
    r"question of ours",
)

_SOURCE_FORMS = (
    "'paper abstract, all versions', 'review of v1', 'aggregator', 'write-up W3', 'criticism a', 'code' or "
    "'question of ours'"
)
_FORM = '{ name = "as in results/recorded.csv", expects = "above 0" }'
_TABLES = ("claim", "summary", "untested", "left_out")
_KEYS = ("name", "notebook", "expects", "role", "smallest", "registered", "words", "plot", "trainings")
_CHOICES = {"about": ("models", "method"), "covers": ("whole", "part"), "reading": ("yes", "no")}
_VARIED = ("model", "data", "seeds")  # by the paper as well, so that a run of its profile may


@dataclass(frozen=True)
class Claim:
    """One claim, as the head of `claims.toml` explains. `results` are dictionaries with `name` and, unless a result is
    only shown, `expects`; what is not theirs is text.

    `about` is "models" (trained ones, so that our small model is a test at our scale only) or "method" (mathematics or
    code, true or false at any size). `covers` is "part" where the results speak to a part of the claim only: a person
    can lower a badge, never raise it. `read` says where in the authors' code it was read, `reading` whether it is so.
    """

    id: str
    text: str
    source: str
    reason: str
    would_change: str
    question: str = ""
    published: str = ""
    notebook: str = ""
    about: str = "models"
    covers: str = "whole"
    verdict: str = ""
    read: str = ""
    reading: str = "yes"
    merges: str = ""
    results: tuple = ()


def texts(file=None):
    """The tables of a TOML file of claims, the package's own by default. Raises `UserError` for one it should not hold."""
    file = resources.files("mipo_nb") / "lab" / "claims.toml" if file is None else Path(file)
    table = read_toml(file, "ledger")
    _check_names(file.name, table, _TABLES)
    return table


def read(file=None):
    """The claims of a TOML file, the package's own by default, in order.

    Raises `UserError` for a file that cannot be read, an unknown, missing or mistyped field, a repeated id, a source
    not in `SOURCES`, a notebook that is not committed, or a typed verdict that should follow from results.
    """
    name, rows, claims = Path(file).name if file else "claims.toml", texts(file).get("claim", []), {}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name}: claims are tables of a list; begin each with [[claim]].")
    notebooks = list(collection())
    for row in rows:
        claim = _checked(row, f"{name}, claim '{row.get('id', '?')}'", notebooks)
        if claim.id in claims:
            raise UserError(f"{name}: two claims have the id '{claim.id}'; give one of them another.")
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
    for source in claim.source.split("; "):
        if not any(re.fullmatch(kind, source) for kind in SOURCES):
            raise UserError(f"{where}: there is no source '{source}'; write it like {_SOURCE_FORMS}.")
    for name, (first, second) in _CHOICES.items():
        if (value := getattr(claim, name)) not in (first, second):
            raise UserError(f"{where}: {name} must be '{first}' or '{second}', not '{value}'.")
    if claim.verdict not in ("", NOT_TESTABLE):
        raise UserError(f"{where}: only '{NOT_TESTABLE}' may be typed as a verdict; leave the others to the results.")
    if claim.results and not claim.notebook:
        raise UserError(f"{where}: results need a notebook; name the one that recorded them.")
    for result in claim.results:
        _check_result(result, where)
    for name in filter(None, [claim.notebook, *(result.get("notebook") for result in claim.results)]):
        if name not in notebooks:
            raise UserError(f"{where}: there is no notebook '{name}'; {did_you_mean(name, notebooks)}")
    if claim.results and not (claim.verdict or claim.read) and not any(is_core(result) for result in claim.results):
        raise UserError(f'{where}: no result decides it; add expects = "above 0" or the like to one that is no guard.')
    if len({result.get("smallest") for result in claim.results if is_core(result)}) > 1:
        raise UserError(f"{where}: the results that decide it must have one smallest effect of interest, or none.")
    return claim


def _check_result(result, where):
    if not isinstance(result, dict) or not result.get("name"):
        raise UserError(f"{where}: a result is written {_FORM}, not {result!r}.")
    _check_names(where, result, _KEYS)
    if result.get("role", "core") not in ("core", "guard"):
        raise UserError(f"{where}: a role is 'core' or 'guard', not '{result['role']}'.")
    if "expects" in result:
        region(result["expects"], where)
    if "expects" not in result and (alone := {"role", "smallest", "registered"} & set(result)):
        raise UserError(f"{where}: '{min(alone)}' goes with an expectation; add expects = \"above 0\" or the like.")
    if not result.get("smallest", 1) > 0:
        raise UserError(f"{where}: the smallest effect of interest must be above 0, not {result['smallest']}.")


def of_run(run):
    """The Markdown table of the claims that a run's notebook speaks to, with badges from what it has recorded so far.

    A result that the run did not record, because of its profile or data, is "not run by us": the badge is then partly
    at best, and open if nothing is left. Results of other notebooks are left out, with the same effect.
    """
    notebook, records, rows = run.settings.notebook, {run.settings.notebook: run.results}, []
    names, profile = {r["name"] for r in run.results}, "paper" if _on_the_papers_terms(run.settings) else ""
    for claim in read():
        own = [result for result in claim.results if result.get("notebook", claim.notebook) == notebook]
        if not own and claim.notebook != notebook:
            continue
        results = tuple(result for result in own if result["name"] in names)
        missing = [result["name"] for result in own if result["name"] not in names]
        whole = not missing and all(result in results for result in claim.results if is_core(result))
        tested = replace(claim, notebook=notebook, results=results, covers=claim.covers if whole else "part")
        lines = [*map(line, recorded(tested, records)), *(f"{name}: not run by us" for name in missing)]
        row = {"id": claim.id, "claim": f"{claim.text} *({claim.source})*", "published": claim.published}
        row |= {"ours": "<br>".join(lines), "badge": f"**{badge(tested, records, profile)}**"}
        rows.append({**row, "why": claim.reason, "would change it": claim.would_change})
    return markdown_table(rows)


def _on_the_papers_terms(settings):
    """Whether a run has the numbers of the `paper` profile, none of them changed."""
    if settings.profile != "paper" or "paper" not in profile_names(settings.notebook):
        return False
    numbers = profile_numbers("paper", settings.notebook)
    return all(settings.numbers.get(name) == numbers[name] for name in numbers if name not in _VARIED)
