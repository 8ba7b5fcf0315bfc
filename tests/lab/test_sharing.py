"""Steps that two processes ask for at once, that were cut off, or that are to be computed anew; runs in one folder."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from mipo_nb.base import files
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.lab import runs

MODULE = """
import sys, time
from pathlib import Path
from mipo_nb.lab import runs, settings

def slow(n, folder):
    with (folder / "begun").open("a") as file:
        file.write("x")
    (folder / "partial").write_text("kept")
    until = time.time() + 40
    while not Path("go").exists() and time.time() < until:
        assert (folder / "partial").read_text() == "kept"
        time.sleep(0.01)
    return n

if __name__ == "__main__":
    import slow_step
    run = runs.Run(settings.resolve("smoke", sys.argv[1]), Path("runs", "smoke", sys.argv[1]).absolute())
    print(run.step("the slow one", slow_step.slow, 3), run.steps[0]["found"])
"""
WAITING = "waiting for another run that computes the slow one ...\n"


@pytest.fixture
def process(tmp_path):
    """A function that starts a process which asks for one step, from a notebook of its own; the step ends at `go`."""
    (tmp_path / "slow_step.py").write_text(MODULE)
    begun = []

    def start(notebook, **environment):
        paths = f"{tmp_path}:{project_root()}"
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", **environment}
        command = [sys.executable, "slow_step.py", notebook]
        begun.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path))
        return begun[-1]

    yield start
    for one in begun:
        one.kill()
        one.communicate()


def times_begun(tmp_path):
    return sum(file.stat().st_size for file in tmp_path.glob("runs/smoke/steps/*/begun"))


def wait_until_begun(tmp_path, process):
    until = time.time() + 60
    while not times_begun(tmp_path):
        assert process.poll() is None and time.time() < until
        time.sleep(0.01)


def test_two_processes_share_one_computation(process, tmp_path):
    first = process("01_first")
    wait_until_begun(tmp_path, first)
    second = process("02_second")
    assert second.stdout.readline() == WAITING
    (tmp_path / "go").touch()
    assert first.communicate(timeout=60)[0] == "3 False\n"
    assert second.communicate(timeout=60)[0] == "3 True\n"
    assert times_begun(tmp_path) == 1


def test_a_killed_process_leaves_no_lock_and_who_waits_goes_on(process, tmp_path):
    first = process("01_first")
    wait_until_begun(tmp_path, first)
    second = process("02_second")
    assert second.stdout.readline() == WAITING
    first.kill()
    first.wait()
    (tmp_path / "go").touch()
    assert second.communicate(timeout=60)[0] == "3 False\n"
    assert times_begun(tmp_path) == 2


def test_a_fresh_run_leaves_what_another_is_computing(process, tmp_path):
    first = process("01_first")
    wait_until_begun(tmp_path, first)
    time.sleep(0.1)
    second = process("02_second", MIPO_NB_FRESH=str(time.time()))
    assert second.stdout.readline() == WAITING
    (tmp_path / "go").touch()
    assert first.communicate(timeout=60)[0] == "3 False\n"
    assert second.communicate(timeout=60)[0] == "3 True\n"  # newer than the moment
    assert times_begun(tmp_path) == 1


# --- in one process ---

calls = []


@pytest.fixture
def run(tmp_path):
    calls.clear()
    return runs.start("01_test", "laptop", output_dir=str(tmp_path))


def doubled(x, folder):
    calls.append(sorted(file.name for file in folder.iterdir()))
    (folder / "partial").write_text("kept")
    return 2 * x


def result_of(run):
    [file] = run.folder.parent.glob("steps/*/result.json")
    return file


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"seconds": 1.0, "peak_memory": 5, "val',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b'{"seconds": 1.0}',
        b"\0" * 99,
    ],
)
def test_half_a_result_is_none(run, content):
    assert run.step("double", doubled, 3) == 6
    result_of(run).write_bytes(content)
    assert run.step("double", doubled, 3) == 6 == run.step("double", doubled, 3)
    assert calls == [[], ["partial", "result.json"]]
    assert [step["found"] for step in run.steps] == [False, False, True]


@pytest.mark.parametrize("content", [b"", b'["a", "b', b"\xff\xfe"])
def test_half_a_kept_batch_is_none(tmp_path, content):
    (tmp_path / "batch.json").write_bytes(content)
    assert files.kept(tmp_path / "batch.json", lambda: ["a", "é"]) == ["a", "é"]
    assert files.kept(tmp_path / "batch.json", lambda: pytest.fail("it is there")) == ["a", "é"]


def test_fresh_goes_by_the_age_of_the_result(run, monkeypatch):
    run.step("double", doubled, 3)
    file, now = result_of(run), time.time()
    os.utime(file, (now - 100, now - 100))
    (file.parent / "looked").touch()  # which makes the folder newer than what it holds
    monkeypatch.setenv("MIPO_NB_FRESH", str(now - 50))
    assert run.step("double", doubled, 3) == 6
    os.utime(file.parent, (now - 100, now - 100))
    assert run.step("double", doubled, 3) == 6
    assert calls == [[], []] and [step["found"] for step in run.steps] == [False, False, True]


def test_fresh_removes_what_was_left_half_done_before_it(run, monkeypatch):
    run.step("double", doubled, 3)
    file, now = result_of(run), time.time()
    file.unlink()
    os.utime(file.parent, (now - 100, now - 100))
    monkeypatch.setenv("MIPO_NB_FRESH", str(now - 50))
    run.step("double", doubled, 3)
    file.unlink()  # cut off after the moment: gone on with
    run.step("double", doubled, 3)
    assert calls == [[], [], ["partial"]]
    assert [path.name for path in file.parent.parent.iterdir() if path.is_dir()] == [file.parent.name]


def test_a_file_system_without_locks_is_worked_on_all_the_same(run, monkeypatch, capsys):
    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    assert run.step("double", doubled, 3) == 6 and capsys.readouterr().out == ""


def test_the_later_run_of_a_notebook_has_the_folder(run, tmp_path):
    run.record("gain", 1.0)
    later = runs.start("01_test", "laptop", seed=5, output_dir=str(tmp_path))
    other = runs.start("02_other", "laptop", output_dir=str(tmp_path))
    for use in (lambda: run.record("gain", 2.0), lambda: run.step("double", doubled, 3)):
        with pytest.raises(
            UserError, match="Another run of 01_test has begun in .*01_test and writes there now"
        ) as caught:
            use()
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    later.record("gain", 3.0)
    other.record("gain", 4.0)
    assert json.loads((run.folder / "results.json").read_text())[0]["value"] == 3.0
    assert json.loads((run.folder / "manifest.json").read_text())["seed"] == 5
    assert later.step("double", doubled, 3) == 6 and calls == [[]]  # what the earlier one computed is found
