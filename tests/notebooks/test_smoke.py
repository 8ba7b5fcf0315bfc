"""Every notebook, whole, headless, in the smoke profile: real weights, sampling and training, few rows."""

import json
import subprocess
import sys

import pytest
from rich.console import Console

from mipo_nb.command import runner
from mipo_nb.course import classroom
from mipo_nb.lab.notebooks import Notebook, collection
from mipo_nb.lab.runs import results_of

pytestmark = pytest.mark.notebook


@pytest.fixture(scope="session")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def run(name, output_dir, **parameters):
    return runner.execute(runner.Call(collection()[name], "smoke", parameters, output_dir), Console())


@pytest.mark.parametrize("name", collection())
def test_notebook_runs(name, output_dir, record_property):
    state = run(name, output_dir)
    assert state.error is None
    code = Notebook(state.call.executed).code_cells
    assert len(code) > 5 and all(c.execution_count for c in code)
    manifest = json.loads((state.call.folder / "manifest.json").read_text())
    assert manifest["profile"] == "smoke" and manifest["libraries"]["trl"]
    record_property("ran", f"{name}: {state['seconds'] / 60:.1f} minutes, {len(code)} cells")


def test_bare_papermill_works_from_any_folder(tmp_path, output_dir):
    path = collection()["00_start_here"].path
    command = [
        sys.executable,
        "-m",
        "papermill",
        path,
        "out.ipynb",
        "-p",
        "PROFILE",
        "smoke",
        "-p",
        "OUTPUT_DIR",
        output_dir,
    ]
    done = subprocess.run([*command, "--no-progress-bar"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]
    assert all(c.execution_count for c in Notebook(tmp_path / "out.ipynb").code_cells)


@pytest.fixture(scope="session")
def student_copy(tmp_path_factory):
    return {path.stem: path for path in classroom.student_copy(tmp_path_factory.mktemp("class") / "copy")}


@pytest.mark.parametrize("name", ["00_start_here", "10_building_pairs", "22_steering_at_inference"])
def test_student_copy_runs_unsolved(name, student_copy, output_dir):
    """Without the solutions nothing fails: no later cell needs them (for all notebooks: see `test_skeleton`)."""
    state = runner.execute(runner.Call(Notebook(student_copy[name]), "smoke", {}, output_dir), Console())
    assert state.error is None
    code = Notebook(state.call.executed).code_cells
    assert all(c.execution_count for c in code) and not any("solution" in c.metadata.get("tags", []) for c in code)


def test_the_same_numbers_twice(output_dir, tmp_path):
    """11 and 12 from nothing, in another folder, with the same seed: every recorded number but the clock's."""
    for name in ("11_qlora_mipo", "12_measuring_personalization"):
        first, second = run(name, output_dir), run(name, tmp_path)
        assert first.error is None and second.error is None
        values = [
            {r["name"]: r["value"] for r in results_of(s.call.folder) if r["unit"] not in ("s", "GB")}
            for s in (first, second)
        ]
        assert values[0] == values[1] and len(values[0]) > 1


def test_other_users_need_no_code(output_dir, tmp_path):
    """A JSONL of prompt, context and user_id goes through pairs, training and measuring."""
    jobs = ["bakes bread", "flies kites", "tunes cars", "keeps owls", "sells maps", "plays the oboe"]
    questions = ["What now?", "Name a gift.", "How do I rest?", "Plan my day."]
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "".join(
            json.dumps(
                {"prompt": questions[k], "context": f"User {i} {jobs[i % 6]}, in street {i}.", "user_id": f"u{i}"}
            )
            + "\n"
            for i in range(24)
            for k in range(4)
        )
    )
    state = run("12_measuring_personalization", tmp_path / "runs", DATA=str(file))
    assert state.error is None
    assert {r["name"] for r in results_of(state.call.folder)} >= {
        "gain in PMI, tuned",
        "change in repetition, tuned",
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"DATA": "no/such.jsonl"}, "There is no file"),
        ({"NEGATIVE": "random_contexts"}, "did you mean 'random_context'?"),
        ({"SEED": -1}, "SEED must be a whole number"),
        ({"SEED": 2**31}, "SEED must be a whole number from 0 to 2147483647"),
        ({"SEED": "0"}, "SEED must be a whole number"),
        ({"FOUR_BIT": "yes"}, "four_bit must be of type bool"),
        ({"LEARNING_RATE": "4e-4x"}, "learning_rate must be of type float"),
        ({"LEARNING_RATE": -4e-4}, "learning_rate must be a finite number greater than 0"),
        ({"MODEL": "embedded:smollm3"}, "Unknown embedded model"),
    ],
)
def test_a_mistake_ends_in_one_sentence(parameters, message, tmp_path):
    state = run("11_qlora_mipo", tmp_path, **parameters)
    assert message in state.error and "\n" not in state.error
    assert not list(tmp_path.rglob("steps/*"))
