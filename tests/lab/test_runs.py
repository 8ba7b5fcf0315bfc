"""A run: steps that are computed once, what they are keyed by, and what a run leaves on disk."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.base import files, progress
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.command import random_models
from mipo_nb.engine import templates
from mipo_nb.engine.decoding import Sampling
from mipo_nb.lab import runs, steps, store
from mipo_nb.statistics import Estimate

values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)

# Each call leaves a mark in the step's own list, so that a test can count how often it was computed.
calls = []


@pytest.fixture
def run(tmp_path):
    calls.clear()
    return runs.start("01_test", "laptop", seed=7, output_dir=str(tmp_path))


def twice(x, offset=0):
    calls.append(x)
    return 2 * x + offset


def drawn(finished):
    return Dataset.from_list([{"text": "a", "finished": done} for done in finished])


def several(first, second, step):
    return [step("one", drawn, first), {"of": step("other", drawn, second)}, 3]


@pytest.mark.parametrize("again", [False, True], ids=["computed", "found"])
def test_the_share_of_cut_responses_counts_every_sample_once_however_it_was_found(run, tmp_path, again):
    assert run.cut_share() == "No response was sampled for this page."
    if again:
        run.step("several", several, [True, False], [True] * 5 + [False], step=run.step)
        run = runs.start("02_other", "laptop", output_dir=str(tmp_path))
    for name in ("several", "the same by another name"):
        run.step(name, several, [True, False], [True] * 5 + [False], step=run.step)
    run.step("found by itself too", drawn, [True, False])
    run.step("all", drawn, [True] * 4)
    run.step("no sample", twice, 3)
    told = "Of 12 responses that were sampled for this page, 17% were cut at the limit of their tokens"
    assert run.cut_share() == f"{told}: from 0 to 50% of one of the 3 samples."
    found = run.results[-1]
    assert (found["value"], found["n"], found["unit"]) == (pytest.approx(100 / 6), 12, "%")


def test_a_step_is_computed_once_and_found_again(run, tmp_path):
    assert run.step("double", twice, 3) == 6
    assert run.step("double", twice, 3) == 6
    assert calls == [3]
    again = runs.start("02_other", "laptop", seed=8, output_dir=str(tmp_path))
    assert again.step("double", twice, 3) == 6
    assert calls == [3]
    assert [s["found"] for s in run.steps + again.steps] == [False, True, True]
    assert len({s["key"] for s in run.steps + again.steps}) == 1


def test_another_argument_or_function_is_another_step_and_another_name_is_not(run):
    def thrice(x, offset=0):
        calls.append(x)
        return 3 * x + offset

    results = [
        run.step("double", twice, 3),
        run.step("double", twice, 4),
        run.step("double", twice, 3, offset=1),
        run.step("other", twice, 3),
        run.step("double", thrice, 3),
    ]
    assert results == [6, 8, 7, 6, 9]
    assert calls == [3, 4, 3, 3]
    assert [s["found"] for s in run.steps] == [False, False, False, True, False]
    assert run.steps[3]["name"] == "other"


def test_one_call_written_in_several_ways_is_one_step(run):
    assert {run.step("double", twice, 3), run.step("double", twice, x=3), run.step("double", twice, 3, offset=0)} == {6}
    assert calls == [3]


def slow(x, fail, step):
    value = step("inner", waits, x)
    if fail.exists():
        raise RuntimeError("killed")
    return value


def waits(x):
    time.sleep(0.3)
    return x


def test_the_seconds_of_a_step_hold_those_of_what_it_found_from_an_earlier_start(run, tmp_path):
    fail = tmp_path / "fail"
    fail.touch()
    with pytest.raises(RuntimeError):
        run.step("outer", slow, 1, fail, step=run.step)
    fail.unlink()
    run.step("outer", slow, 1, tmp_path / "fail", step=run.step)
    run.step("outer", slow, 1, tmp_path / "fail", step=run.step)
    assert run.seconds("outer")[0] == run.seconds("outer")[1] >= 0.3
    assert len(run.seconds("inner")) == 2 and run.seconds("other") == []


class Backwards:
    """Brings what a grid lacks as a cluster may: the last call first."""

    def brought(self, steps, name, function, calls):
        return reversed(range(len(calls)))


def test_a_map_gives_results_and_steps_in_the_order_of_its_grid(tmp_path):
    steps = store.Steps(tmp_path, cluster=Backwards())
    calls.clear()
    steps("before", twice, 9)
    assert steps.map("double", twice, [{"x": 1}, {"x": 2}, {"x": 3}]) == [2, 4, 6]
    assert calls == [9, 3, 2, 1]
    expected = [steps.place(twice, x=x).name.rpartition("-")[2] for x in (9, 1, 2, 3)]
    assert [entry["key"] for entry in steps.taken] == expected


def test_a_step_that_fails_is_tried_again(run):
    def fails(folder):
        (folder / "partial").write_text("kept")
        calls.append(len(list(folder.iterdir())))
        if len(calls) == 1:
            raise RuntimeError("killed")
        return (folder / "partial").read_text()

    with pytest.raises(RuntimeError):
        run.step("hard", fails)
    assert run.steps == []
    assert run.step("hard", fails) == "kept"
    assert run.step("hard", fails) == "kept"
    assert len(calls) == 2


def test_a_step_with_a_folder_may_return_a_path_in_it(run):
    def writes(folder):
        (folder / "adapter").mkdir()
        return {"adapter": folder / "adapter"}

    first, second = run.step("train", writes), run.step("train", writes)
    assert first == second
    assert isinstance(second["adapter"], Path) and second["adapter"].is_dir()


def test_results_are_the_same_when_made_and_when_found(run):
    def make():
        calls.append(1)
        return {
            "whole": np.arange(6).reshape(2, 3),
            "single": np.float32([0.1, np.nan]),
            "truth": np.array([True, False]),
            "one": np.float64(0.1),
            "rows": Dataset.from_list([{"a": "é", "b": [1, 2]}, {"a": "y", "b": []}]),
            "none": Dataset.from_dict({"a": []}),
            "nested": [{"deep": (1, None, "x")}],
        }

    made, found = run.step("make", make), run.step("make", make)
    assert len(calls) == 1
    for result in (made, found):
        assert result["whole"].tolist() == [[0, 1, 2], [3, 4, 5]] and result["whole"].dtype == np.arange(1).dtype
        assert result["single"].dtype == np.float32 and result["single"][0] == np.float32(0.1)
        assert np.isnan(result["single"][1])
        assert result["truth"].dtype == bool and result["truth"].tolist() == [True, False]
        assert result["one"] == 0.1
        assert result["rows"].to_list() == [{"a": "é", "b": [1, 2]}, {"a": "y", "b": []}]
        assert len(result["none"]) == 0 and result["none"].column_names == ["a"]
        assert result["nested"] == [{"deep": [1, None, "x"]}]


def test_an_empty_array_keeps_its_shape(run):
    def nothing():
        return np.zeros((0, 3))

    assert run.step("none", nothing).shape == (0, 3)


def test_a_function_with_numbers_outside_its_arguments_is_refused(run):
    def times(k):
        def scaled(x):
            return k * x

        return scaled

    with pytest.raises(TypeError, match="among its arguments"):
        run.step("scale", times(2), 5)


@given(values)
def test_a_fingerprint_is_plain_and_stable(value):
    found = steps.fingerprint(value)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(steps.fingerprint(value)))


@given(values, values)
def test_different_values_have_different_fingerprints(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (json.dumps(steps.fingerprint(a)) == json.dumps(steps.fingerprint(b))) == same


def test_fingerprints_see_what_changes_a_result_and_nothing_else():
    array = np.arange(6.0).reshape(2, 3)
    rows = Dataset.from_list([{"a": 1}, {"a": 2}])
    different = [
        array,
        array.astype("float32"),
        array.reshape(3, 2),
        array + 1,
        rows,
        Dataset.from_list([{"a": 2}, {"a": 1}]),
        rows.rename_column("a", "b"),
        Sampling(),
        Sampling(top_k=51),
        Path("a"),
        True,
        1,
        "1",
        None,
        twice,
    ]
    found = [json.dumps(steps.fingerprint(v)) for v in different]
    assert len(set(found)) == len(found)
    same = [
        (array.T, np.ascontiguousarray(array.T)),
        (rows, Dataset.from_list(rows.to_list())),
        (Sampling(), Sampling(temperature=0.7)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), [1, 2]),
    ]
    for a, b in same:
        assert json.dumps(steps.fingerprint(a)) == json.dumps(steps.fingerprint(b))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [object()], {"a": {1}}])
def test_values_that_cannot_be_described_are_refused(value):
    with pytest.raises(TypeError, match="cannot be keyed"):
        steps.fingerprint(value)


@pytest.mark.model
def test_describing_a_model_leaves_no_file_open(model_and_tokenizer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        steps.fingerprint(model_and_tokenizer[0])
    assert [str(w.message) for w in caught] == []


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the test above watches over it
def test_models_and_tokenizers_have_fingerprints(model_and_tokenizer):
    import torch

    model, tokenizer = model_and_tokenizer
    before = json.dumps(steps.fingerprint([model, tokenizer]))
    assert json.dumps(steps.fingerprint([model, tokenizer])) == before
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = template + " "
        assert json.dumps(steps.fingerprint([model, tokenizer])) != before
    finally:
        tokenizer.chat_template = template
    name, parameter = "lora_probe", torch.nn.Parameter(torch.ones(2))
    model.register_parameter(name, parameter)
    try:
        with_adapter = json.dumps(steps.fingerprint(model))
        parameter.data += 1
        assert len({before, with_adapter, json.dumps(steps.fingerprint(model))}) == 3
    finally:
        del model._parameters[name]


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A function that writes modules into an empty package and gives the version of the first."""
    monkeypatch.setattr(steps, "_PACKAGE", tmp_path)
    (tmp_path / "__init__.py").touch()

    def version(**sources):
        for name, text in sources.items():
            (tmp_path / f"{name}.py").write_text(text)
        steps._read.cache_clear()
        return steps.version_of_modules(f"mipo_nb.{next(iter(sources))}")

    yield version
    steps._read.cache_clear()


