"""Dry runs: what they find on this machine and on others, and how a notebook ends in one."""

import json
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from rich.console import Console

from mipo_nb import generation
from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import Hardware
from mipo_nb.command import doctor, dry_run, random_models, runner, state
from mipo_nb.lab import costs, settings
from mipo_nb.lab.notebooks import Notebook

WORK = costs.Work(trainings=1, pairs=16, epochs=1, prompt_tokens=80, response_tokens=70, samples=32, scored=64)
ROWS = [{"prompt": "What now?", "context": "Ana keeps bees."}] * 3


def no_data():
    raise UserError("The data cannot be had; set MIPO_NB_DATA.")


def checked(tmp_path, data=None, judge=None, work=WORK, **changes):
    s = settings.resolve("smoke", "01_test", **{k: v for k, v in changes.items() if k != "lora_rank"})
    if "lora_rank" in changes:
        s.numbers["lora_rank"] = changes["lora_rank"]
    found = dry_run.check(s, data=data or {}, work=work, judge=judge, output_dir=tmp_path)
    return {one.what: one for one in found}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(costs, "product_rate", lambda *a: 2e11)


@pytest.mark.model
def test_everything_that_is_there_is_found_and_nothing_is_loaded(tmp_path, monkeypatch):
    from mipo_nb import models

    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("weights were loaded"))
    found = checked(tmp_path, {"users": (lambda: ROWS, ("prompt", "context"))})
    assert list(found) == ["users", "tokenizer and chat template", "model", "memory", "disk", "minutes", "judge"]
    assert found["users"].found == "3 rows with prompt, context"
    assert "LlamaConfig, 135 million weights" in found["model"].found
    assert "TFLOP/s" in found["minutes"].found and "training" in found["minutes"].found
    assert found["judge"].good is None and all(one.good for name, one in found.items() if name != "judge")
    assert dry_run.failed(found.values()) == "" and not list(tmp_path.iterdir())


