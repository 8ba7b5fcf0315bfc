"""Badges, links and copies for Colab come from one address, and there are none without it. The copy's first cell installs
beside the torch that is there."""

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

from mipo_nb.base.files import project_root
from mipo_nb.lab import colab
from mipo_nb.lab.notebooks import collection

ADDRESS = "https://github.com/somebody/mipo"
COLLECTION = collection()


def test_without_an_address_there_is_nothing():
    assert colab.badges({}) == "" and colab.copies(COLLECTION, "") == {}
    assert colab.link("00_start_here", "") == ""


def test_badges_are_of_this_address():
    shown = colab.badges({"Repository": ADDRESS})
    assert re.findall(r"!\[(\w+)\]", shown) == ["tests", "licence", "paper"] and shown.count(ADDRESS) == 2
    assert "[![site](" in colab.badges({"Repository": ADDRESS, "Documentation": "https://somewhere.org"})


def test_the_address_is_read_from_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "project_root", lambda: tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\n')
    assert colab.addresses() == {}
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{ADDRESS}/"\n')
    assert colab.addresses() == {"Repository": ADDRESS}


def test_copies_keep_the_code_and_lose_no_link():
    copies = colab.copies(COLLECTION, ADDRESS)
    assert [Path(file).name[:2] for file in copies] == ["00", "01", "03", "10", "11"]
    for file, text in copies.items():
        copy, name = nbformat.reads(text, as_version=4), Path(file).stem
        nbformat.validate(copy)
        assert colab.link(name, ADDRESS).endswith(f"/github/somebody/mipo/blob/main/{file}")
        codes = [cell.source for cell in copy.cells if cell.cell_type == "code"]
        assert codes[0].count(ADDRESS) == 1 and codes[1:] == [c.source for c in COLLECTION[name].code_cells]
        for cell in copy.cells:
            assert not cell.get("outputs")
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", cell.source) if cell.cell_type == "markdown" else ():
                if target.startswith(ADDRESS):
                    _, kind, branch, path = target.removeprefix(ADDRESS).split("/", 3)
                    assert kind in ("blob", "raw") and branch == "main" and (project_root() / path).exists(), target
                else:
                    assert target.startswith("http")


INSTALLS = """
import sys, torch
from IPython.core.interactiveshell import InteractiveShell
there = torch.__file__, torch.__version__
shell = InteractiveShell.instance()
done = shell.run_cell(sys.stdin.read())
done.raise_error()
for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
    del sys.modules[name]
sys.path[0] = ""  # as in a kernel
import mipo_nb
from mipo_nb import runs
import importlib.util
assert importlib.util.find_spec("torch").origin == there[0], "another torch"
print("kept", there, mipo_nb.__file__)
"""


@pytest.mark.whole
def test_the_first_cell_installs_beside_the_torch_that_is_there(tmp_path):
    """In an environment of its own that sees this one's libraries, torch among them, and not the project."""
    [cell] = [
        nbformat.reads(t, as_version=4).cells[1] for f, t in colab.copies(COLLECTION, ADDRESS).items() if "/00" in f
    ]
    here, fresh = Path(sysconfig.get_path("purelib")), tmp_path / "fresh"
    venv.create(fresh, with_pip=True)
    (tmp_path / "libraries").mkdir()
    for entry in here.iterdir():
        if not entry.name.startswith(("mipo_nb", "__editable__", "pip")):
            (tmp_path / "libraries" / entry.name).symlink_to(entry)
    site = fresh / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "there.pth").write_text(str(tmp_path / "libraries"))
    (tmp_path / "home").mkdir()
    code = cell.source.replace(ADDRESS, project_root().as_uri())
    done = subprocess.run(
        [fresh / "bin" / "python", "-c", INSTALLS], input=code, cwd=tmp_path / "home", capture_output=True, text=True,
        env={"PATH": f"{fresh / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0 and "kept" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    assert str(tmp_path / "home" / "mipo-notebooks") in done.stdout.splitlines()[-1]
    assert not [entry.name for entry in site.iterdir() if entry.name.startswith("torch")]
