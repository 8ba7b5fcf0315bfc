"""Processes killed at random moments, without a chance to clean up: what they had done is there, and the end is the same.

This file is also the program that does it: `python test_kills.py FOLDER KILLS` imports once, and forks a process that
samples, scores, trains and scores again, real weights and all, so often that the killing and not the starting takes
the time.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mipo_nb.base import files
from mipo_nb.base.files import project_root
from mipo_nb.command import state
from mipo_nb.lab import runs, settings

KILLS = 20
pytestmark = pytest.mark.whole
NAME = "embedded:smollm2-135m"


# --- sampling, scoring and training, killed in a process of their own ---


def work(folder, note):
    """A small MIPO in steps, as the notebooks do it; `note(kind)` is called before each batch. Ends in result.json."""
    from transformers import TrainerCallback

    from mipo_nb import generation, models, pairs, scoring, sources, training
    from mipo_nb.engine import callbacks

    def noting(kind):
        return lambda file, compute: files.kept(file, lambda: (note(kind), compute())[1])

    generation.kept, scoring.kept = noting("sampling"), noting("scoring")

    class Noting(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            note("training")

    callbacks.reporting = Noting
    callbacks.EVERY = callbacks.PATIENCE = 0  # after every step, however quick it is here
    run = runs.Run(settings.resolve("smoke", "01_killed"), folder / "01_killed")
    run.folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = models.load(NAME, dtype="float32")
    rows = sources.personal_prompts("train", n=8, seed=0)
    how = generation.Sampling(max_new_tokens=24, batch_size=2)
    asked = pairs.positive_conversations(rows), pairs.negative_conversations(rows, "random_context")
    sides = [
        list(run.step(f"side {k}", generation.sample, model, tokenizer, some, how, seed=k)["text"])
        for k, some in enumerate(asked)
    ]
    # What was cut off before its first sentence is empty; here every row is to have a pair.
    sides = [[f"{text or 'So'} {k}." for k, text in enumerate(side)] for side in sides]
    data, _ = pairs.build(rows, *sides, tokenizer, negative="random_context", max_length=256)
    reference = run.step(
        "reference", training.reference_log_probabilities, model, tokenizer, data, batch_size=1
    )  # two rows at once
    trained = run.step(
        "training", training.train, NAME, data, reference, learning_rate=1e-3, beta=0.1, epochs=1, batch_size=1,
        max_length=256, dtype="float32",
    )  # fmt: skip
    tuned, _ = models.load(NAME, dtype="float32", adapter=trained["adapter"])
    scores = run.step("scores", scoring.log_probabilities, tuned, tokenizer, asked[0], sides[0], batch_size=2)
    ended = {"texts": sides, "losses": [e["loss"] for e in trained["log"]], "scores": scores.tolist()}
    files.write_atomically(folder / "result.json", json.dumps(ended))


def forked(folder):
    """Start `work` in a forked process; returns its id. Each batch it begins is a line in `folder`/begun."""

    def note(kind):
        with (folder / "begun").open("a") as file:
            file.write(kind + "\n")

    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work(folder, note)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def begun(folder):
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def main(folder, kills):
    import torch
    from trl import DPOTrainer  # noqa: F401  imported once, before the forks

    from mipo_nb.engine import trainers  # noqa: F401

    torch.set_num_threads(1)
    runs.quieten()
    draw, killed = random.Random(0), []
    for folder_, count in ((folder / "whole", 0), (folder / "killed", kills)):
        folder_.mkdir()
        while not (folder_ / "result.json").exists():
            child, before = forked(folder_), len(begun(folder_))
            if len(killed) < count:
                # After a batch or two has begun, at any moment of it.
                wanted, until = before + draw.choice((1, 2, 2)), time.time() + 60
                while len(begun(folder_)) < wanted and time.time() < until and not os.waitpid(child, os.WNOHANG)[0]:
                    time.sleep(0.005)
                time.sleep(draw.uniform(0, 0.6))
                if not (folder_ / "result.json").exists():
                    os.kill(child, signal.SIGKILL)
                    killed.append(begun(folder_)[-1])
            _, status = os.waitpid(child, 0)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise SystemExit("the work failed")
    (folder / "kills.json").write_text(json.dumps(killed))


@pytest.mark.model
def test_killed_in_sampling_scoring_and_training_the_numbers_are_the_same(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, str(KILLS)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    killed = json.loads((tmp_path / "kills.json").read_text())
    assert len(killed) == KILLS and set(killed) == {"sampling", "scoring", "training"}
    whole, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert whole == resumed
    needed, spent = (Counter(begun(tmp_path / name)) for name in ("whole", "killed"))
    for kind, count in Counter(killed).items():
        # Every kill costs the batch it fell into, or the one just done and not yet written.
        assert needed[kind] <= spent[kind] <= needed[kind] + count, (kind, needed, spent, killed)


# --- runner and kernel ---

PARTS = """
import time
from mipo_nb import runs
run = runs.start(NOTEBOOK, PROFILE, output_dir=OUTPUT_DIR)
import parts
run.record("sum", run.step("parts", parts.summed, n=12, seconds=0.15))
"""
MODULE = """
import json, random, time
from pathlib import Path
from mipo_nb.base.files import kept

