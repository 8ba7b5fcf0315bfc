"""Notebooks for Colab: copies with a first cell that installs the project. One setting, the repository's address in
pyproject.toml, says where they are; while there is none, there are no copies and no links."""

import copy
import re
import tomllib

from mipo_nb.base.files import project_root

NUMBERS = ("00", "01", "03", "10", "11")
_OPEN = "https://colab.research.google.com/github"
_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)]+)\)")
# pip keeps the runtime's torch, or says that it is too old: it never takes another.
_INSTALL = """import os
from importlib.metadata import version

if not os.path.exists("mipo_nb"):
    !git clone --quiet --depth 1 {address} mipo-notebooks
    %cd mipo-notebooks
!echo "torch=={{version('torch')}}" > torch.txt
%pip install --quiet --constraint torch.txt --editable ."""


def addresses():
    """{"Repository", "Documentation"}: those of the two that `[project.urls]` of pyproject.toml has."""
    project = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name: url.rstrip("/") for name, url in project.get("urls", {}).items()}


def link(name, address):
    """The link that opens the copy of a notebook in Colab; "" for one that has none, and without an address."""
    served = address and name[:2] in NUMBERS
    return f"{_OPEN}/{address.partition('github.com/')[2]}/blob/main/colab/{name}.ipynb" if served else ""


def badges(urls):
    """The badges of the README in Markdown: tests, licence, paper, and the site where it has an address."""
    if not (address := urls.get("Repository")):
        return ""
    tests, badge = f"{address}/actions/workflows/tests.yml", "https://img.shields.io/badge"
    shown = (
        ("tests", f"{tests}/badge.svg", tests),
        ("site", f"{badge}/site-read-0072B2", urls.get("Documentation")),
        ("licence", f"{badge}/licence-Apache--2.0-0072B2", "LICENSE"),
        ("paper", f"{badge}/arXiv-2603.19294-0072B2", "https://arxiv.org/abs/2603.19294"),
    )
    return " ".join(f"[![{what}]({picture})]({target})" for what, picture, target in shown if target)


def copies(notebooks, address):
    """{file: text} of the copies: without outputs, with links that lead to the repository and the cell that installs."""
    import nbformat

    served = {name: notebook for name, notebook in notebooks.items() if link(name, address)}
    return {
        f"colab/{name}.ipynb": nbformat.writes(_copy(notebook.content, address)) + "\n"
        for name, notebook in served.items()
    }


def _copy(content, address):
    from nbformat.v4 import new_code_cell

    notebook = copy.deepcopy(content)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = _LINK.sub(lambda found: _absolute(address, *found.groups()), cell.source)
    notebook.cells.insert(1, new_code_cell(_INSTALL.format(address=address), id="colab"))
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return notebook


def _absolute(address, picture, text, target):
    """A link of a notebook as one that leads to the repository; pictures as they are, pages as the code host shows them."""
    file = target.removeprefix("../") if target.startswith("../") else f"notebooks/{target}"
    return f"{picture}{text}({address}/{'raw' if picture else 'blob'}/main/{file})"
