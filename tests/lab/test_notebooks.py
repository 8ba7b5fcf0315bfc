"""What a notebook stands on, and what of it has changed since its committed run."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mipo_nb.base.files import project_root
from mipo_nb.lab import steps, tables
from mipo_nb.lab.notebooks import Notebook
from mipo_nb.lab.provenance import code_hash

MANIFEST = {
    "model": "m", "seed": 0, "device": "cpu", "dtype": "float32", "git": {"commit": "0123456789", "dirty": False},
    "libraries": dict.fromkeys(("torch", "transformers", "trl", "peft"), "1.0"),
}  # fmt: skip
RESULT = {"name": "gain", "value": 0.5, "low": None, "high": None, "n": None, "unit": "nats", "seed": 0}


@pytest.fixture
def published(tmp_path):
    """A notebook with the stamp of a run."""

    def written(**stamp):
        cells = [
            new_markdown_cell("# Tiny"),
            new_code_cell("from mipo_nb import checks, mipo, runs\nfrom mipo_nb.base import files"),
        ]
        metadata = {"mipo_nb": {"manifest": MANIFEST, "results": [RESULT], **stamp}}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "01_tiny.ipynb")
        return Notebook(tmp_path / "01_tiny.ipynb")

    return written


def test_a_notebook_stands_on_what_its_cells_import_and_what_that_imports(published):
    modules = published().modules
    assert {"mipo_nb.mipo", "mipo_nb.prompts", "mipo_nb.engine.decoding"} <= set(modules)
    assert not [name for name in modules if name.split(".")[1] in ("lab", "course", "command")]
    assert not [name for name in modules if name in [f"mipo_nb.base.{plain}" for plain in steps._PLAIN]]
    prompts = (project_root() / "mipo_nb" / "prompts.py").read_text(encoding="utf-8")
    assert modules["mipo_nb.prompts"] == code_hash(prompts)


def test_what_changed_since_its_run_is_named(published):
    now = published().modules
    assert published(modules=now).changed_since == ""
    then = {**now, "mipo_nb.prompts": "0" * 16, "mipo_nb.engine.decoding": "0" * 16, "mipo_nb.studies.gone": "0" * 16}
    del then["mipo_nb.models"]
    changed = published(modules=then)
    assert changed.changed_since == "Modules changed since this run: decoding, gone, models, prompts."
    assert "peft 1.0. Modules changed since this run: decoding, gone, models, prompts.\n" in tables._part(changed)
    assert "peft 1.0.\n" in tables._part(published(modules=now))


def test_a_run_that_did_not_write_it_down_names_its_commit(published):
    told = "Modules changed since this run: not recorded"
    assert published().changed_since == f"{told}, it ran from commit 0123456."
    assert published(manifest={**MANIFEST, "git": None}).changed_since == f"{told}."
    assert published(manifest=None).changed_since == ""


CODE = '''"""A module."""

import os  # for its name


class A:
    """Doc."""

    def f(self, x):
        """One
        two."""
        return f"{x} # {os.name!r}"  # said
'''
SAME = [
    CODE.replace("A module", "Another"),
    CODE.replace("  # said", "").replace("  # for its name", "  # why"),
    CODE.replace("One\n        two.", "One."),
    CODE.replace("class A", "# Alone.\n\n\nclass A"),
    CODE.replace('"""A module."""\n', ""),
]
OTHER = [
    CODE.replace("{x} #", "{x} ##"),
    CODE.replace("return", "yield"),
    CODE.replace("class A", "class B"),
    CODE.replace("import os", "import sys as os"),
    CODE.replace('"""Doc."""', 'doc = """Doc."""'),
    CODE.replace("        return", "    return"),
]


def test_only_code_counts():
    assert CODE not in SAME + OTHER and {code_hash(text) for text in SAME} == {code_hash(CODE)}
    assert len({code_hash(text) for text in (CODE, *OTHER)}) == 1 + len(OTHER)


def test_the_hash_is_the_same_on_every_python():
    assert code_hash(CODE) == "ef97cdfa909b7930"
