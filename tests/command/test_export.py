"""Exports: each is loaded again and says the same; what cannot be exported leaves nothing behind."""

import json

import pytest
import torch

from mipo_nb import models
from mipo_nb.base.errors import UserError
from mipo_nb.command.export import _log_probabilities, export

NAME = "embedded:smollm2-135m"
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter of the embedded model whose numbers are no zeros."""
    from peft import get_peft_model

    from mipo_nb.engine import checkpoints
    from mipo_nb.training import lora

    folder = tmp_path_factory.mktemp("adapter") / "mine"
    model, _ = models.load(NAME, dtype="float32")
    torch.manual_seed(0)
    policy = get_peft_model(model, lora(4))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.003)
    policy.save_pretrained(folder)
    checkpoints.name_base(folder)
    return folder


@pytest.fixture(scope="module")
def expected(adapter):
    return _log_probabilities(*models.load(NAME, dtype="float32", adapter=adapter))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("float16", 0.1), ("bfloat16", 0.5)])
def test_a_merged_model_stands_alone_and_says_nearly_the_same(adapter, expected, tmp_path, dtype, bound):
    said = export(adapter, "merged", tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    found = _log_probabilities(*models.load(str(tmp_path / "out"), dtype=dtype))
    assert (found - expected).abs().mean() < bound
    assert said[0].startswith(f"merged: {tmp_path / 'out'} (") and "nats away" in said[1]


def test_an_exported_adapter_is_the_same_adapter_with_a_card(adapter, expected, tmp_path):
    [line] = export(adapter, "adapter", tmp_path / "out")
    assert line.startswith("adapter: ")
    again = _log_probabilities(*models.load(NAME, dtype="float32", adapter=tmp_path / "out"))
    assert torch.equal(again, expected)
    assert f"base_model: {NAME}" in (tmp_path / "out" / "README.md").read_text()


def test_servers_get_their_command(adapter, tmp_path):
    said = export(adapter, "vllm", tmp_path / "vllm")
    assert "--max-lora-rank 4" in said[-1] and (tmp_path / "vllm" / "serve.sh").read_text().startswith(
        "#!/bin/sh\nvllm serve"
    )
    said = export(adapter, "ollama", tmp_path / "ollama", dtype="float16")
    assert (tmp_path / "ollama" / "Modelfile").read_text().startswith("FROM .") and "ollama create" in said[-1]


@pytest.mark.parametrize("target", ["merged", "adapter"])
def test_a_folder_with_something_in_it_is_left_as_it_is(adapter, tmp_path, target):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="name a folder that is new or empty"):
        export(adapter, target, tmp_path / "out")
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_what_is_no_adapter_or_has_another_base_is_refused_and_leaves_nothing(adapter, tmp_path):
    with pytest.raises(UserError, match="There is no adapter in"):
        export(tmp_path / "nowhere", "merged", tmp_path / "out")
    with pytest.raises(UserError, match="Unknown target 'gguf'"):
        export(adapter, "gguf", tmp_path / "out")
    with pytest.raises(UserError, match="Unknown dtype"):
        export(adapter, "merged", tmp_path / "out", dtype="int8")
    config = json.loads((adapter / "adapter_config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(UserError, match="has no adapter_model.safetensors"):
        export(other, "merged", tmp_path / "out")
    (other / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="does not name its base; give it by --model"):
        export(other, "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