def test_comments_docstrings_and_layout_do_not_change_a_version(code):
    plain = code(a="def f(x):\n    return x + 1\n")
    dressed = code(
        a='"""Module."""\n# why\n\n\ndef f(x):\n    """Function."""\n    return (x\n            + 1)  # how\n'
    )
    documented = code(a='"""Another module."""\ndef f(x):\n    """Another text."""\n    return x + 1\n')
    assert dressed == documented
    assert code(a="def f(x):\n    # a comment\n    return (x + 1)\n") == plain
    assert code(a="def f(x):\n    return x + 2\n") != plain
    assert code(a="def f(x):\n    return x + 1\n\n\nLIMIT = 3\n") != plain


def test_a_version_follows_imports_to_the_end(code):
    a = "from mipo_nb.b import g\n\n\ndef f(x):\n    return g(x)\n"
    b = "def g(x):\n    from mipo_nb.c import h\n    return h(x)\n"
    before = code(a=a, b=b, c="def h(x):\n    return x\n")
    assert code(a=a, b=b, c="def h(x):\n    # the same\n    return x\n") == before
    assert code(a=a, b=b, c="def h(x):\n    return -x\n") != before
    assert code(a=a, b=b.replace("return h", "return 1 + h"), c="def h(x):\n    return x\n") != before