def part(folder, k, seconds):
    with (Path(folder) / "begun").open("a") as file:
        file.write("x")
    time.sleep(seconds)
    return random.Random(k).random()

def summed(n, seconds, folder=None):
    return sum(kept(Path(folder) / f"part-{k}.json", lambda: part(folder, k, seconds)) for k in range(n))
"""
RUN = """
import sys
from pathlib import Path
from mipo_nb import cli, notebooks, runner, state
root = Path(sys.argv[1])
notebooks.project_root = runner.project_root = state.project_root = lambda: root
sys.argv = ["mipo-nb", "run", "04", "05", "--profile", "smoke", "--output-dir", str(root / "out")]
cli.main()
"""


def test_killed_runners_and_kernels_and_between_notebooks(tmp_path):
    (tmp_path / "parts.py").write_text(MODULE)
    (tmp_path / "notebooks").mkdir()
    for name in ("04_first", "05_second"):
        cells = [f'PROFILE = "laptop"\nOUTPUT_DIR = "runs"\nNOTEBOOK = "{name}"', PARTS.replace("12", name[1] * 2)]
        notebook = new_notebook(cells=[new_code_cell(c) for c in cells])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    out, draw = tmp_path / "out" / "smoke", random.Random(1)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{project_root()}"}
    lines = lambda: sum(len(f.read_text()) for f in out.glob("steps/*/begun"))  # noqa: E731
    kills = ["runner", "kernel", "both", "between", "kernel", "runner", "both"]
    for kill in [*kills, None]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, tmp_path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, cwd=tmp_path,
        )  # fmt: skip
        before, until = lines(), time.time() + 60
        first = lambda: state.ended(out / "04_first") is not None  # noqa: E731
        there = first if kill == "between" else lambda before=before: lines() > before
        while kill and not there() and process.poll() is None and time.time() < until:
            time.sleep(0.01)
        if kill:
            time.sleep(draw.uniform(0, 0.4) if kill != "between" else 0)
            assert process.poll() is None, process.communicate()
            runner = psutil.Process(process.pid)
            kernels = runner.children(recursive=True)
            for victim in {"kernel": kernels, "runner": [runner]}.get(kill, [runner, *kernels]):
                victim.kill()
        _, err = process.communicate(timeout=90)
        if kill == "kernel":
            assert process.returncode == 1 and "DeadKernelError" in err and "To go on: mipo-nb run 04 05" in err
        elif kill:
            assert process.returncode == -signal.SIGKILL
            assert not psutil.wait_procs(kernels, timeout=30)[1]  # a kernel whose runner is gone ends by itself
    assert process.returncode == 0, err
    for name in ("04_first", "05_second"):
        n = int(name[1] * 2)
        [result] = json.loads((out / name / "results.json").read_text())
        assert result["value"] == pytest.approx(sum(random.Random(k).random() for k in range(n)), abs=1e-12)
        assert state.ended(out / name)["error"] is None and not (out / name / f"{name}.failed.ipynb").exists()
    assert 44 + 55 <= lines() <= 44 + 55 + len(kills)


# --- a disk that is full, a folder that may be written no longer ---

STEPS = """
import os
import sys
from pathlib import Path

from mipo_nb import runs, settings
from mipo_nb.base.errors import UserError

def letters(n):
    return "a" * n

folder = Path(sys.argv[1])
run = runs.Run(settings.resolve("smoke", "01_full"), folder / "01_full")
run.step("first", letters, 1000)
before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
if sys.argv[2] == "read-only":
    os.system(f"mount -o remount,ro {folder}")
try:
    run.step("second", letters, 4_000_000)
except UserError as e:
    print(e)
os.system(f"mount -o remount,rw,size=20m {folder}")
assert {file: file.read_bytes() for file in before} == before
again = runs.Run(settings.resolve("smoke", "01_full"), folder / "01_full")
assert again.step("first", letters, 1000) == "a" * 1000 and again.steps[0]["found"]
assert len(again.step("second", letters, 4_000_000)) == 4_000_000 and not again.steps[1]["found"]
"""


@pytest.mark.parametrize("kind, told", [("full", "No space left on device"), ("read-only", "Read-only file system")])
def test_a_full_or_read_only_disk_is_told_and_earlier_steps_are_intact(tmp_path, kind, told):
    """On a real file system of one megabyte, in a mount namespace of its own; mended afterwards, the run goes on."""
    alone = [shutil.which("unshare"), "-rm"]
    if (
        not alone[0]
        or subprocess.run([*alone, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    (tmp_path / "disk").mkdir()
    (tmp_path / "steps.py").write_text(STEPS)
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$1" "$2" "$0" "$3"'
    done = subprocess.run(
        [*alone, "sh", "-c", script, tmp_path / "disk", sys.executable, tmp_path / "steps.py", kind],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(project_root())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert told in done.stdout and ("could not be written" in done.stdout or "cannot be written" in done.stdout)
    assert done.stdout.count("\n") == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
