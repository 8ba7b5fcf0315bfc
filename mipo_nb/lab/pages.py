"""RESULTS.md and the ledger of claims as Markdown."""

import re
from collections import Counter

from mipo_nb.lab import badges, forest
from mipo_nb.lab.plots import markdown_table

_ANSWERS = {"yes": "Yes", "price": "Yes, at a price", "partly": "In part", "no": "No", "undecided": "Not known"}

_OPENING = """# Results

*Written by `mipo-nb tables` from the committed notebooks and `mipo_nb/lab/claims.toml`; do not edit.*
"""

_READING = """Intervals hold 95 %. Zero inside means that we could not see, not that nothing is there. An answer follows by rule from the intervals; an asterisk marks what was expected in writing before the run. Fewer than eight trainings settle nothing for good. *n* counts users, prompts or problems.
"""

_MORE = """## More

[The ledger](docs/ledger.md) has every claim, how its badge is made, and which modules changed since each run. [recorded.csv](results/recorded.csv) has every number. Each section of [Expectations](docs/expectations.md) was committed before the runs that it names, and [what the authors' code does](docs/what_the_code_does.md) comes with file and line.
"""

_LEDGER = """# The ledger of claims

*Written by `mipo-nb tables` from the committed notebooks and `mipo_nb/lab/claims.toml`; do not edit.*

What is claimed about MIPO (Nam, Li and Jaques, arXiv 2603.19294) by the paper, its code, a write-up and its critics, in our words. Beside it stands what we recorded. The answers on one page are [Results](../RESULTS.md).

The paper is in the proceedings of ICML 2026 (PMLR 306). Published figures are of models of 1 to 7 billion parameters and a judge. Ours are of one model of 135 million and of rules. They cannot be compared number by number.

## How a badge is made

- **Core.** A core result decides. It is *met* where its whole 95 % interval lies as expected, *failed* where none of it does, else *undecided*. With an undecided one stands the effect that it would have shown in four of five cases.
- **Holds** needs all cores to be met, *in part* some of them. A person can lower a badge to *in part*, never raise it.
- **Guard.** A side condition. It earns no badge. One that fails turns *holds* into *at a price*.
- **No gain larger than X.** X is the smallest effect of interest. Two one-sided tests at 5 % put the change between -X and X. They take the recorded interval as if normal, which errs towards *undecided* where trainings are few. Most of the X were chosen when results were known.
- **Registered.** The named commit holds the expectation, had no such result yet, and comes before the commit that the run came from; a test checks this. All else is *after the fact*: a summary, not a prediction that came true. An expectation that came after an earlier run's result is after the fact too. For P1, Cd and E9 results at another dose or of other rows were known before; [Expectations](expectations.md) says which.
- **Read in the code.** Seen at a commit, file and line of the authors' code, and not run by us. All of them stand in [what the authors' code does](what_the_code_does.md).
- **At our scale**: our small model, invented users, rules. **Reproduced**: mathematics or code, the same at any size. **Not testable here**: it needs what we do not have.

A result without an expectation is only shown. Intervals are over users, prompts or problems, and over trainings where there are several. They are not corrected for their number.
"""


def results(claims, told, records):
    """RESULTS.md: three sentences, a figure, the questions of `claims`, what could not be tested. `told` are the other
    tables of claims.toml, `records` the recorded results by notebook."""
    summary = "\n".join(f"- {_filled(sentence, records)}" for sentence in told["summary"])
    figure = f"![{forest.alt(effects(claims, records))}](docs/results.svg)"
    asked = [_question(claim, badges.recorded(claim, records)) for claim in claims if claim.question]
    untested = "\n".join(f"- {row['what']} {row['why']} {_to_claims(row['claims'])}" for row in told["untested"])
    questions = f"## What was asked\n\n{_READING}\n{markdown_table(asked)}\n"
    not_tested = f"## What we could not test, and why\n\n{untested}\n"
    return "\n".join([_OPENING, f"{summary}\n", f"{figure}\n", questions, not_tested, _MORE])


def _filled(sentence, records):
    """A sentence with the recorded result in place of each "{NN: its name}"."""
    for number, name in re.findall(r"\{(\d\d): ([^}]+)\}", sentence):
        [notebook] = [notebook for notebook in records if notebook.startswith(number)]
        [found] = [result for result in records[notebook] if result["name"] == name]
        sentence = sentence.replace(f"{{{number}: {name}}}", "{value:.1f} [{low:.1f}, {high:.1f}]".format(**found))
    return sentence


def _to_claims(ids):
    return ", ".join(f"[{name}](docs/ledger.md#{name.lower()})" for name in ids.split(", "))