def test_a_circle_of_imports_ends(code):
    a = "def f(x):\n    from mipo_nb.b import g\n    return g(x)\n"
    b = "from mipo_nb.a import f\n\n\ndef g(x):\n    return f(x)\n"
    assert code(a=a, b=b) == code(a=a, b=b) != code(a=a, b=b.replace("f(x)\n", "f(x + 1)\n"))


def test_the_modules_behind_one_have_each_a_hash_of_their_own(code):
    a, b, c = "from mipo_nb.b import g\n", "from mipo_nb.c import h\n", "def h(x):\n    return x\n"
    code(a=a, b=b, c=c, d="")
    before = steps.modules_behind("mipo_nb.a")
    assert before.keys() == {"mipo_nb.a", "mipo_nb.b", "mipo_nb.c"} and len(set(before.values())) == 3
    code(c=c.replace("x\n", "-x\n"))
    after = steps.modules_behind("mipo_nb.a", "mipo_nb.d")
    assert {name for name, text in before.items() if after[name] != text} == {"mipo_nb.c"}
    assert after.keys() == {*before, "mipo_nb.d"}


def test_what_makes_no_numbers_is_not_behind_a_module():
    found = steps.modules_behind("mipo_nb.scoring")
    assert {"mipo_nb.scoring", "mipo_nb.engine.packing", "mipo_nb.prompts"} <= found.keys()
    assert not any(name.startswith("mipo_nb.lab") for name in found)
    assert {name for name in found if name.startswith("mipo_nb.base")} == {"mipo_nb.base.frame"}  # words of prompts