@pytest.mark.model
def test_each_fault_is_told_and_none_hides_another(tmp_path, quick, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    small = Hardware(2, 10**9, None, 0, False, "Linux x86_64")
    for module in (settings, dry_run):
        monkeypatch.setattr(module, "hardware", lambda: small)
    data = {
        "gone": (no_data, ("prompt",)),
        "other": (lambda: ROWS, ("prompt", "answer")),
        "none": (list, ("prompt",)),
    }
    judge = generation.Server("http://127.0.0.1:9/v1", "judge", retries=0, timeout=2)
    found = checked(tmp_path, data, judge, lora_rank=0)
    assert dry_run.failed(found.values()) == "gone, other, none, memory, disk, judge"
    assert found["gone"].mend == "The data cannot be had; set MIPO_NB_DATA."
    assert found["other"].found == "column 'answer' is missing"
    assert "Take a GPU of" in found["memory"].mend and "Adam 1.1" in found["memory"].found
    assert found["disk"].mend.startswith("Make 5 GB free")
    assert "http://127.0.0.1:9/v1" in found["judge"].mend
    assert all(one.mend for one in found.values() if not one.good)


def test_a_model_that_cannot_be_had_leaves_the_rest_unknown(tmp_path, quick):
    (tmp_path / "empty").mkdir()
    found = checked(
        tmp_path, {"users": (lambda: ROWS, ("prompt",))}, str(tmp_path / "no judge"), model=str(tmp_path / "empty")
    )
    assert dry_run.failed(found.values()) == "tokenizer and chat template, model, judge"
    assert found["users"].good and all(found[what].good is None for what in ("memory", "disk", "minutes"))


@pytest.mark.model
def test_a_judge_that_answers_and_one_that_would_be_loaded(tmp_path, quick):
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.dumps(
                {"choices": [{"message": {"role": "assistant", "content": "3"}, "finish_reason": "stop"}]}
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judge = generation.Server(f"http://127.0.0.1:{server.server_port}/v1", "judge", retries=0)
        assert checked(tmp_path, judge=judge)["judge"] == doctor.Finding("judge", "judge answers")
        judge.client.close()
        server.shutdown()
    own = checked(tmp_path, judge="embedded:smollm2-135m")["judge"]
    assert own.good and own.found.endswith("GB in this process")


# --- how a notebook ends ---

ENDS = """
from pathlib import Path
from mipo_nb import doctor, dry_run
folder = Path(OUTPUT_DIR) / PROFILE / "01_tiny"
(folder / "manifest.json").write_text("{}")
(folder / "results.json").write_text("[]")
if DRY_RUN:
    dry_run.show([doctor.Finding("data | rows", "3"), doctor.Finding("memory", "1 GB", MENDED, "Take more.")], folder, stop=True)
"""


def tiny(folder, *sources, mended=True):
    import nbformat

    parameters = 'PROFILE = "laptop"\nOUTPUT_DIR = "runs"\nDRY_RUN = False'
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(f"MENDED = {mended}")]
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / "01_tiny.ipynb"
    nbformat.write(new_notebook(cells=[*cells, *map(new_code_cell, sources)], metadata=meta), path)
    return path


def run(path, out, **parameters):
    """A call with these parameters as a dry run: (call, findings, error, whether it counts as finished)."""
    call = runner.Call(Notebook(path), "smoke", parameters, out)
    console = Console(quiet=True)
    if not parameters:
        return call, [], runner.execute(call, console).error, runner.finished(call) is not None
    dry_run.run([call], console)
    return call, *dry_run.outcome(call, None), runner.finished(call) is not None


def test_a_dry_run_ends_the_notebook_quietly_and_is_never_a_finished_run(tmp_path):
    path = tiny(tmp_path, ENDS, "print('the work')")
    call, findings, error, finished = run(path, tmp_path / "out", DRY_RUN=True)
    assert error is None and not finished
    assert [one.what for one in findings] == ["data | rows", "memory"]
    executed = Notebook(call.executed).content
    assert "mipo_nb" not in executed.metadata and state.ended(call.folder) is None
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output.output_type for output in shown] == ["display_data", "error"]
    assert "| ok | data \\| rows | 3 |" in shown[0]["data"]["text/markdown"]
    assert "Nothing stands in the way." in shown[0]["data"]["text/markdown"]
    assert shown[1]["traceback"] == ["The dry run ends here: DRY_RUN is set."]


def test_what_must_be_mended_makes_a_dry_run_fail_in_one_sentence(tmp_path, capsys):
    _, findings, error, finished = run(tiny(tmp_path, ENDS, mended=False), tmp_path / "out", DRY_RUN=True)
    assert error == "01_tiny would not run here. To be mended: memory." and not finished
    assert findings[1].mend == "Take more." and capsys.readouterr().err == f"{error}\n"


def test_a_notebook_that_goes_on_with_the_work_is_no_dry_run(tmp_path):
    path = tiny(tmp_path, ENDS)
    run(path, tmp_path / "out", DRY_RUN=True)  # what it kept is not found by the next one
    source = ENDS.replace("if DRY_RUN:", "if False:")
    _, findings, error, _ = run(tiny(tmp_path, source), tmp_path / "out", DRY_RUN=True)
    assert error == "01_tiny did not end in its dry run; it went on with the work." and not findings


def test_without_being_asked_a_notebook_is_not_ended(tmp_path, capsys):
    dry_run.show([doctor.Finding("data", "3 rows")], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_is_tried_with_the_options_of_the_run(tmp_path, quick):
    model = random_models.write(tmp_path / "tiny", "tiny")
    template = "{% if not day is defined %}{{ raise_exception('which day?') }}{% endif %}" + random_models.tokenizer().chat_template  # fmt: skip
    (tmp_path / "tiny" / "chat_template.jinja").write_text(template)
    with_day, without = (
        checked(tmp_path / "runs", model=model, judge=model, template_options=options)["tokenizer and chat template"]
        for options in ({"day": "Monday"}, {})
    )
    assert with_day.good and "259 tokens" in with_day.found
    assert without.good is False and "refuses the conversation (which day?)" in without.mend
