"""What travels of a call: names of models and files, rows and numbers as they are, and nothing else."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from mipo_nb import mipo, models
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models
from mipo_nb.engine.server import Server
from mipo_nb.lab import names, settings, steps, store
from mipo_nb.models import Lineage
from mipo_nb.training import Recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder, model, tokenizer) of a tiny random model."""
    folder = random_models.write(tmp_path_factory.mktemp("models") / "tiny", "tiny")
    return folder, *models.load(folder, dtype="float32", template_options={"date_string": "1 May 2026"})


def there(values, here=lambda file: file.path, steps=None):
    """What `values` are on a worker, where files lie at `here(file)`."""
    packed, named = names.pack(values)
    return names.unpack(packed, pickle.loads(pickle.dumps(named)), steps, here)


def test_models_and_tokenizers_are_loaded_again_by_their_names(tiny):
    folder, model, tokenizer = tiny
    values = {"model": model, "tokenizer": tokenizer, "again": [model], "model's": {"a": model}}
    packed, named = names.pack(values)
    assert len(packed) < 1000 and {one.source.path for one in named} == {folder}
    found = there(values)
    assert found["model"] is not model and found["again"][0] is found["model"] is found["model's"]["a"]
    for name in ("model", "tokenizer"):
        assert steps.fingerprint(found[name]) == steps.fingerprint(values[name])
    assert found["tokenizer"].chat_template == tokenizer.chat_template


@pytest.mark.model
def test_an_embedded_model_goes_by_its_name(model_and_tokenizer):
    _, named = names.pack({"model": model_and_tokenizer[0], "tokenizer": model_and_tokenizer[1]})
    assert [one.source for one in named] == ["embedded:smollm2-135m"] * 2


def test_a_model_of_the_hub_goes_by_its_commit():
    assert names._source("Qwen/Qwen2.5-0.5B-Instruct", "abc") == "Qwen/Qwen2.5-0.5B-Instruct@abc"
    assert names._source("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_a_model_that_was_changed_or_lies_elsewhere_is_refused(tiny, tmp_path):
    import torch

    other = random_models.write(tmp_path / "tiny", "tiny", seed=1)
    with pytest.raises(
        UserError, match="is not on .* what this run has: other files lie there, or the model was changed"
    ):
        there({"model": tiny[1]}, here=lambda file: other)
    changed, _ = models.load(tiny[0], dtype="float32")
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    with pytest.raises(UserError, match="give models as they are loaded"):
        there({"model": changed})


def test_a_model_with_an_adapter_in_memory_is_refused(tiny):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(models.load(tiny[0], dtype="float32")[0], LoraConfig())
    with pytest.raises(UserError, match="A model with an adapter is not sent to workers; give the adapter's folder"):
        names.pack({"model": adapted})


@pytest.fixture
def adapter(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 4}))
    return tmp_path / "adapter"


def test_files_are_found_where_they_lie_on_the_worker(adapter, tmp_path):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "Name a bird."}\n')
    s = settings.resolve("smoke", "12_measuring_personalization", data=str(rows), adapter=str(adapter), seed=3)
    values = {"adapter": adapter, "as text": str(adapter), "lineage": Lineage("embedded:x", adapter), "s": s}
    moved = {str(path): str(tmp_path / "there" / path.name) for path in (adapter, rows)}
    found = there(values, here=lambda file: moved[file.path])
    assert found["adapter"] == Path(moved[str(adapter)]) and found["as text"] == moved[str(adapter)]
    assert found["lineage"] == Lineage("embedded:x", Path(moved[str(adapter)]))
    assert (found["s"].data, found["s"].adapter) == (moved[str(rows)], moved[str(adapter)])
    assert found["s"].numbers == {**s.numbers, "data": moved[str(rows)]} and found["s"].seed == 3
    assert there(values) == values


def test_what_somebody_wrote_stays_as_it_is_written(adapter, tmp_path):
    """A path in a row or a prompt is no file of the call."""
    file = adapter / "adapter_config.json"
    text = {"rows": Dataset.from_list([{"prompt": str(file)}]), "asked": [[{"role": "user", "content": str(file)}]]}
    other = {"folder": str(tmp_path), "nothing": Path("none"), "name": "embedded:smollm2-135m"}
    packed, named = names.pack({**text, **other})
    assert named == ()
    found = names.unpack(packed, named, None, None)
    assert found["rows"].to_list() == text["rows"].to_list() and found["asked"] == text["asked"]
    assert {name: found[name] for name in other} == other


def test_rows_arrays_and_recipes_keep_their_keys(tmp_path):
    rows = Dataset.from_list([{"a": 1, "b": ["x"], "c": {"d": 0.1}}, {"a": 2, "b": [], "c": {"d": 0.2}}])
    rows.save_to_disk(tmp_path / "rows")
    read = Dataset.load_from_disk(tmp_path / "rows").select([1])  # of a file, and of a part of it
    values = {"rows": rows, "read": read, "none": rows.select([]), "n": np.arange(3.0), "recipe": Recipe(1e-3, device="cpu", dtype="float32")}  # fmt: skip
    found = there(values)
    assert steps.fingerprint(found) == steps.fingerprint(values)
    assert found["rows"].features == rows.features and found["read"].features == rows.features


def test_steps_are_those_of_the_worker_and_a_server_is_asked_from_there(tmp_path):
    own = store.Steps(tmp_path)
    server = Server("http://127.0.0.1:1/v1", "a", timeout=5.0, at_once=3)
    found = there({"step": store.Steps(tmp_path / "run"), "server": server, "function": mipo.train}, steps=own)
    assert found["step"] is own and found["function"] is mipo.train
    assert found["server"].fingerprint() == server.fingerprint() and found["server"].at_once == 3


@pytest.mark.parametrize("name", ["adapter", "adapter/adapter_config.json"])
def test_what_is_sent_arrives_whole(adapter, tmp_path, name):
    source, target = tmp_path / name, tmp_path / "arrived"
    names.put(names.contents(source), target)
    assert names.contents(target) == names.contents(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "arrived"]


def test_what_is_too_large_to_send_is_refused(adapter, monkeypatch):
    monkeypatch.setattr(names, "_MOST", 10)
    with pytest.raises(
        UserError, match="is too large to send to workers; put it into a folder that all machines share"
    ):
        names.require_sendable(adapter)


def test_tokenizers_of_one_name_keep_the_options_that_each_was_loaded_with(tiny):
    days = ("1 May 2026", "2 May 2026")
    loaded = {day: models.load_tokenizer(tiny[0], {"date_string": day}) for day in days}
    for day, tokenizer in loaded.items():
        tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>{{", f"{day} <|im_start|>{{{{")
    found = there(loaded)
    assert found[days[0]] is not found[days[1]]
    for day, tokenizer in loaded.items():
        assert found[day].chat_template == tokenizer.chat_template
