"""Every notebook, whole, headless, in the smoke profile: real weights, sampling and training, few rows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mipo_nb.base.files import project_root
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


# The main job and its measure, a reproduction with sums and rewards, a study with rounds of pairs and of rewards.
QUICK = ("11_qlora_mipo", "12_measuring_personalization", "31_reproduce_reasoning", "41_two_ceilings")
NAMES = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.whole]) for name in collection()]


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name, output_dir, record_property):
    state = run(name, output_dir)
    assert state.error is None
    code = Notebook(state.call.executed).code_cells
    assert len(code) > 5 and all(c.execution_count for c in code)
    manifest = json.loads((state.call.folder / "manifest.json").read_text())
    assert manifest["profile"] == "smoke" and manifest["libraries"]["trl"]
    record_property("ran", f"{name}: {state.seconds / 60:.1f} minutes, {len(code)} cells")


def test_the_record_of_passed_runs_is_of_these_notebooks():
    record = json.loads((project_root() / "tests" / "notebooks" / "passed.json").read_text(encoding="utf-8"))
    assert set(record) <= set(collection()) and all(len(version) == 16 for version in record.values())


@pytest.mark.whole
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
    # Bare papermill takes the `python3` that lies first on Jupyter's path; here that is to be this one.
    environment = {**os.environ, "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")}
    done = subprocess.run(
        [*command, "--no-progress-bar"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]
    assert all(c.execution_count for c in Notebook(tmp_path / "out.ipynb").code_cells)


def test_a_student_copy_runs_unsolved(tmp_path):
    """Without the solutions nothing fails: no later cell needs them (for all notebooks: see `test_skeleton`)."""
    copies = {path.stem: path for path in classroom.student_copy(tmp_path / "copy")}
    call = runner.Call(Notebook(copies["10_building_pairs"]), "smoke", {}, tmp_path / "runs")
    assert runner.execute(call, Console()).error is None
    cells = Notebook(call.executed).code_cells
    assert all(c.execution_count for c in cells) and not any("solution" in c.metadata.get("tags", []) for c in cells)


@pytest.mark.whole
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


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("10_building_pairs", "pairs ordered by PMI"),
        ("12_measuring_personalization", "gain in PMI"),
        ("14_choosing_the_dose", "responses cut at the limit"),
        ("15_your_model_your_users", "change, repetition"),
    ],
)
def test_other_users_need_no_code(name, recorded, tmp_path):
    """A JSONL of prompt, context and user_id, without a wish, goes through pairs, training, measuring and serving."""
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
    state = run(name, tmp_path / "runs", DATA=str(file))
    assert state.error is None
    assert recorded in {r["name"] for r in results_of(state.call.folder)}


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "family"),
    [("12_measuring_personalization", "gemma3_text"), ("12_measuring_personalization", "qwen3"), ("15_your_model_your_users", "phi3")],
)  # fmt: skip
def test_a_folder_with_a_model_of_another_family_is_measured_and_served(name, family, model_of, tmp_path):
    # It writes noise, in which no sentence ends, and its tokens are bytes.
    numbers = {"AT_LIMIT": "whole", "TEMPERATURE": 1.0, "MAX_LENGTH": 1024, "MAX_NEW_TOKENS": 12}
    state = run(name, tmp_path / "runs", MODEL=model_of(family), **numbers)
    assert state.error is None and results_of(state.call.folder)


def test_a_mistake_ends_in_one_sentence(tmp_path):
    """Through a kernel; which mistakes there are, and their sentences: see `test_settings` and `test_sources`."""
    ended = run("11_qlora_mipo", tmp_path, MODEL="embedded:smollm3")
    assert ended.error == "11_qlora_mipo: Unknown embedded model 'smollm3'; did you mean 'smollm2-135m'?"
    assert not list(tmp_path.rglob("steps/*"))