def test_functions_of_one_module_share_a_version_and_modules_differ():
    from mipo_nb import information, statistics

    assert steps.code_version(statistics.mean) == steps.code_version(statistics.share)
    assert steps.code_version(statistics.mean) != steps.code_version(information.identified)


KEY = """
import sys
from mipo_nb import scoring
from mipo_nb.lab import steps
print(steps.key(scoring.log_probabilities, (), {"batch_size": 16}), "trl" in sys.modules)
"""


def test_the_key_of_a_step_holds_the_code_that_makes_its_numbers_and_no_other(tmp_path):
    package = tmp_path / "mipo_nb"
    shutil.copytree(project_root() / "mipo_nb", package)

    def key():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", KEY], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = key()
    assert before.endswith(" False\n")  # what only needs to be read is not imported
    for file, old, new, changes in (
        ("engine/packing.py", "_WORTH = 8", "_WORTH = 9", True),
        ("prompts.py", "a few short steps", "a few short stepz", True),
        ("studies/swaps.py", "SWAPS_SEED = 4041", "SWAPS_SEED = 4042", False),
        ("lab/plots.py", "height=3.4", "height=3.5", False),
    ):
        text = (package / file).read_text(encoding="utf-8")
        assert old in text
        (package / file).write_text(text.replace(old, new), encoding="utf-8")
        assert (key() != before) == changes, file
        (package / file).write_text(text, encoding="utf-8")
    assert key() == before


def test_functions_as_arguments_are_told_apart_and_must_say_all():
    from mipo_nb import statistics

    keys = {steps.key(statistics.bootstrap, (f, 3), {}) for f in (statistics.mean, statistics.share, twice)}
    assert len(keys) == 3
    with pytest.raises(TypeError, match="a named function whose numbers are all among its arguments"):
        steps.key(statistics.bootstrap, (lambda x: x, 3), {})


def test_a_number_is_the_same_whether_it_is_given_or_left_to_its_default():
    from mipo_nb import training

    shortest, fast = {"learning_rate": 1e-4, "device": "cpu", "dtype": "float32"}, {"route": "shared_prefix"}
    first = steps.key(training.train, ("model", [], None), shortest)
    assert steps.key(training.train, ("model", [], None), {**vars(training.Recipe(**shortest)), **fast}) == first
    assert steps.key(training.train, ("model", [], None), {**shortest, "beta": 0.2}) != first
    with pytest.raises(UserError, match="learning_rate must be"):
        steps.key(training.train, ("model", [], None), {"learning_rate": -1})


def test_other_libraries_make_another_key(monkeypatch):
    before = steps.key(twice, (1,), {})
    monkeypatch.setattr(steps, "library_versions", lambda names: dict.fromkeys(names, "another"))
    assert steps.key(twice, (1,), {}) != before