def _answer(claim, rows):
    """The answer to its question by rule; an asterisk where the expectation was registered."""
    answers = [f"{claim.reading.capitalize()}, read in the code"] if claim.read else []
    if found := badges.outcome(claim, rows):
        cores = [row for row in rows if row["core"]]
        answer = f"No gain above {cores[0]['smallest']:g} points" if found == badges.SMALL else _ANSWERS[found]
        answer = answer.lower() if answers else answer
        answers.append(answer + "*" * badges.is_registered(found, cores))
    return "; measured: ".join(answers) or "Not run yet"


def _question(claim, rows):
    """A row of the table: the question, the answer, and the effects that have words of their own."""
    shown = [row for row in rows if "plot" in row]
    counts = list(dict.fromkeys(f"{row['result']['n']}, {row['trainings']}" for row in shown))
    numbers = sorted({row["notebook"] for row in shown or rows} | ({claim.notebook} - {""}))
    return {
        "question": claim.question,
        "answer": _answer(claim, rows),
        "effect": "<br>".join(map(_effect, shown)) or f"{claim.reason.partition('. ')[0]}." * bool(claim.read),
        "n, trainings": "<br>".join(counts),
        "where": ", ".join([*(f"[{n[:2]}](notebooks/{n}.ipynb)" for n in numbers), _to_claims(claim.id)]),
    }


def _effect(row):
    result, sign = row["result"], "+" if row["result"]["unit"] == "points" or row["name"].startswith("relative") else ""
    unit = " %" if result["unit"] == "%" else ""
    return f"{row['plot']}: {result['value']:{sign}.1f}{unit} [{result['low']:.1f}, {result['high']:.1f}]"


def effects(claims, records):
    """The rows of `forest.svg`: what the claims with a question show in points."""
    lines = []
    for claim in (claim for claim in claims if claim.question):
        rows = badges.recorded(claim, records)
        shown = [row for row in rows if "plot" in row and row["result"]["unit"] == "points"]
        for row in shown:
            numbers = {name: row["result"][name] for name in ("value", "low", "high")}
            more = {"registered": "registered" in row, "smallest": row.get("smallest")}
            head = (claim.question, _answer(claim, rows)) if row is shown[0] else ()
            lines.append({"head": head, "label": row["plot"], **numbers, **more})
    return lines


def ledger(claims, told, records):
    """The page of all claims: counts of badges, a section a claim, what was left out."""
    sections = [_section(claim, badges.recorded(claim, records), badges.badge(claim, records)) for claim in claims]
    said = f"## Claims\n\n{_counts(claims, records)}\n"
    left = "\n".join(f"- **{r['claims']}** ({r['source']}): {r['what']} {r['why']}" for r in told["left_out"])
    return "\n".join([_LEDGER, said, *sections, f"## Left out\n\n{left}\n"])


def _counts(claims, records):
    """How many claims there are of each outcome, and how many of those that were measured were registered."""
    found = [(claim, badges.outcome(claim, badges.recorded(claim, records))) for claim in claims if not claim.verdict]
    words = {k: word.lower() for k, word in _ANSWERS.items()} | {badges.SMALL: "no gain above X"}
    unmeasured = {True: "read in the code only", False: "not run yet"}
    counts = Counter(words.get(outcome, unmeasured[bool(claim.read)]) for claim, outcome in found)
    counts[badges.NOT_TESTABLE] = len(claims) - len(found)
    registered = sum("registered" in badges.badge(claim, records) for claim in claims)
    said = "; ".join(f"{name} {count}" for name, count in counts.most_common())
    return f"There are {len(claims)}: {said}. Of those measured, {registered} rest on registered expectations alone."


def _section(claim, rows, badge):
    """A claim in a few lines: sentence, badge, results, reason."""
    earlier = f"; took in {claim.merges}" if claim.merges else ""
    lines = [f"### {claim.id}\n", f"{claim.text} *({claim.source}{earlier})*\n", f"**{badge}**\n"]
    lines += [f"Published: {claim.published}.\n"] if claim.published else []
    lines += [f"Read at {claim.read}.\n"] if claim.read else []
    if rows:
        lines.append("\n".join(f"- {row['notebook'][:2]} · {badges.line(row)}" for row in rows) + "\n")
    numbers = sorted({row["notebook"] for row in rows} | ({claim.notebook} - {""}))
    where = ", ".join(f"[{name[:2]}](../notebooks/{name}.ipynb)" for name in numbers)
    return "\n".join([*lines, f"{claim.reason} *What would change it:* {claim.would_change} *Where:* {where}\n"])
