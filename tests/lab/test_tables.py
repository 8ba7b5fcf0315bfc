"""The tables of README and guide: between their markers, and nowhere else."""

import csv
import re
from types import SimpleNamespace

import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.lab import tables
from mipo_nb.lab.notebooks import collection

TEXT = "before\n<!-- bench: written by mipo-nb tables -->\nold\n<!-- end bench -->\nafter\n"


def test_what_stands_between_the_markers_is_replaced():
    assert tables._between(TEXT, "bench", "new", "README.md") == TEXT.replace("old", "new")


@pytest.mark.parametrize("lost", ["<!-- bench: written by mipo-nb tables -->", "<!-- end bench -->"])
def test_a_page_without_its_marker_is_not_left_as_it_was(lost):
    with pytest.raises(UserError, match=r"README.md has lost its marker '<!-- bench: ... -->'"):
        tables._between(TEXT.replace(lost, ""), "bench", "new", "README.md")


@pytest.mark.parametrize("other", ["00_start_here", "13_reasoning_without_labels", "40_what_the_pair_swaps"])
def test_the_table_at_a_glance_is_of_notebook_12_whoever_else_records_the_same_names(other):
    names = ("how many", "for the user, recital-proof", "misapplied")

    def recorded(*values):
        lines = [{"name": f"kept trainings: {n}", "value": v} for n, v in zip(names, values, strict=True)]
        return SimpleNamespace(
            results=[{**line, "low": line["value"] - 1, "high": line["value"] + 1} for line in lines]
        )

    of_12 = {"12_measuring_personalization": recorded(8.0, 6.5, 2.25)}
    table = tables._glance({other: recorded(99.0, 55.5, 44.5), **of_12})
    assert table == tables._glance({**of_12, other: recorded(99.0, 55.5, 44.5)}) == tables._glance(of_12)
    assert "keeps 6.5 more" in table and "5.5 to 7.5, 8 trainings" in table and "| +6.5 [+5.5, +7.5] |" in table


def test_every_recorded_number_has_its_line():
    text = (project_root() / "results" / "recorded.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    recorded = [(name[:2], result) for name, notebook in collection().items() for result in notebook.results]
    assert len(lines) == len(recorded) > 600
    for line, (number, result) in zip(lines, recorded, strict=True):
        assert (line["notebook"], line["name"], line["unit"]) == (number, result["name"], result["unit"])
        assert float(line["value"]) == pytest.approx(result["value"], rel=1e-5)
        assert (line["low"] == "") == (result["low"] is None)


def test_the_ledger_names_what_changed_since_each_run():
    text = (project_root() / "docs" / "ledger.md").read_text(encoding="utf-8")
    for name, notebook in collection().items():
        if notebook.results:
            [line] = [line for line in text.splitlines() if line.startswith(f"- [{name}]")]
            assert line.endswith(notebook.changed_since or ".")


def test_the_readme_is_short_and_has_a_line_for_every_notebook():
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    listed = [line for line in text.splitlines() if line.startswith("- [") and "notebooks/" in line]
    assert re.findall(r"notebooks/(\w+)\.ipynb", "\n".join(sorted(listed))) and all(
        name in text for name in collection()
    )
    for line in listed:
        assert len(line.rpartition("): ")[2].split()) <= 12, line