@pytest.fixture
def keyed(tmp_path):
    """A function that keys a path by a step's argument, and an adapter, a model and a file of rows to key."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Name a bird."}\n')
    for folder, file in (("adapter", "adapter_config.json"), ("model", "config.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.safetensors").write_bytes(b"weights")
        (tmp_path / folder / file).write_text(json.dumps({"base_model_name_or_path": "Org/Base", "r": 4}))
    return lambda path: steps.key(twice, (path,), {})


@pytest.mark.parametrize("name", ["rows.jsonl", "adapter", "model"])
@pytest.mark.parametrize("kind", [Path, str])
def test_a_path_counts_by_what_lies_there(keyed, tmp_path, name, kind):
    there, moved = tmp_path / name, tmp_path / "elsewhere" / "another"
    before = keyed(kind(there))
    moved.parent.mkdir()
    there.rename(moved)
    assert keyed(kind(there)) != before == keyed(kind(moved))
    file = moved if moved.is_file() else next(moved.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-2] + b"!\n")  # as long as it was
    assert keyed(kind(moved)) != before


def test_an_adapter_counts_with_its_numbers_and_without_the_name_of_its_base(keyed, tmp_path):
    before, file = keyed(tmp_path / "adapter"), tmp_path / "adapter" / "adapter_config.json"
    (tmp_path / "adapter" / "README.md").write_text("a card")
    file.write_text(json.dumps({"base_model_name_or_path": "embedded:base", "r": 4}))
    assert keyed(tmp_path / "adapter") == before
    file.write_text(json.dumps({"base_model_name_or_path": "Org/Base", "r": 8}))
    assert keyed(tmp_path / "adapter") != before


def test_text_that_is_no_absolute_path_stays_text(keyed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = keyed("rows.jsonl"), keyed("model"), keyed("/no/such/file")
    (tmp_path / "rows.jsonl").write_text("other")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    assert (keyed("rows.jsonl"), keyed("model"), keyed("/no/such/file")) == before and len(set(before)) == 3


def test_a_local_model_of_a_lineage_counts_by_its_weights(keyed, tmp_path):
    from mipo_nb.models import Lineage

    before = keyed(Lineage(str(tmp_path / "model")))
    (tmp_path / "model").rename(tmp_path / "renamed")
    assert keyed(Lineage(str(tmp_path / "renamed"))) == before
    (tmp_path / "renamed" / "model.safetensors").write_bytes(b"other")
    assert keyed(Lineage(str(tmp_path / "renamed"))) != before
    assert Lineage("embedded:smollm2-135m").fingerprint() == ["embedded:smollm2-135m"]


def test_a_function_of_a_notebook_is_keyed_by_its_own_text():
    assert steps.code_version(twice) == steps.code_version(twice) != steps.code_version(run_nothing)


def run_nothing():
    return None


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40))
def test_text_is_written_whole(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("atomic") / "new" / "deep"
    files.write_atomically(folder / "file.txt", text)
    files.write_atomically(str(folder / "file.txt"), text + "!")
    assert (folder / "file.txt").read_text(encoding="utf-8") == text + "!"
    assert os.listdir(folder) == ["file.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, sizes, done = tmp_path / "file.txt", set(), threading.Event()
    files.write_atomically(path, "a" * 200_000)

    def read():
        while not done.is_set():
            sizes.add(len(path.read_text()))

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(30):
        files.write_atomically(path, "ab"[k % 2] * 200_000)
    done.set()
    reader.join()
    assert sizes == {200_000}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    files.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "\ud800")
    assert path.read_text() == "old"


def test_recorded_results_reach_the_disk_and_the_last_one_counts(run):
    run.record("accuracy", 1)
    run.record("gain", Estimate(0.5, 0.25, 0.75, 40), unit="nats")
    run.record("accuracy", np.float32(0.5), low=0.4, high=0.6, n=10)
    on_disk = json.loads((run.folder / "results.json").read_text())
    assert on_disk == run.results
    assert {r["name"]: r for r in on_disk} == {
        "gain": {"name": "gain", "value": 0.5, "low": 0.25, "high": 0.75, "n": 40, "unit": "nats", "seed": 7},
        "accuracy": {"name": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "unit": "", "seed": 7},
    }
    assert len(on_disk) == 2


def test_the_manifest_says_where_numbers_come_from(run):
    run.step("double", twice, 3)
    on_disk = json.loads((run.folder / "manifest.json").read_text())
    assert on_disk["notebook"] == "01_test" and on_disk["profile"] == "laptop" and on_disk["seed"] == 7
    assert on_disk["model"] == run.settings.model and on_disk["numbers"] == run.settings.numbers
    assert on_disk["python"].split(".") == [str(n) for n in sys.version_info[:3]]
    import torch

    assert on_disk["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [s["name"] for s in on_disk["steps"]] == ["double"]
    assert on_disk["peak_memory"] > 10**7 and on_disk["seconds"] >= 0


def test_the_manifest_names_the_adapter_that_was_given(run, keyed, tmp_path):
    def recorded():
        given = runs.start(
            "12_measuring_personalization", "smoke", adapter=str(tmp_path / "adapter"), output_dir=tmp_path
        )
        text = (given.folder / "manifest.json").read_text()
        assert str(tmp_path) not in text
        return json.loads(text)["adapter"]

    assert json.loads((run.folder / "manifest.json").read_text())["adapter"] is None
    before = recorded()
    assert before["name"] == "adapter" and before == recorded()
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"others")
    assert recorded()["name"] == "adapter" and recorded()["weights"] != before["weights"]


def test_the_manifest_does_not_say_where_a_local_model_lies(keyed, tmp_path):
    run = runs.start("01_test", "smoke", model=str(tmp_path / "model"), output_dir=tmp_path)
    assert run.manifest()["model"] == "model" and run.settings.model == str(tmp_path / "model")
    assert str(tmp_path) not in (run.folder / "manifest.json").read_text()


def test_a_run_seeds_everything_and_clears_old_figures(tmp_path):
    import torch

    def start(seed):
        made = runs.start("01_test", "laptop", seed=seed, output_dir=str(tmp_path))
        return made, (random.random(), np.random.rand(), torch.rand(1).item())

    first, drawn = start(3)
    (first.folder / "figures").mkdir()
    (first.folder / "figures" / "old.png").write_text("")
    assert start(3)[1] == drawn
    assert not (first.folder / "figures").exists()
    other = start(4)[1]
    assert all(a != b for a, b in zip(drawn, other, strict=True))


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*set OUTPUT_DIR"):
        runs.start("01_test", "laptop", output_dir=str(tmp_path / "file"))


def test_progress_gives_every_row_and_reports_to_the_runner(tmp_path, monkeypatch):
    monkeypatch.delenv("MIPO_NB_PROGRESS", raising=False)
    assert list(progress.progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    monkeypatch.setenv("MIPO_NB_PROGRESS", str(tmp_path / "progress.json"))
    assert list(progress.progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    report = json.loads((tmp_path / "progress.json").read_text())
    assert report["step"] == "counting" and report["total"] == 5 and 0 <= report["done"] <= 5


def bytes_tokenizer(change=None, **options):
    """The random models' tokenizer, its file's JSON `change`d, with a settled template that reads an option and the day."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = random_models.tokenizer()
    core = json.loads(made.backend_tokenizer.to_str())
    if change:
        change(core)
    core = Tokenizer.from_str(json.dumps(core))
    again = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=made.eos_token, pad_token=made.pad_token)
    day = "{{ strftime_now('%d %b %Y %H:%M:%S.%f') }}{% if enable_thinking %}<think>{% endif %}"
    again.chat_template = day + made.chat_template
    templates.settle(again, **options)
    return again


