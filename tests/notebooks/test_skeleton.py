"""The committed notebooks: one order of parts, readable cells, and outputs that belong to the code they stand under."""

import ast
import re

import pytest

from mipo_nb.base.files import project_root
from mipo_nb.lab import settings, tables
from mipo_nb.lab.notebooks import collection

COLLECTION = collection()
NOTEBOOKS = {name: notebook.content for name, notebook in COLLECTION.items()}
OWN = {"PROFILE": "auto", "SEED": 0, "MODEL": None, "OUTPUT_DIR": "runs"}
ENDING = ["What we found", "Limits", "Exercises", "References", "Next"]
SECRET = re.compile(r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|api_key\s*=\s*['\"]\w{16,}")
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|var|opt)/\w")

pytestmark = pytest.mark.parametrize("name", NOTEBOOKS)


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def prose(notebook):
    return [c for c in notebook.cells if c.cell_type == "markdown"]


def headings(notebook):
    return [line[3:].strip() for c in prose(notebook) for line in c.source.splitlines() if line.startswith("## ")]


def texts_of_outputs(notebook):
    for cell in code(notebook):
        for output in cell.get("outputs", []):
            yield from (
                output.get("text", ""),
                *(v for k, v in output.get("data", {}).items() if k.startswith("text/")),
            )


def test_opens_with_title_claim_and_cost(name):
    lines = NOTEBOOKS[name].cells[0].source.splitlines()
    assert re.match(rf"# {name[:2]} · \w", lines[0])
    claim = next(line for line in lines if line.startswith("**"))
    assert claim.endswith("**") and len(claim.split()) > 8
    assert re.search(r"Minutes: .*memory .*network: .*needs: ", lines[-1])


def test_parts_are_in_order(name):
    found = headings(NOTEBOOKS[name])
    assert found[0] == "What you will learn"
    assert found[-5:] == ENDING


def test_one_parameters_cell_of_literals(name):
    cells = [c for c in code(NOTEBOOKS[name]) if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    values = {}
    exec(cells[0].source, {}, values)
    assert all(values[k] == v for k, v in OWN.items())
    assert len(values) - len(OWN) <= 4
    index = code(NOTEBOOKS[name]).index(cells[0])
    assert all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(code(NOTEBOOKS[name])[0].source).body)
    assert index == 1 and "runs.start(" in code(NOTEBOOKS[name])[2].source


def test_sections_begin_with_words(name):
    cells = NOTEBOOKS[name].cells
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            body = "\n".join(cell.source.splitlines()[1:]).strip()
            assert body or cell.source.startswith("## What we found"), cell.source


def test_length_of_text_and_cells(name):
    words = sum(len(c.source.split()) for c in prose(NOTEBOOKS[name]))  # how many at most: see `test_prose`
    lengths = sorted(len(c.source.splitlines()) for c in code(NOTEBOOKS[name]))
    assert words >= 900
    assert lengths[len(lengths) // 2] <= 10 and lengths[-1] <= 40


def test_exercises_have_difficulty_minutes_check_and_solution(name):
    exercises = [
        c for c in prose(NOTEBOOKS[name]) if re.search(r"\*\*\d\. .*\*\* \((easy|medium|hard), \d+ minutes\)", c.source)
    ]
    solutions = [c for c in code(NOTEBOOKS[name]) if "solution" in c.metadata.get("tags", [])]
    assert len(exercises) == len(solutions) >= 2
    assert all("checks." in c.source for c in solutions)


def test_no_cell_needs_a_solution(name):
    """So that a student's copy, which has none, runs to its end unsolved."""
    made = set()
    for cell in code(NOTEBOOKS[name]):
        solution = "solution" in cell.metadata.get("tags", [])
        nodes = list(ast.walk(ast.parse(cell.source)))
        read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        if solution:
            made |= bound
        else:
            made -= bound
            assert not read & made, f"{sorted(read & made)} come from a solution: {cell.source[:60]}"


def test_no_numbers_are_typed_into_the_findings(name):
    """What we found is printed by a cell, not typed."""
    cells = NOTEBOOKS[name].cells
    start = next(i for i, c in enumerate(cells) if c.source.startswith("## What we found"))
    assert cells[start + 1].cell_type == "code" and "Markdown(" in cells[start + 1].source


def test_no_secret_and_no_absolute_path(name):
    notebook = NOTEBOOKS[name]
    for text in [*(c.source for c in notebook.cells), *texts_of_outputs(notebook)]:
        assert not SECRET.search(text)
        assert not ABSOLUTE.search(text), ABSOLUTE.search(text)


def test_outputs_are_of_this_code_and_of_the_laptop_profile(name):
    notebook = NOTEBOOKS[name]
    stamp = notebook.metadata["mipo_nb"]
    assert stamp["manifest"]["profile"] == "laptop"
    assert stamp["code"] == COLLECTION[name].code, "code changed since it was run: mipo-nb run NN --publish"
    used = set(re.findall(r"\bs\.(\w+)", "\n".join(c.source for c in code(notebook)))) | {"model"}
    numbers = settings.profile_numbers("laptop", name)
    ran_with = {"model": stamp["manifest"]["model"], **stamp["manifest"]["numbers"]}
    for number in used & set(numbers):
        assert ran_with.get(number) == numbers[number], f"laptop's {number} changed since it was run"


def test_cells_ran_once_and_in_order(name):
    notebook = NOTEBOOKS[name]
    assert [c.execution_count for c in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not any(o.output_type == "error" for c in code(notebook) for o in c.outputs)
    assert not any(o.get("name") == "stderr" for c in code(notebook) for o in c.outputs)  # what libraries complain of


def test_no_heap_of_progress_bars(name):
    for text in texts_of_outputs(NOTEBOOKS[name]):
        assert "it/s]" not in text and "s/it]" not in text


def test_figures_have_alt_text_and_lie_beside_their_tables(name):
    figures = 0
    for cell in code(NOTEBOOKS[name]):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                figures += 1
                assert len(output.metadata["image/png"]["alt"].split()) >= 8
    folder = project_root() / "figures"
    assert len(list(folder.glob(f"{name[:2]}_*.png"))) == figures
    assert {p.stem for p in folder.glob(f"{name[:2]}_*.png")} == {p.stem for p in folder.glob(f"{name[:2]}_*.csv")}


def test_nothing_is_drawn_in_the_order_of_a_set(name):
    """Which Python draws anew in each process, so that the same seed would give other numbers."""
    for cell in code(NOTEBOOKS[name]):
        assert not re.search(r"\bin set\(|\blist\(set\(|\benumerate\(set\(", cell.source), cell.source


def test_size(name):
    assert COLLECTION[name].path.stat().st_size < 1_500_000


def test_tables_are_up_to_date(name):
    assert tables.write(check=True) == [], "run mipo-nb tables"


def without_options(source):
    """Line numbers of a cell where it says how a model or tokenizer is loaded, or trained, and leaves the run's
    `template_options` out; `**s.weights` has them, and what is written as `**name` is looked at where it is made."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=function, args=given, keywords=keywords):
                called = ast.unparse(function)
                names = {keyword.arg for keyword in keywords}  # None where it is written with **
                names |= {arg.attr for arg in given if isinstance(arg, ast.Attribute)}
            case ast.Dict(keys=keys):
                called, names = "", {getattr(key, "value", None) for key in keys}
            case _:
                continue
        reads = called not in ("costs.memory_budget", "training.dpo_arguments") and {"device", "dtype"} <= names
        if (reads or called in ("models.load", "models.load_tokenizer")) and not {"template_options", None} & names:
            found.append(node.lineno)
    return sorted(found)


def test_the_options_of_a_template_reach_every_tokenizer(name):
    lost = [line for cell in code(NOTEBOOKS[name]) for line in without_options(cell.source)]
    assert not lost
