"""One writer at a time, and what makes a finished notebook count as finished."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mipo_nb.base.errors import UserError
from mipo_nb.command import runner, state
from mipo_nb.lab import runs
from mipo_nb.lab.notebooks import Notebook

HOLDS = """
import sys, time
from pathlib import Path
from mipo_nb import state
with state.alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_writer_until_its_process_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="Another run is writing to"), state.alone(tmp_path):
        pass
    with state.alone(tmp_path / "another"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with state.alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"), state.alone(tmp_path / "file" / "out"):
        pass


@pytest.fixture
def key(tmp_path):
    """The key of a call of a one-cell notebook with some parameters."""

    def of(source="1", profile="smoke", inject=True, **parameters):
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "01_tiny.ipynb")
        return runner.Call(Notebook(tmp_path / "01_tiny.ipynb"), profile, parameters, inject=inject).key

    return of


def test_whatever_a_notebook_stands_on_changes_its_key(tmp_path, monkeypatch, key):
    data = tmp_path / "mine.jsonl"
    data.write_text("{}")
    given = {"DATA": str(data), "SEED": 1}
    first = key(**given)
    assert key(**given) == first
    others = [
        key("2", **given),
        key(profile="laptop", **given),
        key(**{**given, "SEED": 2}),
        key(DATA=str(data)),
        key(inject=False, **given),
    ]
    data.write_text("{} ")
    others.append(key(**given))
    monkeypatch.setattr(runner, "project_root", lambda: tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "some.jsonl").write_text("{}")  # users of the checkout
    others.append(key(**given))
    (tmp_path / "results").mkdir()
    for content in ("{}", "{} "):  # trainings that were kept, for the notebooks that read them
        (tmp_path / "results" / "some.jsonl").write_text(content)
        assert key(**given) == others[6]
        others.append(key('ledger.Ledger("some")', **given))
    monkeypatch.setattr(runner, "package_version", lambda: "another")
    others.append(key(**given))
    monkeypatch.setattr(runner, "library_versions", lambda: {"torch": "another"})
    others.append(key(**given))
    assert len({first, *others}) == 1 + len(others)


def test_a_folder_among_the_parameters_is_never_taken_as_unchanged(tmp_path, key):
    assert key(MODEL=str(tmp_path)) is None
    state.keep(tmp_path, None, 3.0)
    assert state.finished(tmp_path, None) is None


def test_only_the_same_key_is_finished(tmp_path):
    assert state.finished(tmp_path, "key") is None
    state.keep(tmp_path, "key", 3.5)
    assert state.finished(tmp_path, "key") == 3.5 and state.finished(tmp_path, "other") is None
    (tmp_path / "state.json").write_text('{"key": "k')
    assert state.finished(tmp_path, "key") is None


def test_a_run_that_begins_is_not_finished(tmp_path):
    folder = runs.start("00_start_here", "smoke", output_dir=tmp_path).folder
    state.keep(folder, "key", 1.0)
    runs.start("00_start_here", "smoke", output_dir=tmp_path)
    assert state.finished(folder, "key") is None


def counted(n, folder):
    with (folder / "calls").open("a") as file:
        file.write("x")
    return n + (folder / "calls").stat().st_size


def test_a_fresh_run_computes_every_step_once_more(tmp_path, monkeypatch):
    run = runs.start("00_start_here", "smoke", output_dir=tmp_path)
    assert run.step("count", counted, 1) == 2 and run.step("count", counted, 1) == 2
    time.sleep(0.05)
    monkeypatch.setenv("MIPO_NB_FRESH", str(time.time()))
    time.sleep(0.05)
    again = runs.start("00_start_here", "smoke", output_dir=tmp_path)
    assert again.step("count", counted, 1) == 2  # its folder was empty again
    assert [again.step("count", counted, 1), again.steps[0]["found"], again.steps[1]["found"]] == [2, False, True]


def test_ratings_of_a_person_are_not_cleaned_away(tmp_path):
    ratings = tmp_path / "15_your_model_your_users" / "blind_ratings.csv"
    ratings.parent.mkdir()
    ratings.write_text("pair,verdict\n")
    with pytest.raises(UserError, match="a person's ratings"):
        state.clean(tmp_path, ["15_your_model_your_users"])
    assert ratings.is_file()
