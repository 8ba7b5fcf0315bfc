"""RESULTS.md, the ledger, the tables of README and docs, and what notebooks open with, from what they recorded."""

import csv
import io
import re

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.lab import claims, colab, forest, headers, pages
from mipo_nb.lab.notebooks import collection
from mipo_nb.lab.plots import markdown_table

_KEPT = "kept trainings: "
_MAIN = "12_measuring_personalization"  # others record results of the same names
_GLANCE = {  # what stands in the README's table: its words, and what `_MAIN` recorded
    "kept for the user who wished it": f"{_KEPT}for the user, recital-proof",
    "the control, sides shuffled, {controls} trainings": "kept trainings, control: for the user, recital-proof",
    "MIPO minus control, seed by seed": f"{_KEPT}MIPO minus control",
    "the price: a wish acts where it must not": f"{_KEPT}misapplied",
    "the price: repeated phrases": f"{_KEPT}repetition",
}

_RUNS = """
## What the notebooks ran on

Modules of the package that have changed since a run are named with it: the next run may give other numbers. Runs from before this was recorded name their commit; take all modules as changed.

"""


def write(*, check=False):
    """Bring RESULTS.md with its figure, results/recorded.csv, README.md, pages of docs/, the first cells of notebooks and
    their copies for Colab up to date. Returns the names of those that were not; `check` writes nothing. Raises `UserError`
    for a file that lacks one of the markers between which its tables stand, and as `badges.recorded` does."""
    notebooks, root, stale, urls = collection(), project_root(), [], colab.addresses()
    records = {name: notebook.results for name, notebook in notebooks.items()}
    read, told = claims.read(), claims.texts()
    texts = {
        "RESULTS.md": pages.results(read, told, records),
        "docs/ledger.md": pages.ledger(read, told, records) + _runs(notebooks),
        "docs/results.svg": forest.svg(pages.effects(read, records)),
        "results/recorded.csv": _recorded(records, read),
    }
    address = urls.get("Repository", "")
    for notebook in notebooks.values():
        texts |= _with_header(notebook, headers.header(notebook, notebooks, address))
    texts |= colab.copies(notebooks, address)
    marked = {
        "README.md": {"badges": lambda _: colab.badges(urls), "results": _glance},
        "docs/running.md": {"notebooks": _notebook_table, "bench": _bench},
        "docs/instructor.md": {"parts": _parts},
    }
    for name, tables in marked.items():
        texts[name] = (root / name).read_text(encoding="utf-8")
        for marker, table in tables.items():
            texts[name] = _between(texts[name], marker, table(notebooks), name)
    for name, text in texts.items():
        file = root / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                write_atomically(file, text)
    return stale


def _with_header(notebook, header):
    """{file: its text} of a notebook that is to open with `header`; nothing where it does so already."""
    import nbformat

    if notebook.content.cells[0].source == header:
        return {}
    notebook.content.cells[0].source = header
    return {f"notebooks/{notebook.path.name}": nbformat.writes(notebook.content) + "\n"}


def _between(text, marker, content, name):
    """`text` of the file `name`, with `content` in place of what stands between the two markers."""
    pattern = re.compile(rf"(<!-- {marker}: .*? -->\n).*?(<!-- end {marker} -->)", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"{name} has lost its marker '<!-- {marker}: ... -->' or the end of it; put both back.")
    return pattern.sub(lambda m: m.group(1) + content + "\n" + m.group(2), text)


def overview():
    """A dictionary per notebook: `name`, `main`, `needs`, `claim`; `minutes`, `memory` as text ("" if not measured)."""
    fields = ("name", "main", "needs", "claim")
    return [{name: getattr(n, name) for name in fields} | headers.measured(n) for n in collection().values()]


def _notebook_table(notebooks):
    rows = []
    for name, notebook in notebooks.items():
        first = {"notebook": f"[{name}](../notebooks/{name}.ipynb)", "`make run`": "yes" if notebook.main else ""}
        rows.append({**first, **headers.measured(notebook), "what it shows": notebook.claim})
    return markdown_table(rows)


