"""What a notebook stands on, and what of it has changed since its committed run."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.lab import runs, settings, steps, tables
from mipo_nb.lab.notebooks import Notebook, collection, put_by_papermill, require_read, selected
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


# --- which numbers of a profile a notebook reads ---

# Stand in a table and are read by nobody: 30's word for what the published protocol does, and one of 10.
UNREAD = {("30_reproduce_personalization", "negative"), ("10_building_pairs", "epochs")}


def test_a_notebook_reads_what_its_own_tables_have():
    """Else a number would be refused that does something."""
    for name, book in collection().items():
        for profile in settings.profile_names(name):
            table = settings.read_toml(settings.profile_file(profile)).get(name, {})
            unread = {(name, number) for number in table if number not in {*book.numbers, "time_out"}}
            assert unread <= UNREAD, profile


@pytest.mark.parametrize(
    ("books", "name", "told"),
    [
        (["12"], "N_AUDIT", "Unknown parameter 'N_AUDIT'"),  # a number of 10
        (["12"], "zzz", "Unknown parameter 'zzz'"),
        (["10"], "LORA_RANK", "LORA_RANK is a number that 10_building_pairs does not read"),
        (["01"], "EPOCHS", "EPOCHS is a number that 01_"),
        (["01", "10"], "WARMUP", "WARMUP is a number that 01_pointwise_mutual_information, 10_building_pairs does not"),
        (["11"], "REPORT_TO", "REPORT_TO is a number that 11_qlora_mipo does not read"),
        (["12"], "PATIENCE", "PATIENCE is a number that 12_"),
        (["13"], "NEGATIVE", "NEGATIVE is a number that 13_"),
    ],
)
def test_a_number_that_no_notebook_reads_is_refused(books, name, told):
    with pytest.raises(UserError) as caught:
        require_read(selected(books), [name], "smoke")
    assert str(caught.value).startswith(told)


def test_a_number_that_one_of_them_reads_is_taken():
    require_read(selected(["10", "11"]), ["LORA_RANK", "N_AUDIT", "SEED", "N_PAIRS", "SYSTEM"], "smoke")
    require_read(selected(["12"]), ["DATA", "ADAPTER", "TEMPERATURE", "BETA", "FOUR_BIT", "RULES_FILE"], "smoke")
    require_read(selected(["15"]), ["REPORT_TO", "PATIENCE", "EVALUATE_EVERY"], "smoke")
    assert selected(["11"])[0].takes("LORA_RANK", "smoke") and not selected(["10"])[0].takes("LORA_RANK", "smoke")
    for number, name, taken in (("15", "LEARNING_RATE", False), ("14", "NEGATIVE", False), ("14", "BETA", True)):
        assert selected([number])[0].takes(name, "laptop") is taken  # of some a page tries several
    assert selected(["32"])[0].takes("TEMPERATURE", "laptop")  # beside its `temperatures`


def test_what_papermill_puts_there_is_checked_by_the_run(monkeypatch, tmp_path):
    cells = ["EPOCHS = 3", "# Parameters\nPROFILE = 'smoke'\nSEED = 1\nLORA_RANK = 4\n", "run = 1"]
    assert put_by_papermill(cells) == ["LORA_RANK"] and put_by_papermill(cells[:1]) == []
    monkeypatch.setattr(runs, "_variables", lambda: {"In": cells, "LORA_RANK": 4})
    with pytest.raises(UserError, match="LORA_RANK is a number that 10_building_pairs does not read"):
        runs.start("10_building_pairs", "smoke", output_dir=tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert runs.start("11_qlora_mipo", "smoke", output_dir=tmp_path / "out").settings.lora_rank == 4
