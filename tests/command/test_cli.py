"""The command line: exit codes, one line for a mistake, and nothing written by it."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.command import cli, state
from mipo_nb.command.parameters import from_here, given
from mipo_nb.lab import notebooks, tables


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `mipo-nb` with some arguments; returns (exit code, stdout, stderr)."""

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["mipo-nb", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return called


MISTAKES = [
    (["99"], "There is no notebook '99'; known: 00_start_here, "),
    (["11_qlora_mip"], "There is no notebook '11_qlora_mip'; did you mean '11_qlora_mipo'?"),
    (["11", "--profile", "smokey"], "Unknown profile 'smokey'; did you mean 'smoke'?"),
    (["11", "-p", "SEDE=1"], "Unknown parameter 'SEDE'; did you mean 'SEED'?"),
    (["-p", "N_PAIR=1"], "Unknown parameter 'N_PAIR'; did you mean 'N_PAIRS'?"),
    (["00", "-p", "zzz=1"], "Unknown parameter 'zzz'; known: ACCUMULATE, AT_LIMIT, BATCH_SIZE, "),
    (["10", "-p", "EPOCHS=2"], "EPOCHS is a number that 10_building_pairs does not read, so it would change nothing; "),
    (["15", "-p", "LEARNING_RATE=1e-3"], "LEARNING_RATE is a number that 15_your_model_your_users does not read, "),
    (["14", "-p", "LEARNING_RATE=1e-3"], "LEARNING_RATE is a number that 14_choosing_the_dose does not read, "),
    (["12", "-p", "N_AUDIT=2"], "Unknown parameter 'N_AUDIT'; did you mean "),
    (["11", "-p", "OUTPUT_DIR=mine"], "OUTPUT_DIR has an option of its own; use --output-dir in place of -p."),
    (["-p", "PROFILE=smoke"], "PROFILE has an option of its own; use --profile in place of -p."),
    (["11", "-p", "SEED=-1"], "SEED must be a whole number from 0 "),
    (["11", "-p", "LEARNING_RATE=high"], "learning_rate must be of type float "),
    (["12", "-p", "ADAPTER=3"], "ADAPTER must be a name or a path as text, not 3."),
    (["11", "-p", "MODEL=3"], "MODEL must be a name or a path as text, not 3."),
    (["11", "-p", "SEED"], "-p takes NAME=VALUE, not 'SEED'."),
    (["11", "-p", "=1"], "-p takes NAME=VALUE, not '=1'."),
    (["11", "-p", "MY SEED=1"], "-p takes NAME=VALUE, not 'MY SEED=1'."),
    (["11", "-p", "SEED=1", "-p", "2=SEED"], "-p takes NAME=VALUE, not '2=SEED'."),
    (["11", "--profile", "paper"], "The profile 'paper' is for notebooks 30, 31, 32, not for 11_qlora_mipo; use "),
    (["11", "--dry-run"], "11_qlora_mipo has no dry run; its parameters have no DRY_RUN."),
    (["00", "-p", "DRY_RUN=True"], "Unknown parameter 'DRY_RUN'; known: ACCUMULATE, AT_LIMIT, BATCH_SIZE, "),
    (["30", "-p", "DRY_RUN=false"], "DRY_RUN must be True or False, not 'false'."),
    (["15", "-p", "DATA=missing.jsonl"], "There is no file missing.jsonl to read"),
    (["15", "-p", "DATA=3"], "DATA must be a name or a path as text, not 3."),
    (["15", "-p", "RULES_FILE=none.py"], "There is no file of rules none.py"),
    (["11", "--workers", "dask"], "--workers takes ray, or an address like ray://HEAD:10001, not 'dask'."),
]


@pytest.mark.parametrize("arguments, told", MISTAKES)
def test_a_mistake_ends_in_one_line_and_exit_code_2(call, tmp_path, arguments, told):
    code, out, err = call("run", *arguments, "--output-dir", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.startswith(told) and err.count("\n") == 1 and err.endswith("\n")
    assert not list(tmp_path.iterdir())


def test_an_output_folder_that_cannot_be_written_is_a_mistake_too(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = call("run", "00", "--profile", "smoke", "--output-dir", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot be written" in err and err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_installed_command_behaves_the_same(tmp_path):
    command = Path(sys.executable).with_name("mipo-nb")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [command, "run", "11", "-p", "SEDE=1", "--output-dir", tmp_path / "out"],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Unknown parameter 'SEDE'; did you mean 'SEED'?\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("SEED=1", ("SEED", 1)),
        ("RATE=4e-4", ("RATE", 4e-4)),
        ("FOUR_BIT=True", ("FOUR_BIT", True)),
        ("NEGATIVE=None", ("NEGATIVE", None)),
        ("NEGATIVE=random_prompt", ("NEGATIVE", "random_prompt")),
        ("DATA=/a/b c.jsonl", ("DATA", "/a/b c.jsonl")),
        ("JUDGE=http://127.0.0.1:8000/v1?a=b", ("JUDGE", "http://127.0.0.1:8000/v1?a=b")),
        ("MODEL='12'", ("MODEL", "12")),
        ("SEEDS=[0, 1]", ("SEEDS", [0, 1])),
        ("DATA=", ("DATA", "")),
        ("DATA=__import__('os').getcwd()", ("DATA", "__import__('os').getcwd()")),
    ],
)
def test_values_are_read_as_literals_else_as_text(text, expected):
    [(name, value)] = given([text]).items()
    assert (name, value) == expected and type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["SEED", "", "=", "a-b=1", "1a=1"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(UserError, match="-p takes NAME=VALUE"):
        given([text])


def test_a_path_in_the_working_folder_is_one_for_the_kernel_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    (tmp_path / "own").write_text("{}\n")  # the project's own people are meant all the same
    same = {"MODEL": "embedded:smollm2-135m", "DATA": "own", "RULES_FILE": "none.py", "SEED": 3}
    assert from_here(same) == same
    assert from_here({"DATA": "mine.jsonl"}) == {"DATA": str(tmp_path / "mine.jsonl")}
    in_both = "data/users.jsonl"  # the project's own comes first, as everywhere
    (tmp_path / "data").mkdir()
    (tmp_path / in_both).write_text("{}\n")
    assert from_here({"DATA": in_both}) == {"DATA": str(project_root() / in_both)}


def test_the_list_tells_minutes_memory_needs_and_the_main_ones(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    lines = {name: next(line for line in out.splitlines() if name in line) for name in notebooks.collection()}
    main = {notebook.name for notebook in notebooks.selected([])}
    assert {name for name, line in lines.items() if " yes " in line} == main
    assert 0 < len(main) < len(lines)
    assert all(" GB " in line for line in lines.values())


def test_a_log_has_room_for_a_long_name(call, monkeypatch):
    """More than the eighty columns that are taken for a terminal of unknown size."""
    row = {"name": "n" * 60, "main": False, "minutes": "1", "memory": "1 GB", "needs": "s" * 20}
    monkeypatch.setattr(tables, "overview", lambda: [row])
    assert f"{row['name']} │      │ 1       │ 1 GB   │ {row['needs']} │" in call("list")[1]


WRONG_CALLS = {
    "run": [["99"], ["--profile"], ["--profil", "smoke"], ["--profile", "smok", "00"], ["--profile", "no.toml"], ["-p"],
            ["00", "-p", "SEED"], ["00", "-p", "SEDE=1"], ["--timeout", "-1"], ["--timeout", "soon"], ["--publish"],
            ["00", "--publish", "--profile", "smoke"],
            ["00", "--publish", "--profile", "laptop", "--output-dir", "elsewhere"], ["--keep-going", "yes"], ["--output-dir"], ["--dry-run"],
            ["--workers"], ["--workers", ""], ["00", "--workers", "2"], ["00", "--workers", "ray://head"], ["00", "--worker", "ray"]],
    "report": [["now"], ["--profile"], ["--profile", "smok"], ["--profile", ""], ["--profile", "no.toml"], ["-p", "A=1"],
               ["--profile", "smoke", "--output-dir", "none"], ["--output-dir"], ["--fresh"], ["--profil", "smoke"]],
    "list": [["11"], ["--profile", "smoke"], ["--profile"], ["-p", "A=1"], ["--output-dir", "a"], ["--main"], ["-l"],
             ["all"], ["11", "12"], ["--verbose"]],
    "doctor": [["now"], ["--profile", "smoke"], ["--output-dir"], ["--profil"], ["-p", "A=1"], ["--fix"], ["cuda"],
               ["--yes"], ["-v"], ["a", "b"]],
    "student": [[], ["a", "b"], ["--out", "a"], ["file"], ["full"], ["file/inside"], ["--force", "a"], ["-f", "a"],
                ["a", "--profile", "smoke"], ["."], ["--nbgrader"], ["a", "--nbgrader", "b"], ["full", "--nbgrader"],
                ["file", "--nbgrader"], ["file/inside", "--nbgrader"], ["a", "--nbgrade"], ["a", "--nbgrader=1"]],
    "clean": [[], ["--profile"], ["--profile", "smok"], ["--profile", "smoke", "--output-dir", "none", "--yes"],
              ["smoke"], ["--yes"], ["--profile", "no.toml"], ["--output-dir"], ["--profile", "smoke", "now"], ["--all"]],
    "bench": [["--repetitions", "0"], ["--repetitions", "x"], ["--repetitions"], ["trian"], ["train", "scor"], ["--all"],
              ["--repetitions", "-3"], ["--repetitions", "1.5"], ["-n", "3"], ["--profile", "smoke"]],
    "tables": [["now"], ["--check", "yes"], ["--chek"], ["--profile", "smoke"], ["-c"], ["a", "b"], ["RESULTS.md"],
               ["--write"], ["--output-dir", "a"], ["-p", "A=1"]],
    "demo": [["now"], ["--seed"], ["--seed", "-1"], ["--seed", "x"], ["--seed", "1.5"], ["--sed", "1"], ["-s", "1"], ["1"],
             ["--profile", "smoke"], ["--people", "3"]],
    "export": [[], ["full"], ["--output", "out"], ["full", "--output", "out"], ["file", "--output", "out"],
               ["none", "--output", "out", "--to", "vllm"], ["full", "--output", "out", "--to", "gguf"],
               ["full", "--output", "out", "--dtype", "int8"], ["full", "--output"], ["full", "out"],
               ["full", "--to", "merged"], ["a", "b", "--output", "out"]],
    "train": [[], ["none.jsonl"], ["full"], ["file"], ["own", "more"], ["own", "--profile", "smok"], ["own", "--seed", "-1"],
              ["own", "--seed", "x"], ["own", "-p", "N_PAIRS"], ["own", "-p", "N_PAIR=3"], ["own", "-p", "LORA_RANK=0"],
              ["own", "-p", "N_PAIRS=0"], ["own", "--model"], ["own", "--profile", "paper"], ["own", "-p", "RULES_FILE=none.py"],
              ["own", "-p", "WITH_CONTEXT=nothing"]],
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG_CALLS)
def test_wrong_calls_end_in_one_line_and_write_nothing(call, tmp_path, monkeypatch, command):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert len(WRONG_CALLS[command]) >= 10
    for arguments in WRONG_CALLS[command]:
        code, out, err = call(command, *arguments)
        assert (code, out) == (2, ""), (arguments, code, out, err)
        assert err.count("\n") == 1 and len(err) > 20 and "Traceback" not in err, (arguments, err)
        assert sorted(tmp_path.rglob("*")) == before, arguments


def test_every_command_has_its_wrong_calls():
    assert set(WRONG_CALLS) == {command.name or command.callback.__name__ for command in cli.app.registered_commands}


@pytest.mark.parametrize("arguments", [["runn"], ["--profile", "smoke"], ["help"]])
def test_a_command_that_is_not_there(call, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1


def test_the_command_for_a_class_says_what_it_made_and_what_it_cannot(call, tmp_path):
    code, out, _ = call("student", tmp_path / "class")
    assert (code, out) == (0, f"{len(notebooks.collection())} notebooks in {tmp_path / 'class'}\n")
    code, out, err = call("student", tmp_path / "class")
    assert (code, out) == (2, "") and err.count("\n") == 1
    code, out, _ = call("student", tmp_path / "course", "--nbgrader")
    assert (code, out) == (0, f"{len(notebooks.collection())} notebooks in {tmp_path / 'course'}\n")
    assert (tmp_path / "course" / "nbgrader_config.py").exists()


def test_without_a_command_there_is_help(call):
    _, out, err = call()
    assert all(name in out + err for name in ("run", "list", "tables"))


def test_stale_tables_are_named_and_only_written_when_asked(call, monkeypatch):
    asked = []
    monkeypatch.setattr(tables, "write", lambda *, check: asked.append(check) or ["RESULTS.md", "README.md"])
    code, _, err = call("tables", "--check")
    assert (code, err) == (1, "Out of date: RESULTS.md, README.md; run 'mipo-nb tables'.\n")
    assert call("tables")[0] == 0
    assert asked == [True, False]


# --- whole runs of tiny notebooks ---


def notebook(path, source):
    parameters = new_code_cell('PROFILE = "laptop"\nOUTPUT_DIR = "runs"', metadata={"tags": ["parameters"]})
    meta = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "mipo_nb": {"main": True},
    }
    nbformat.write(new_notebook(cells=[parameters, new_code_cell(source)], metadata=meta), path)


# What `runs.start` would leave, without loading torch.
WRITES = """
import json
from pathlib import Path
folder = Path(OUTPUT_DIR) / PROFILE / "02_works"
(folder / "manifest.json").write_text(json.dumps({"profile": PROFILE}))
result = {"name": "gain", "value": 0.5, "low": None, "high": None, "n": None, "unit": "nats", "seed": 0}
(folder / "results.json").write_text(json.dumps([result]))
"""


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "project_root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    notebook(tmp_path / "notebooks" / "01_fails.ipynb", "1 / 0")
    notebook(tmp_path / "notebooks" / "02_works.ipynb", WRITES)
    return tmp_path


def test_a_failure_stops_the_run_with_exit_code_1(call, collection):
    code, out, err = call("run", "--profile", "smoke", "--output-dir", collection / "out")
    assert code == 1
    first, second = err.splitlines()
    assert first.startswith("01_fails, cell ") and first.endswith("ZeroDivisionError: division by zero")
    assert second.startswith("What was computed is kept. To go on: mipo-nb run --profile smoke ")
    assert "failed" in out and "02_works" not in out
    assert {p.name for p in (collection / "out" / "smoke").iterdir()} == {"01_fails", "report.html", ".lock"}


def test_keep_going_runs_the_rest_and_still_ends_with_1(call, collection):
    code, out, err = call("run", "--profile", "smoke", "--keep-going", "--output-dir", collection / "out")
    assert code == 1 and err.count("\n") == 2
    row = next(line for line in out.splitlines() if "gain" in line)
    assert "02_works" in row and "0.50 nats" in row
    made = collection / "out" / "smoke"
    assert (made / "02_works" / "02_works.ipynb").exists() and not (made / "01_fails" / "01_fails.ipynb").exists()
    assert f"Report: {made / 'report.html'}" in out and (made / "report.html").exists()
    code, _, err = call("run", "02", "--profile", "smoke", "--output-dir", collection / "out")
    assert (code, err) == (0, "")


def test_a_finished_notebook_is_found_and_fresh_runs_it_again(call, collection):
    again = ["run", "02", "--profile", "smoke", "--output-dir", collection / "out"]
    executed = collection / "out" / "smoke" / "02_works" / "02_works.ipynb"
    assert call(*again)[0] == 0
    first = executed.stat().st_mtime_ns
    code, out, _ = call(*again)
    assert code == 0 and "02_works: finished before" in out and "0.50 nats" in out
    assert executed.stat().st_mtime_ns == first
    assert "finished before" not in call(*again, "--fresh")[1]
    second = executed.stat().st_mtime_ns
    assert second > first
    notebook(collection / "notebooks" / "02_works.ipynb", WRITES + "changed = 1")
    assert "finished before" not in call(*again)[1]
    assert "finished before" in call(*again)[1] and executed.stat().st_mtime_ns > second


def test_a_dead_kernel_names_its_cell_and_what_to_do(call, collection):
    notebook(collection / "notebooks" / "03_dies.ipynb", "import os\nos._exit(1)")
    code, _, err = call("run", "03", "--profile", "smoke", "--output-dir", collection / "out")
    assert code == 1 and err.count("\n") == 2
    assert err.startswith("03_dies, cell 3: DeadKernelError") and "To go on: mipo-nb run 03 --profile smoke" in err
    left = {p.name for p in (collection / "out" / "smoke" / "03_dies").iterdir()}
    assert left == {"03_dies.failed.ipynb", "state.json"}


LOOKS = """
from pathlib import Path
from mipo_nb import doctor, dry_run
if DRY_RUN:
    folder = Path(OUTPUT_DIR) / PROFILE / "05_long"
    (folder / "manifest.json").write_text("{}")
    dry_run.show([doctor.Finding("memory", "1 GB", MENDED, "Take more.")], folder, stop=True)
Path(OUTPUT_DIR, "worked").touch()
"""


@pytest.mark.parametrize("mended", [True, False])
def test_a_dry_run_tells_what_it_found_and_fails_if_it_must(call, collection, mended):
    source = LOOKS.replace("MENDED", str(mended))
    long = collection / "notebooks" / "05_long.ipynb"
    notebook(long, source)
    written = nbformat.read(long, as_version=4)
    written.cells[0].source += "\nDRY_RUN = False"
    nbformat.write(written, long)
    out = collection / "out"
    for how in (["--dry-run"], ["-p", "DRY_RUN=True"]):
        code, told, err = call("run", "05", "--profile", "smoke", *how, "--output-dir", out)
        assert "memory" in told and ("MEND" in told) == (not mended) and "Report" not in told
        assert (code, err) == ((0, "") if mended else (1, "05_long would not run here. To be mended: memory.\n"))
    assert not (out / "smoke").exists() and not list(out.rglob("worked")) and not list(out.rglob("state.json"))


def test_a_dry_run_cannot_be_published(call, collection):
    notebook(collection / "notebooks" / "02_works.ipynb", WRITES + "DRY_RUN = False")
    code, out, err = call("run", "02", "--profile", "laptop", "--dry-run", "--publish")
    assert (code, out) == (2, "") and err.count("\n") == 1


SLOW = """
import sys
from pathlib import Path
from mipo_nb import cli, notebooks
root = Path(sys.argv[1])
notebooks.project_root = lambda: root
sys.argv = ["mipo-nb", "run", *sys.argv[2:], "--profile", "smoke", "--keep-going", "--output-dir", str(root / "out")]
cli.main()
"""


def started(collection, *names, **options):
    """A process of its own that runs these notebooks of the collection."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, collection, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    )  # fmt: skip


def test_an_interrupt_ends_the_run_with_what_to_do(collection):
    notebook(collection / "notebooks" / "04_slow.ipynb", "import time\ntime.sleep(120)")
    process = started(collection, "04", "02", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    # (A shell without a terminal starts its background jobs, and all below them, deaf to SIGINT.)
    partial = collection / "out" / "smoke" / "04_slow" / "04_slow.failed.ipynb"
    try:
        for _ in range(600):
            if (
                partial.exists() and partial.read_text(encoding="utf-8").count('"start_time": "2') >= 4
            ):  # the notebook's and three cells'
                break
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the runner and the kernel
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "02_works" not in out
    first, second = err.splitlines()
    assert first == "04_slow, cell 3: interrupted." and second.startswith("What was computed is kept. To go on: ")
    assert {p.name for p in partial.parent.iterdir()} == {partial.name, "state.json"}


BUSY = """
import os
from pathlib import Path
pid = Path(OUTPUT_DIR).parent / "pid"
pid.with_suffix(".new").write_text(str(os.getpid()))
pid.with_suffix(".new").rename(pid)
sum(range(10**12))  # holds Python's lock: nothing in the kernel can see that its runner has gone
"""


def kernel_of(collection):
    """The process of the kernel, once it says who it is."""
    until = time.time() + 60
    while not (collection / "pid").exists():
        assert time.time() < until
        time.sleep(0.1)
    return psutil.Process(int((collection / "pid").read_text()))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_the_runner_ends_a_busy_kernel_too(collection, sent):
    notebook(collection / "notebooks" / "04_slow.ipynb", BUSY)
    process = started(collection, "04", "02", preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL))
    kernel = kernel_of(collection)
    try:
        process.send_signal(sent)  # to the runner alone
        out, err = process.communicate(timeout=60)
        assert not kernel.is_running()
    finally:
        process.kill()
        if kernel.is_running():
            kernel.kill()
    assert process.returncode == 128 + sent and "02_works" not in out
    first, second = err.splitlines()
    assert first == f"04_slow, cell 3: ended by {sent.name}." and "To go on: mipo-nb run 04 02" in second


def test_a_run_under_nohup_outlives_its_terminal(collection):
    source = BUSY.replace("sum(range(10**12))", "while not pid.with_name('go').exists(): pass") + WRITES
    notebook(collection / "notebooks" / "04_slow.ipynb", source.replace("02_works", "04_slow"))
    process = started(collection, "04", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    try:
        kernel_of(collection)
        process.send_signal(signal.SIGHUP)
        (collection / "go").touch()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "") and "0.50 nats" in out


def test_a_second_run_in_the_same_folder_is_refused(call, collection):
    with state.alone(collection / "out" / "smoke"):
        code, out, err = call("run", "02", "--profile", "smoke", "--output-dir", collection / "out")
    assert (code, out) == (2, "") and err.startswith("Another run is writing to ") and err.count("\n") == 1
    assert call("run", "02", "--profile", "smoke", "--output-dir", collection / "out")[0] == 0


def test_clearing_up_asks_first_and_touches_nothing_else(call, collection, monkeypatch):
    call("run", "02", "--profile", "smoke", "--output-dir", collection / "out")
    made = collection / "out" / "smoke"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert call("clean", "--profile", "smoke", "--output-dir", collection / "out")[0] == 1
    assert made.exists()
    for profile, told in [("smok", "did you mean 'smoke'?"), ("laptop", "There is no folder")]:
        code, _, err = call("clean", "--profile", profile, "--output-dir", collection / "out", "--yes")
        assert code == 2 and told in err
    (made / "mine.txt").write_text("mine")
    code, _, err = call("clean", "--profile", "smoke", "--output-dir", collection / "out", "--yes")
    assert code == 2 and "holds 'mine.txt', which no run made" in err and (made / "02_works").exists()
    (made / "mine.txt").unlink()
    assert call("clean", "--profile", "smoke", "--output-dir", collection / "out", "--yes")[:2] == (0, "0 MB freed\n")
    assert not made.exists() and (collection / "notebooks" / "02_works.ipynb").exists()
