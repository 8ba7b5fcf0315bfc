"""The three files that say what to install agree with each other."""

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