def _parts(notebooks):
    """Minutes of each notebook alone, and of its longest steps, those of a third of a minute or more."""
    rows = []
    for name, notebook in notebooks.items():
        if manifest := notebook.stamp.get("manifest"):
            longest = sorted(manifest["steps"], key=lambda step: -step["seconds"])[:4]
            parts = ", ".join(f"{step['name']} {step['seconds'] / 60:.1f}" for step in longest if step["seconds"] >= 20)
            rows.append({"notebook": name, "minutes": f"{headers.seconds_alone(manifest) / 60:.1f}", "of which": parts})
    return markdown_table(rows)


def _glance(notebooks):
    """The main result in two sentences and a table, from what notebook 12 recorded."""
    recorded = {result["name"]: result for result in notebooks[_MAIN].results}
    controls = recorded.get("kept trainings, control: how many", {}).get("value", 0)
    rows = [
        {
            "what": what.format(controls=f"{controls:.0f}"),
            "change, points": "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**recorded[name]),
        }
        for what, name in _GLANCE.items()
        if name in recorded
    ]
    if f"{_KEPT}how many" not in recorded:
        return markdown_table(rows or [{"measure": "none yet", "result": ""}])
    names = ("for the user, recital-proof", "misapplied", "how many")
    gain, wrong, trainings = (recorded[_KEPT + name] for name in names)
    return (
        f"**Of 100 recital-proof wishes of new people, the trained model keeps {gain['value']:.1f} more for the user who wished them** "
        f"(95% interval {gain['low']:.1f} to {gain['high']:.1f}, {trainings['value']:.0f} trainings). It pays: in {wrong['value']:.1f} "
        f"of 100 cases more, a wish acts where it must not, as in a letter to somebody else.\n\n{markdown_table(rows)}"
    )


def _bench(notebooks):
    """The table of `mipo-nb bench`: rates of both routes, their ratio, and the device they were measured on."""
    file = project_root() / "figures" / "bench.csv"
    if not file.exists():
        return "Not measured yet: run `make bench`."
    rows = []
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        rates = {k: f"{float(row[k]):.3g} {row['unit']}" if row[k] else "" for k in ("ours", "reference")}
        ratio = f"{float(row['ratio']):.1f}" if row["ratio"] else ""
        share = f"{float(row['share_of_peak']):.0%}" if row["share_of_peak"] else ""
        rows.append({"what": row["what"], **rates, "times": ratio, "share of peak": share, "device": row["device"]})
    return markdown_table(rows)


def _recorded(records, read):
    """The text of a CSV file with every recorded number; of those that a claim stands on, on how many trainings and which
    commit held the expectation."""
    text, fields, listed = io.StringIO(), ("name", "value", "low", "high", "n", "unit"), ("trainings", "registered")
    told = {
        (result.get("notebook", claim.notebook), result["name"]): result for claim in read for result in claim.results
    }
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["notebook", *fields, *listed])
    for name, results in records.items():
        for result in results:
            row = [f"{result[k]:.6g}" if isinstance(result[k], float) else result[k] for k in fields]
            writer.writerow([name[:2], *row, *(told.get((name, result["name"]), {}).get(k, "") for k in listed)])
    return text.getvalue()


def _runs(notebooks):
    return _RUNS + "".join(_part(notebook) for notebook in notebooks.values() if notebook.results)


def _part(notebook):
    """A line on a run: from which commit, with what, and what has changed since."""
    m, name, git = notebook.stamp["manifest"], notebook.name, notebook.stamp["manifest"]["git"] or {}
    versions = ", ".join(f"{k} {m['libraries'][k]}" for k in ("torch", "transformers", "trl", "peft"))
    commit = f"commit {git['commit'][:7]}{', with changes not committed' * git['dirty']}; " if git else ""
    ran = f"{commit}model `{m['model']}`, seed {m['seed']}, {m['device']} in {m['dtype']}; {versions}."
    return f"- [{name}](../notebooks/{name}.ipynb): {' '.join(filter(None, (ran, notebook.changed_since)))}\n"
