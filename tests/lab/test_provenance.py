"""What a manifest says of the checkout that made a run."""

import json
import subprocess

import pytest

from mipo_nb.lab import provenance, runs

FILES = ("mipo_nb/a.py", "data/users.jsonl", "pyproject.toml", "constraints.txt", "docs/page.md", "notebooks/00.ipynb")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A real checkout with a commit, which is taken for the project's."""
    root = tmp_path / "project"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1\n")
    git(root, "init", "-q")
    commit(root)
    monkeypatch.setattr(provenance, "project_root", lambda: root)
    return root


def git(root, *command):
    own = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *own, *command], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Change")
    return git(root, "rev-parse", "HEAD")


def git_of_a_manifest(tmp_path):
    run = runs.start("01_pointwise_mutual_information", "smoke", output_dir=tmp_path / "runs")
    return json.loads((run.folder / "manifest.json").read_text())["git"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["changed", "staged", "removed"])
def test_a_checkout_is_dirty_where_code_or_data_differ_from_its_commit(checkout, name, how):
    makes_numbers = not name.startswith(("docs", "notebooks"))
    clean = {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert provenance.git_state() == clean
    (checkout / name).unlink() if how == "removed" else (checkout / name).write_text("2\n")
    if how == "staged":
        git(checkout, "add", "-A")
    assert provenance.git_state() == {**clean, "dirty": makes_numbers}
    after = commit(checkout)
    assert provenance.git_state() == {"commit": after, "dirty": False}


@pytest.mark.parametrize(("name", "dirty"), [("mipo_nb/b.py", True), ("data/more.jsonl", True), ("docs/new.md", False)])
def test_a_file_that_git_does_not_know_counts_too(checkout, name, dirty):
    (checkout / name).write_text("1\n")
    assert provenance.git_state()["dirty"] is dirty
    (checkout / ".gitignore").write_text("*.py\n*.jsonl\n")
    assert provenance.git_state()["dirty"] is False


def test_a_manifest_says_it(checkout, tmp_path):
    assert git_of_a_manifest(tmp_path) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "docs" / "page.md").write_text("2\n")
    assert git_of_a_manifest(tmp_path)["dirty"] is False
    (checkout / "data" / "users.jsonl").write_text("2\n")
    assert git_of_a_manifest(tmp_path)["dirty"] is True


def test_outside_of_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() is None
