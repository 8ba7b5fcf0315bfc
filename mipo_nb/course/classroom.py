"""For a class: the notebooks without their solutions."""

import os
import tempfile
from pathlib import Path

import nbformat

from mipo_nb.base.errors import UserError
from mipo_nb.lab.notebooks import collection


def student_copy(out):
    """Copy the notebooks to the new folder `out`, without solutions, outputs and the record of their run.

    Returns the paths written. Raises `UserError` for a folder that has something in it or cannot be written.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name a folder that is new or empty.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as work:
            copies = Path(work) / "copies"
            copies.mkdir()
            for name, notebook in collection().items():
                nbformat.write(_without_solutions(notebook.content), copies / f"{name}.ipynb")
            os.replace(copies, out)
    except OSError as e:
        raise UserError(f"{out} cannot be written ({e.strerror}); name a folder that can.") from None
    return sorted(out.glob("*.ipynb"))


def _without_solutions(notebook):
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("mipo_nb", None)
    notebook.metadata.pop("widgets", None)
    return notebook
