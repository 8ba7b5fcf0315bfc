"""Running notebooks headless: what is refused, what is kept of a failure, what is stamped on a success, publishing."""

import copy
import io
import json
import re
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rich.console import Console

from mipo_nb.base.errors import UserError
from mipo_nb.command import report, runner
from mipo_nb.command import state as states
from mipo_nb.command.parameters import check_parameters
from mipo_nb.lab import notebooks
from mipo_nb.lab.notebooks import Notebook, collection, selected
from mipo_nb.lab.runs import formatted, results_of

PARAMETERS = 'PROFILE = "laptop"\nSEED = 0\nOUTPUT_DIR = "runs"'


def tagged(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def tiny(path, *sources, parameters=PARAMETERS):
    """Write a notebook with a parameters cell and some code cells."""
    cells = [new_markdown_cell("# Tiny"), tagged(parameters, "parameters"), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def run(path, folder, **parameters):
    call = runner.Call(Notebook(path), "smoke", parameters, folder)
    return runner.execute(call, Console(file=io.StringIO()))


# --- which notebooks, which parameters ---


def test_notebooks_are_found_by_number_name_or_file():
    for name in ("11", "11_qlora_mipo", "11_qlora_mipo.ipynb", "notebooks/11_qlora_mipo.ipynb"):
        assert [notebook.name for notebook in selected([name])] == ["11_qlora_mipo"]
    two = [notebook.name for notebook in selected(["12", "00"])]
    assert two == ["12_measuring_personalization", "00_start_here"]


def test_without_a_choice_the_main_notebooks_run_in_order():
    chosen = [notebook.name for notebook in selected([])]
    main = {n for n, known in collection().items() if known.content.metadata["mipo_nb"]["main"]}
    assert chosen == sorted(main) and "11_qlora_mipo" in chosen


@pytest.mark.parametrize(
    "name, told", [("11_qlora_mip", "did you mean '11_qlora_mipo'?"), ("99", "known: 00_start_here,")]
)
def test_an_unknown_notebook_is_explained(name, told):
    with pytest.raises(UserError, match=f"There is no notebook '{name}'") as caught:
        selected(["11", name])
    assert told in str(caught.value)


def test_parameters_are_those_of_the_parameters_cell(tmp_path):
    path = tiny(tmp_path / "01_tiny.ipynb", "NOT_ONE = 3")
    assert Notebook(path).parameters == ["PROFILE", "SEED", "OUTPUT_DIR"]
    for known in collection().values():
        assert {"PROFILE", "SEED", "OUTPUT_DIR"} <= set(known.parameters)


def test_what_is_unknown_is_refused_with_the_nearest_name(tmp_path):
    first = Notebook(tiny(tmp_path / "01_first.ipynb", parameters="SEED = 0"))
    second = Notebook(tiny(tmp_path / "02_second.ipynb", parameters="N_PAIRS = 3"))
    check_parameters([first, second], {"SEED": 1, "N_PAIRS": 4}, "smoke")
    with pytest.raises(UserError, match="BETA is a number that 01_first does not read"):
        check_parameters([first], {"BETA": 0.2}, "auto")
    for paths, given, told in [
        ([first, second], {"SEDE": 1}, "Unknown parameter 'SEDE'; did you mean 'SEED'?"),
        ([first], {"N_PAIR": 1}, "Unknown parameter 'N_PAIR'; did you mean 'N_PAIRS'?"),
        ([first], {"MODEL": "any"}, "Unknown parameter 'MODEL'"),
        ([first], {"NEEDS_GB": 1}, "Unknown parameter 'NEEDS_GB'"),
        ([first], {"SEED": 1, "OUTPUT_DIR": "mine"}, "OUTPUT_DIR has an option of its own; use --output-dir "),
    ]:
        with pytest.raises(UserError) as caught:
            check_parameters(paths, given, "laptop")
        assert str(caught.value).startswith(told)


# --- the hash of the code ---


def test_the_hash_is_of_code_and_not_of_what_was_injected(tmp_path):
    def code_hash(content):
        nbformat.write(content, tmp_path / "any.ipynb")
        return Notebook(tmp_path / "any.ipynb").code

    plain = new_notebook(cells=[new_markdown_cell("# A"), tagged("SEED = 0", "parameters"), new_code_cell("print(1)")])
    before = code_hash(plain)
    same = copy.deepcopy(plain)
    same.cells.insert(2, tagged("SEED = 1", "injected-parameters"))
    same.cells[0].source = "# Another title"
    same.cells[3].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    same.cells[3].execution_count = 7
    assert code_hash(same) == before
    changes = [
        lambda cells: cells[2].update(source="print(2)"),
        lambda cells: cells[1].update(source="SEED = 1"),
        lambda cells: cells.append(new_code_cell("")),
        lambda cells: cells.insert(1, cells.pop(2)),
        lambda cells: cells.__setitem__(slice(1, 3), [new_code_cell("SEED = 0\nprint(1)")]),
    ]
    hashes = {before}
    for change in changes:
        other = copy.deepcopy(plain)
        change(other.cells)
        hashes.add(code_hash(other))
    assert len(hashes) == 1 + len(changes)


# --- results as text ---


def result(value, low=None, high=None, unit="", n=None):
    return {"name": "x", "value": value, "low": low, "high": high, "unit": unit, "n": n}


@pytest.mark.parametrize(
    "given, text",
    [
        (result(0.5), "0.50"),
        (result(-0.125, -0.25, 0.0), "-0.12 [-0.25, 0.00]"),
        (result(12.34, 9.5, 15.26, "nats", 40), "12.3 [9.5, 15.3] nats (n = 40)"),
        (result(1234.5, unit="s"), "1234 s"),
        (result(-1500.0, -1600.4, -1400.0), "-1500 [-1600, -1400]"),
        (result(9.999), "10.00"),
        (result(0.25, n=8), "0.25 (n = 8)"),
        (result(0.00061), "6.1e-04"),
        (result(0.0), "0.00"),
        (result(0.004, -0.1, 0.1), "0.00 [-0.10, 0.10]"),
    ],
)
def test_a_result_as_text(given, text):
    assert formatted(given) == text


# --- running ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny notebook that succeeded in the smoke profile: (its path, its state, the output folder)."""
    folder = tmp_path_factory.mktemp("finished")
    source = (
        "from mipo_nb import runs, statistics\n"
        'run = runs.start("01_tiny", PROFILE, seed=SEED, output_dir=OUTPUT_DIR)\n'
        'run.record("a < b", 0.5, low=0.25, high=0.75, unit="nats", n=4)\n'
        '(run.folder / "figures").mkdir()\n'
        '(run.folder / "figures" / "curve.svg").write_text("<svg/>")\n'
        "run"
    )
    path = tiny(folder / "01_tiny.ipynb", source)
    return path, run(path, folder / "out", SEED=3, NOT_ONE=1), folder / "out"


def test_a_success_is_stamped_and_leaves_no_partial_copy(finished):
    path, state, out = finished
    assert state.error is None and state.seconds > 0 and state.call.notebook.name == "01_tiny"
    assert state.call.folder == out / "smoke" / "01_tiny"
    names = {p.name for p in state.call.folder.iterdir()}
    assert names == {"01_tiny.ipynb", "state.json", "manifest.json", "results.json", "figures"}
    executed = Notebook(state.call.executed).content
    stamp = executed.metadata["mipo_nb"]
    assert stamp["code"] == Notebook(path).code
    assert (
        sorted(stamp["modules"]) == ["mipo_nb.base.crossed", "mipo_nb.base.resampling", "mipo_nb.statistics"]
        and Notebook(state.call.executed).changed_since == ""
    )
    assert stamp["manifest"]["profile"] == "smoke" and stamp["manifest"]["notebook"] == "01_tiny"
    assert stamp["manifest"]["seed"] == 3  # the injected one
    assert [r["value"] for r in stamp["results"]] == [0.5]
    assert results_of(state.call.folder) == stamp["results"]
    assert "papermill" not in executed.metadata and not any("papermill" in c.metadata for c in executed.cells)
    [injected] = [c.source for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "SEED = 3" in injected and 'PROFILE = "smoke"' in injected and "NOT_ONE" not in injected
    assert "01_tiny | profile smoke" in executed.cells[-1].outputs[0]["data"]["text/plain"]


def test_the_report_has_results_errors_and_pages(finished):
    _, ended, out = finished
    for name in ("02_bad", "03_killed"):
        (out / "smoke" / name).mkdir()
        (out / "smoke" / name / f"{name}.failed.ipynb").write_text("{}")
    states.keep(out / "smoke" / "02_bad", "key", 61, "02_bad: mend <this>.")
    page = report.write(out, "smoke")
    assert page == out / "smoke" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert '<a href="01_tiny/01_tiny.html">01_tiny</a>' in text and (ended.call.folder / "01_tiny.html").exists()
    assert "<td>a &lt; b</td><td>0.50 [0.25, 0.75] nats (n = 4)</td>" in text
    assert "1.0 minutes" in text and "02_bad: mend &lt;this&gt;." in text and "02_bad.html" not in text
    assert text.count("<strong>Not finished:</strong>") == 1 and '"03_killed/03_killed.failed.ipynb"' in text
    linked = re.findall('href="([^"]+)"', text)
    assert len(linked) == 5 and all((out / "smoke" / file).exists() for file in linked)


def test_a_report_opens_with_what_was_found_and_its_figure(tmp_path):
    name = "03_from_dpo_to_pmi"
    notebook, folder = collection()[name], tmp_path / "laptop" / name
    folder.mkdir(parents=True)
    nbformat.write(notebook.content, folder / f"{name}.ipynb")
    (folder / "results.json").write_text(json.dumps(notebook.results))
    states.keep(folder, "key", 61)
    text = report.write(tmp_path, "laptop").read_text(encoding="utf-8")
    found = ["<td>policies that gradient descent reached", "were cut at the limit of their tokens"]
    parts = [*found, 'alt="Probabilities of Ana', "1.0 minutes. Finished.", "<details>"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places) and text.count("<img ") == 1
    assert f"Results: {len(notebook.results)}<" in text and text.count("<tr><td>") == len(notebook.results)
    linked = [link for link in re.findall('href="([^"]+)"', text) if "://" not in link]
    assert len(linked) == 2 and all((tmp_path / "laptop" / link).exists() for link in linked)


def test_a_report_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="No notebook has run in .*mipo-nb run --profile smoke"):
        report.write(tmp_path, "smoke")
    assert not list(tmp_path.iterdir())


def test_a_users_mistake_becomes_one_sentence_and_the_partial_copy_is_kept(tmp_path):
    path = tiny(
        tmp_path / "01_tiny.ipynb",
        "print('so far')",
        "from mipo_nb.base.errors import UserError\nraise UserError('There are no rows; add some.')",
        "print('never')",
    )
    state = run(path, tmp_path / "out")
    assert state.error == "01_tiny: There are no rows; add some."
    assert {p.name for p in state.call.folder.iterdir()} == {"01_tiny.failed.ipynb", "state.json"}
    assert results_of(state.call.folder) == [] and states.ended(state.call.folder)["error"] == state.error
    partial = Notebook(state.call.partial).content
    outputs = [[o.get("text", o.get("ename")) for o in c.get("outputs", [])] for c in partial.cells]
    assert ["so far\n"] in outputs and ["UserError"] in outputs and ["never\n"] not in outputs


def test_another_error_names_its_cell_and_kind(tmp_path):
    state = run(tiny(tmp_path / "01_tiny.ipynb", "x = 1", "x / 0"), tmp_path / "out")
    assert "01_tiny, cell " in state.error and state.error.endswith("ZeroDivisionError: division by zero")


def test_the_kernel_is_this_python_whatever_python3_means_here(tmp_path, monkeypatch):
    """As with a kernelspec of that name in the user's own folder, from another environment."""
    other, spec = tmp_path / "python", tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    other.write_text(f'#!/bin/sh\ntouch "{tmp_path}/used"\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    spec.parent.mkdir(parents=True)
    argv = [str(other), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Another", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    state = run(tiny(tmp_path / "01_tiny.ipynb", "import sys\nraise RuntimeError(sys.executable)"), tmp_path / "out")
    assert state.error.endswith(f"RuntimeError: {sys.executable}") and not (tmp_path / "used").exists()


def test_an_error_of_many_lines_becomes_one_line(tmp_path):
    state = run(tiny(tmp_path / "01_tiny.ipynb", "raise ValueError('first\\nsecond\\nthird')"), tmp_path / "out")
    assert "first" in state.error and "\n" not in state.error


def test_a_notebook_that_kept_its_run_elsewhere_ends_in_an_error_message(tmp_path):
    # As with --publish, which injects neither profile nor output folder.
    assert "01_tiny" in run(tiny(tmp_path / "01_tiny.ipynb", "1 + 1"), tmp_path / "out").error


def test_trouble_before_the_start_is_refused_and_nothing_is_written(tmp_path):
    notebook = Notebook(tiny(tmp_path / "01_tiny.ipynb"))
    with pytest.raises(UserError, match="Unknown profile 'smok'"):
        runner.Call(notebook, "smok", {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written .*set --output-dir"):
        run(notebook.path, tmp_path / "file" / "out")


def test_reported_progress_is_shown_and_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.02)
    file, shown = tmp_path / "progress.json", io.StringIO()
    file.write_text("left over")
    console = Console(file=shown, force_terminal=True, width=100)
    with runner._shown_progress(file, "01_tiny", console):
        assert not file.exists()
        file.write_text('{"step": "sampling", "done": 3, "total": 8}')
        for _ in range(100):
            time.sleep(0.05)
            if "sampling 3/8" in shown.getvalue():
                break
    assert "sampling 3/8" in shown.getvalue()
    assert not file.exists()


# --- publishing ---


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one notebook, and a run's folder beside it."""
    monkeypatch.setattr(notebooks, "project_root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "run" / "figures").mkdir(parents=True)
    (tmp_path / "run" / "figures" / "curve.svg").write_text("<svg/>")
    return tiny(tmp_path / "notebooks" / "01_tiny.ipynb", "1 + 1"), tmp_path / "run"


def executed(path, folder, profile, *extra):
    content = Notebook(path).content
    content.cells += extra
    content.metadata["mipo_nb"] = {"manifest": {"profile": profile}}
    nbformat.write(content, folder / path.name)


@pytest.mark.parametrize(
    "profile, extra, told",
    [
        ("smoke", (), "run with --profile laptop to publish"),
        ("gpu", (), "run with --profile laptop to publish"),
        ("laptop", (tagged("SEED = 1", "injected-parameters"),), "publish without -p"),
    ],
)
def test_only_a_plain_laptop_run_is_published(checkout, profile, extra, told):
    path, folder = checkout
    before = path.read_bytes()
    executed(path, folder, profile, *extra)
    with pytest.raises(UserError, match=told):
        notebooks.publish(Notebook(path), folder)
    assert path.read_bytes() == before
    assert not (folder.parent / "figures").exists()


def test_publishing_copies_notebook_and_figures(checkout):
    path, folder = checkout
    executed(path, folder, "laptop")
    notebooks.publish(Notebook(path), folder)
    assert path.read_bytes() == (folder / path.name).read_bytes()
    assert [p.name for p in (folder.parent / "figures").iterdir()] == ["01_curve.svg"]


def test_text_that_was_edited_after_the_run_is_kept_with_its_outputs(checkout):
    path, folder = checkout
    executed(path, folder, "laptop")
    ran = Notebook(folder / path.name).content
    ran.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(ran, folder / path.name)
    edited = Notebook(path).content
    edited.cells.insert(0, nbformat.v4.new_markdown_cell("What it means, said better."))
    nbformat.write(edited, path)
    notebooks.publish(Notebook(path), folder)
    after = Notebook(path)
    assert after.content.cells[0].source == "What it means, said better."
    assert after.code_cells[-1].outputs[0].text == "2" and after.stamp["manifest"]["profile"] == "laptop"
    nbformat.validate(after.content)


def test_a_notebook_that_was_changed_while_it_ran_is_left_as_it_is(checkout):
    path, folder = checkout
    executed(path, folder, "laptop")
    tiny(path, "1 + 2")
    before = path.read_bytes()
    with pytest.raises(UserError, match="01_tiny was changed while it ran"):
        notebooks.publish(Notebook(path), folder)
    assert path.read_bytes() == before and not (folder.parent / "figures").exists()


def test_a_real_smoke_run_is_not_published(finished):
    path, state, _ = finished
    before = path.read_bytes()
    with pytest.raises(UserError, match="laptop"):
        notebooks.publish(Notebook(path), state.call.folder)
    assert path.read_bytes() == before
