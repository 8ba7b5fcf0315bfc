"""The three files that say what to install agree with each other."""

import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from mipo_nb.base.files import project_root

PROJECT = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [Requirement(r) for r in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]]
LINES = (project_root() / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line.strip() and not line.startswith("#")]


def pinned():
    return {canonicalize_name(p.name): Version(str(p.specifier).removeprefix("==")) for p in PINS}


def test_every_constraint_is_one_exact_version():
    for pin in PINS:
        [only] = pin.specifier
        assert only.operator == "==" and "*" not in only.version, pin
    names = [canonicalize_name(p.name) for p in PINS]
    assert len(names) == len(set(names))
    assert names == sorted(names)


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
def test_every_dependency_is_pinned_inside_its_range(wanted):
    assert wanted.specifier, f"{wanted.name} has no range"
    assert wanted.specifier.contains(pinned()[canonicalize_name(wanted.name)])


def test_markers_agree():
    markers = {canonicalize_name(p.name): p.marker and str(p.marker) for p in PINS}
    for wanted in WANTED:
        assert markers[canonicalize_name(wanted.name)] == (wanted.marker and str(wanted.marker)), wanted.name


def test_torch_is_the_one_that_was_tested():
    assert pinned()["torch"] == Version("2.13.0")


def test_conda_gets_its_packages_from_the_same_files():
    environment = yaml.safe_load((project_root() / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    [python] = [d for d in plain if d.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert "pip" in plain and len(plain) == 2
    [pip] = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    options = dict(line.split(maxsplit=1) for line in pip)
    assert options == {"--constraint": "constraints.txt", "--editable": ".[test]"}
    assert "test" in PROJECT["optional-dependencies"]
    assert (project_root() / options["--constraint"]).is_file()


# On processors with AVX512-BF16 bitsandbytes looks for the library `kernels` when it is imported, and complains that it is
# not there. This process has such a processor, as far as bitsandbytes is told.
WITH_BF16 = """
import importlib.abc, importlib.util, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "bitsandbytes.functional":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        own = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (own(module), setattr(module, "has_avx512bf16", lambda: True))
        return spec

sys.meta_path.insert(0, Finder())
sys.modules["kernels"] = None  # as where it is not installed
"""
IMPORTED = {
    "mipo-nb --help": "sys.argv = ['mipo-nb', '--help']\nfrom mipo_nb.command.cli import main\nmain()",
    "the trainers": "import mipo_nb\nmipo_nb.trainers, mipo_nb.self_distillation\nimport bitsandbytes",
}


def said_on_import(code):
    """All that a process of its own says."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WITH_BF16 + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("what", ["mipo-nb --help", pytest.param("the trainers", marks=pytest.mark.whole)])
def test_no_library_complains_that_another_is_not_there(what):
    assert "pip install" not in said_on_import(IMPORTED[what])


@pytest.mark.whole
def test_without_us_the_complaint_is_there():
    assert "pip install kernels" in said_on_import("import bitsandbytes")
