"""Layout, lint and spelling of code, notebooks and prose; the workflow's schema; what a repository should have."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mipo_nb.base.files import project_root
from mipo_nb.lab.notebooks import collection

ROOT = project_root()
CODE = ["mipo_nb", "tests", "notebooks", "docs"]
NO_MISTAKES = "nam,jaques,ser,te,cautio,nd"  # names, words of other languages, and the end of "2nd"


def run(*command):
    """(exit code, output) of a Python module run as a program in the project's root."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_code_and_notebooks_are_laid_out_and_clean(command):
    code, told = run("ruff", *command, "--no-cache", *CODE)
    assert code == 0, told


def test_code_and_prose_are_spelt_right(tmp_path):
    for name, notebook in collection().items():
        sources = "\n".join(cell.source for cell in notebook.content.cells)
        (tmp_path / f"{name}.txt").write_text(sources, encoding="utf-8")
    prose = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "data").glob("*.md")]
    # Not the tests, which misspell on purpose, nor the words of other languages.
    places = [ROOT / "mipo_nb", *prose, tmp_path]
    code, told = run(
        "codespell_lib", "--skip", "*.pyc,*/wishes/grammar.py", "--ignore-words-list", NO_MISTAKES, *map(str, places)
    )
    assert code == 0, told


def test_a_misspelling_is_found(tmp_path):
    (tmp_path / "wrong.txt").write_text("teh langauge")
    assert run("codespell_lib", str(tmp_path))[0] != 0


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_workflows_keep_to_their_schema_and_call_the_same_targets(workflow):
    code, told = run("check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))
    assert code == 0, told
    targets = Path(ROOT / "Makefile").read_text(encoding="utf-8").partition(".PHONY:")[2].splitlines()[0].split()
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    called = [step["run"].split() for job in jobs for step in job["steps"] if "run" in step]
    assert called and all(words[0] == "make" and set(words[1:]) <= set(targets) for words in called)


def test_the_repository_says_how_it_may_be_used_cited_and_changed():
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "CC BY 4.0" in (ROOT / "LICENSE-TEXT.md").read_text(encoding="utf-8")
    assert "mipo-nb run NN --profile laptop --publish" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code, told = run("check_jsonschema", "--builtin-schema", "vendor.citation-file-format", str(ROOT / "CITATION.cff"))
    assert code == 0, told
