"""For a class: the notebooks without their solutions, and their exercises as a course that nbgrader marks."""

import ast
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mipo_nb.base.errors import UserError
from mipo_nb.lab.notebooks import collection

POINTS = {"easy": 1, "medium": 2, "hard": 3}
_EXERCISE = re.compile(r"\*\*\d\. .*\*\* \((easy|medium|hard), \d+ minutes\)")

# For nbgrader, which runs it before each of its commands; the kernels that it starts inherit the variable.
_CONFIG = '''"""Run nbgrader in this folder: generate_assignment NAME, collect into submitted/STUDENT/NAME, autograde NAME, export."""

import os

os.environ["MIPO_NB_STRICT"] = "1"  # a failed check raises, and so costs its points

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "mipo"
c.ClearSolutions.code_stub = {"python": "...  # your code"}
c.Execute.timeout = 120
'''


def student_copy(out):
    """Copy the notebooks to the new folder `out`, without solutions, outputs and the record of their run.

    Returns the paths written. Raises `UserError` for a folder that has something in it or cannot be written.
    """

    def fill(folder):
        for name, notebook in collection().items():
            nbformat.write(_without_solutions(notebook.content), folder / f"{name}.ipynb")

    return _made(out, fill)


def nbgrader_course(out):
    """Write the new folder `out` for nbgrader: its configuration and, in `source/`, an assignment for each notebook.

    An assignment holds the exercises alone, so marking it needs no model: for each its text, the solution between marks
    that nbgrader takes out of what it releases, and a check of one (easy) to three points (hard). Returns the notebooks
    written. Raises `UserError` as `student_copy` does.
    """

    def fill(folder):
        (folder / "nbgrader_config.py").write_text(_CONFIG, encoding="utf-8")
        for name, notebook in collection().items():
            (folder / "source" / name).mkdir(parents=True)
            nbformat.write(_assignment(name, notebook.content), folder / "source" / name / f"{name}.ipynb")

    return _made(out, fill)


def _made(out, fill):
    """The notebooks in `out`, which `fill(folder)` makes whole before it has its name."""
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name a folder that is new or empty.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as work:
            folder = Path(work) / "made"
            folder.mkdir()
            fill(folder)
            os.replace(folder, out)
    except OSError as e:
        raise UserError(f"{out} cannot be written ({e.strerror}); name a folder that can.") from None
    return sorted(out.rglob("*.ipynb"))


def _without_solutions(notebook):
    notebook.cells = [cell for cell in notebook.cells if not _is_solution(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("mipo_nb", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def _is_solution(cell):
    return "solution" in cell.metadata.get("tags", [])


def _assignment(name, notebook):
    """The exercises of a notebook as nbgrader reads them."""
    title = notebook.cells[0].source.splitlines()[0]
    about = (
        f"{title}: exercises\n\nThey belong to `{name}.ipynb`. Write into the cell below each; the next one checks it."
    )
    cells = [
        _marked(new_markdown_cell(about), "about", locked=True),
        _marked(new_code_cell(_imports(notebook)), "imports", locked=True),
    ]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and _EXERCISE.search(cell.source)]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    blanks = [cell.source for cell in code if "# your code" in cell.source]
    solutions = [cell.source for cell in code if _is_solution(cell)]
    for k, (text, blank, solution) in enumerate(zip(texts, blanks, solutions, strict=True), start=1):
        points = POINTS[_EXERCISE.search(text)[1]]
        [check] = [line for line in blank.splitlines() if line.startswith("checks.")]
        cells += [
            _marked(new_markdown_cell(text.removeprefix("## Exercises").strip()), f"exercise-{k}", locked=True),
            _marked(new_code_cell(_between_marks(solution)), f"answer-{k}", solution=True),
            _marked(new_code_cell(check), f"check-{k}", locked=True, grade=True, points=points),
        ]
    kept = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return new_notebook(cells=cells, metadata=kept)


def _marked(cell, grade_id, *, grade=False, solution=False, locked=False, **points):
    """A cell with nbgrader's metadata: a `solution` is cleared, a `grade` is run for its points, what is `locked` stays."""
    cell.id, kind = grade_id, {"grade": grade, "solution": solution, "locked": locked, "task": False}
    cell.metadata["nbgrader"] = {"schema_version": 3, "grade_id": grade_id, **kind, **points}
    return cell


def _imports(notebook):
    """What exercises need: numpy, and the module that the notebook calls `checks`."""
    nodes = [node for cell in notebook.cells if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))]
    aliases = [a for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "mipo_nb" for a in node.names]
    name = next(alias.name for alias in aliases if "checks" in (alias.name, alias.asname))
    return f"import numpy as np\n\nfrom mipo_nb import {name}" + (" as checks" if name != "checks" else "")


def _between_marks(solution):
    """The function of a solution with nbgrader's marks around its body, without what follows it."""
    function = next(node for node in ast.parse(solution).body if isinstance(node, ast.FunctionDef))
    lines = solution.splitlines()
    head, body = lines[function.lineno - 1], lines[function.lineno : function.end_lineno]
    return "\n".join([head, "    ### BEGIN SOLUTION", *body, "    ### END SOLUTION"])
