"""The house: which folder may import which, how large its rooms are, and that every room has its name on the door."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mipo_nb
from mipo_nb.lab.steps import imported_modules

ROOT = Path(mipo_nb.__file__).parent
FILES = {f.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): f for f in sorted(ROOT.rglob("*.py"))}
MODULES = {name: file for name, file in FILES.items() if file.name != "__init__.py"}
# What the files of a folder may import besides one another; "" are the files at the root, which are the method.
MAY = {
    "base": [],
    "wishes": ["base"],
    "engine": ["base"],
    "": ["base", "wishes", "engine"],
    "lab": ["base", "engine", ""],
    "verifiable": ["base", "engine", "", "lab"],
    "paper": ["base", "engine", "", "lab", "verifiable"],
    "studies": ["base", "engine", "", "lab", "verifiable", "paper"],
    "course": ["base", "engine", "", "lab", "verifiable", "paper"],
}
MAY["command"] = list(MAY)


def folder_of(module):
    return module.rpartition(".")[0]


def imports(file):
    """Names of this package's modules that a file imports, at its top or inside functions."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {name.removeprefix("mipo_nb.") for node in nodes for name in imported_modules(node)}


def refused(module, imported):
    """The imports of a module that its folder's rule forbids."""
    own = folder_of(module)
    allowed = MAY[own] if own == "studies" else [own, *MAY[own]]
    return sorted(name for name in imported if folder_of(name) not in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_what_its_folder_may(module):
    assert refused(module, imports(MODULES[module])) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("base.files", "from mipo_nb import pairs"),
        ("wishes.recital", "from mipo_nb import evaluation"),
        ("engine.packing", "from mipo_nb.scoring import log_probabilities"),
        ("training", "from mipo_nb.lab.costs import memory_budget"),
        ("training", "from mipo_nb import runs"),  # by its name on the face
        ("studies.swaps", "from mipo_nb.studies import arms"),
        ("lab.claims", "def f():\n    from mipo_nb.command import report"),
    ],
)
def test_a_forbidden_import_is_found(module, line, tmp_path):
    (tmp_path / "file.py").write_text(line)
    assert refused(module, imports(tmp_path / "file.py"))


def test_no_circle():
    waiting = {module: {name for name in imports(file) if name in MODULES} for module, file in MODULES.items()}
    while ready := [module for module, needs in waiting.items() if not needs]:
        waiting = {module: needs - set(ready) for module, needs in waiting.items() if needs}
    assert not waiting


def test_every_module_is_on_the_face_once():
    assert sorted(mipo_nb.MODULES.values()) == sorted(MODULES)
    for name in mipo_nb.MODULES:
        assert name in dir(mipo_nb)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mipo_nb.nothing  # noqa: B018


def test_a_name_on_the_face_is_the_module():
    from mipo_nb import reasoning
    from mipo_nb.verifiable import grading

    assert reasoning is grading


@pytest.mark.parametrize("folder", [folder for folder in MAY if folder])
def test_a_folder_says_what_it_promises_and_may_import(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {folder}\n") and len(text.splitlines()) <= 12
    said = set(re.findall(r"`(\w+)`", text.partition("May import:")[2]))
    said |= {""} if "files at the root" in text else set()
    assert said == (set() if folder == "command" else set(MAY[folder]))


def test_the_tree_shows_every_folder():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(re.search(rf"^  {folder}/ ", text, re.MULTILINE) for folder in MAY if folder)
    assert all(f"{name}.py" in text for name in MODULES if "." not in name)


def test_rooms_are_small():
    long = []
    for name, file in FILES.items():
        text = file.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        long += [f"{name}: {lines} lines"] if lines > 250 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 45:
                long.append(f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines")
    root = sum(len(file.read_text(encoding="utf-8").splitlines()) for name, file in MODULES.items() if "." not in name)
    assert not long and root < 2000


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, mipo_nb; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_tests_of_a_file_share_a_process(request):
    """Else each process loads every model, and two clusters are started side by side."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process")
    assert request.node.nodeid.endswith("@test_house.py")
