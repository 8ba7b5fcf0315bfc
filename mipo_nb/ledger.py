"""RESULTS.md and the tables of README and instructor's guide, written from what the committed notebooks recorded."""

import csv
import re

from mipo_nb import report, runner
from mipo_nb.plots import markdown_table
from mipo_nb.runs import project_root, write_atomically

_GLANCE = (
    "gain in preferences kept, all kinds, tuned",
    "gain in preferences kept, all kinds, control",
    "gain in preferences kept, all kinds, tuned, without copied phrases",
    "gain in preferences kept, seen kinds, tuned",
    "gain in preferences kept, seen kinds, control",
    "gain in preferences kept, unseen kinds, tuned",
    "gain in PMI, tuned",
    "gain in PMI, control",
    "gain in identification by base likelihood, auc",
    "gain in identification by sentence encoder, auc",
    "change in repetition, tuned",
    "change in refusal, tuned",
    "change in question identified, tuned",
    "change in words, tuned",
)


def write(*, check=False):
    """Bring RESULTS.md, README.md and docs/instructor.md up to date. Returns the names of those that were not; `check`
    writes nothing."""
    stamped = {name: runner.read(path) for name, path in runner.notebook_paths().items()}
    root = project_root()
    readme = (root / "README.md").read_text(encoding="utf-8")
    wanted = {"RESULTS.md": _results(stamped)}
    readme = _between(readme, "notebooks", _notebook_table())
    readme = _between(readme, "bench", _bench(root / "figures" / "bench.csv"))
    wanted["README.md"] = _between(readme, "results", _glance(stamped))
    guide = (root / "docs" / "instructor.md").read_text(encoding="utf-8")
    wanted["docs/instructor.md"] = _between(guide, "parts", _parts(stamped))
    stale = []
    for name, text in wanted.items():
        file = root / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                write_atomically(file, text)
    return stale


def _between(text, name, content):
    """`text` with what stands between the markers of this name replaced."""
    pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    return pattern.sub(lambda m: m.group(1) + content + "\n" + m.group(2), text)


def _stamp(notebook):
    return notebook.metadata.get("mipo_nb", {})


def _claim(notebook):
    lines = notebook.cells[0].source.splitlines()
    return next(line.strip("* ") for line in lines if line.startswith("**"))


def overview():
    """One dictionary per notebook: `name`, `main`, `minutes` and `memory` as measured ("" where not), `needs`, `claim`."""
    rows = []
    for name, path in runner.notebook_paths().items():
        notebook = runner.read(path)
        manifest = _stamp(notebook).get("manifest")
        rows.append(
            {
                "name": name,
                "main": _stamp(notebook).get("main", False),
                "minutes": f"{_seconds_alone(manifest) / 60:.0f}" if manifest else "",
                "memory": f"{manifest['peak_memory'] / 1e9:.1f} GB" if manifest else "",
                "needs": notebook.cells[0].source.partition("needs: ")[2].partition(".*")[0],
                "claim": _claim(notebook),
            }
        )
    return rows


def _notebook_table():
    return markdown_table(
        [
            {
                "notebook": f"[{row['name']}](notebooks/{row['name']}.ipynb)",
                "`make run`": "yes" if row["main"] else "",
                "minutes": row["minutes"],
                "memory": row["memory"],
                "what it shows": row["claim"],
            }
            for row in overview()
        ]
    )


def _seconds_alone(manifest):
    """What the notebook would have taken had no earlier one left it any step, in seconds."""
    return manifest["seconds"] + sum(step["seconds"] for step in manifest["steps"] if step["found"])


def _parts(stamped):
    """Minutes of each notebook alone, and of its longest steps, those of a third of a minute or more."""
    rows = []
    for name, notebook in stamped.items():
        manifest = _stamp(notebook).get("manifest")
        if manifest:
            longest = sorted(manifest["steps"], key=lambda step: -step["seconds"])[:4]
            parts = ", ".join(f"{step['name']} {step['seconds'] / 60:.1f}" for step in longest if step["seconds"] >= 20)
            rows.append({"notebook": name, "minutes": f"{_seconds_alone(manifest) / 60:.1f}", "of which": parts})
    return markdown_table(rows)


def _glance(stamped):
    found = {r["name"]: r for n in stamped.values() for r in _stamp(n).get("results", [])}
    return markdown_table(
        [{"measure": name, "result": report.formatted(found[name])} for name in _GLANCE if name in found]
        or [{"measure": "none yet", "result": ""}]
    )


def _bench(file):
    """What `mipo-nb bench` wrote: rates of both routes, their ratio, and the device they were measured on."""
    if not file.exists():
        return "Not measured yet: run `make bench`."
    rows = []
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        rates = {k: f"{float(row[k]):.3g} {row['unit']}" if row[k] else "" for k in ("ours", "reference")}
        ratio = f"{float(row['ratio']):.1f}" if row["ratio"] else ""
        share = f"{float(row['share_of_peak']):.0%}" if row["share_of_peak"] else ""
        rows.append({"what": row["what"], **rates, "times": ratio, "share of peak": share, "device": row["device"]})
    return markdown_table(rows)


def _results(stamped):
    parts = [
        "# Results\n",
        "Generated by `mipo-nb tables` from the committed notebooks; do not edit. Intervals are 95%, clustered by user. "
        "All figures are of the `laptop` profile: a 135-million-parameter model on two CPU cores. PMI under the base "
        "model is the objective attained, not evidence of personalization.\n",
    ]
    for name, notebook in stamped.items():
        stamp = _stamp(notebook)
        if not stamp.get("results"):
            continue
        m = stamp["manifest"]
        parts.append(f"## [{name}](notebooks/{name}.ipynb)\n")
        versions = ", ".join(f"{k} {m['libraries'][k]}" for k in ("torch", "transformers", "trl", "peft"))
        parts.append(f"Model `{m['model']}`, seed {m['seed']}, {m['device']} in {m['dtype']}; {versions}.\n")
        rows = [{"result": r["name"], "value": report.formatted(r)} for r in stamp["results"]]
        parts.append(markdown_table(rows) + "\n")
    parts.append("## Published numbers beside ours\n")
    parts.append(
        "The paper (arXiv 2603.19294, v3 and later) reports relative gains over prompting of 3-16% for personalization, "
        "and 51% for Qwen2.5-1.5B-Instruct. Those are win rates by a judge on PRISM, Community Alignment and "
        "Multifaceted-Bench with models of 1 to 7 billion parameters; ours are preferences checked by rules with a model "
        "of 0.135 billion. They cannot be compared number by number: verdict *not yet tested at the paper's scale*.\n"
    )
    return "\n".join(parts)