def swap_two_letters(core):
    ids = core["model"]["vocab"]
    ids["Q"], ids["Z"] = ids["Z"], ids["Q"]


def without_accents(core):
    core["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}


def test_a_key_holds_the_tokens_that_a_template_renders():
    same, key = bytes_tokenizer(), steps.fingerprint(bytes_tokenizer())
    assert steps.fingerprint(same) == steps.fingerprint(same) == key
    others = {
        "vocabulary": bytes_tokenizer(swap_two_letters),
        "normalizer": bytes_tokenizer(without_accents),
        "option": bytes_tokenizer(enable_thinking=True),
        "day given": bytes_tokenizer(date_string="1 May 2026"),
    }
    keys = {what: steps.fingerprint(tokenizer) for what, tokenizer in others.items()}
    assert len({json.dumps(found) for found in (key, *keys.values())}) == 5
    assert keys["vocabulary"][:3] == keys["normalizer"][:3] == key[:3]  # which the template alone would not tell apart
    steps._PROBED.clear()
    assert steps.fingerprint(same) == key  # later: its template writes the time, were it not settled


def test_a_tokenizer_is_asked_again_when_it_changed_and_only_then(monkeypatch):
    tokenizer = bytes_tokenizer()
    first = steps.fingerprint(tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "apply_chat_template", lambda *a, **k: pytest.fail("rendered again"))
        assert steps.fingerprint(tokenizer) == first
    ends = steps.fingerprint(tokenizer)
    tokenizer.eos_token = "<|endoftext|>"
    assert steps.fingerprint(tokenizer)[:3] == ends[:3] and steps.fingerprint(tokenizer) != ends
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert steps.fingerprint(tokenizer)[2] != first[2]  # a template that refuses it has a key nevertheless


def test_a_run_is_told_by_what_differs_from_the_defaults(tmp_path):
    usual = runs.start("00_start_here", "laptop", output_dir=tmp_path)
    told = runs.start("00_start_here", "laptop", output_dir=tmp_path, beta=0.7, lora_target="q_proj, " * 50)
    assert "beta" not in repr(usual) and "beta=0.7" in repr(told)
    assert len(repr(told)) < 500  # a long value is cut
