"""Exports: each is loaded again and says the same; what cannot be exported leaves nothing behind."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from mipo_nb import models, pairs, prompts, training
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.command import random_models, upload
from mipo_nb.command.export import _log_probabilities, export
from mipo_nb.engine import checkpoints

NAME = "embedded:smollm2-135m"
BOUNDS = {
    "float32": 1e-3,
    "float16": 0.1,
    "bfloat16": 0.5,
}  # nats a token between an adapter and its merge, as docs/running.md says


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


@pytest.mark.model
@pytest.mark.parametrize(("dtype", "bound"), BOUNDS.items())
def test_a_merged_model_stands_alone_and_says_nearly_the_same(adapter, expected, tmp_path, dtype, bound):
    said = export(adapter, "merged", tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    found = _log_probabilities(*models.load(str(tmp_path / "out"), dtype=dtype))
    assert (found - expected).abs().mean() < bound
    assert said[0].startswith(f"merged: {tmp_path / 'out'} (") and "nats away" in said[1]


@pytest.mark.model
@pytest.mark.parametrize(("scale", "dtype"), [(20.0, "bfloat16"), (1.0, "float16"), (0.1, "float32")])
def test_a_merge_is_as_coarse_as_training_allows(adapter, tmp_path, scale, dtype):
    """An adapter of much, some and little effect: rounding must not move more than half as far."""
    shutil.copytree(adapter, tmp_path / "mine")
    weights = load_file(tmp_path / "mine" / "adapter_model.safetensors")
    weights = {name: value * (scale if "lora_B" in name else 1) for name, value in weights.items()}
    save_file(weights, tmp_path / "mine" / "adapter_model.safetensors", {"format": "pt"})
    said = export(tmp_path / "mine", "merged", tmp_path / "out")
    assert f"merged {dtype} model" in said[1] and "Rounding moved it" not in said[1]
    assert models.load_config(str(tmp_path / "out")).dtype == getattr(torch, dtype)


@pytest.mark.model
def test_an_exported_adapter_is_the_same_adapter_with_a_card(adapter, expected, tmp_path):
    [line] = export(adapter, "adapter", tmp_path / "out")
    assert line.startswith("adapter: ")
    again = _log_probabilities(*models.load(NAME, dtype="float32", adapter=tmp_path / "out"))
    assert torch.equal(again, expected)
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.model
def test_servers_get_their_command(adapter, tmp_path):
    with pytest.raises(UserError, match="vLLM cannot fetch embedded:smollm2-135m, .* use --to merged"):
        export(adapter, "vllm", tmp_path / "vllm")
    on_the_hub = tmp_path / "on_the_hub"
    shutil.copytree(adapter, on_the_hub)
    changed(on_the_hub, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    said = export(on_the_hub, "vllm", tmp_path / "vllm")
    assert "--max-lora-rank 8" in said[-1] and (tmp_path / "vllm" / "serve.sh").read_text().startswith(
        "#!/bin/sh\nvllm serve"
    )
    assert "--revision" not in said[-1]
    for known, told in (
        ("989aa7980e4cf806f80c7fef2b1adb7bc71aa306", True),
        ("0" * 16, False),
    ):  # a commit; a hash of files
        (on_the_hub / checkpoints.BASE).write_text(known)
        said = export(on_the_hub, "vllm", tmp_path / f"vllm {told}")
        assert (f"--revision {known}" in said[-1]) is told
    said = export(adapter, "ollama", tmp_path / "ollama", dtype="float16")
    assert (tmp_path / "ollama" / "Modelfile").read_text().startswith("FROM .") and "ollama create" in said[-1]
    tokenizer = json.loads((tmp_path / "ollama" / "tokenizer_config.json").read_text())
    assert tokenizer["chat_template"] == models.load_tokenizer(NAME).chat_template


@pytest.mark.model
@pytest.mark.parametrize("target", ["merged", "adapter"])
def test_a_folder_with_something_in_it_is_left_as_it_is(adapter, tmp_path, target):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="name a folder that is new or empty"):
        export(adapter, target, tmp_path / "out")
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine.txt"]


@pytest.mark.model
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


ELSEWHERE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, dtype, adapter = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
if adapter:
    model = PeftModel.from_pretrained(model, adapter)
ids = torch.tensor([tokenizer("Take the second train, and ask for Ada at the desk.")["input_ids"]])
with torch.inference_mode():
    scores = model.eval()(ids).logits[0, :-1].float().log_softmax(-1)
print(*scores.gather(-1, ids[0, 1:, None])[:, 0].tolist())
"""


def said_elsewhere(base, dtype="float32", adapter=""):
    """Log-probs [tokens] of a text by transformers and PEFT, in a process that knows nothing of this project."""
    command = [sys.executable, "-c", ELSEWHERE, base, dtype, adapter]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), dtype=float)


def test_what_was_exported_says_the_same_in_another_process(tmp_path):
    from peft import get_peft_model

    base = random_models.write(tmp_path / "base", "tiny")
    torch.manual_seed(0)
    policy = get_peft_model(models.load(str(base), dtype="float32")[0], training.lora(4))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    policy.save_pretrained(tmp_path / "mine")
    checkpoints.name_base(tmp_path / "mine")
    expected = said_elsewhere(base, adapter=tmp_path / "mine")
    assert np.abs(expected - said_elsewhere(base)).max() > 0.05  # the adapter says something
    export(tmp_path / "mine", "adapter", tmp_path / "adapter", model=str(base))
    np.testing.assert_array_equal(said_elsewhere(base, adapter=tmp_path / "adapter"), expected)
    for dtype, bound in BOUNDS.items():  # nats a token
        export(tmp_path / "mine", "merged", tmp_path / dtype, model=str(base), dtype=dtype)
        assert np.abs(said_elsewhere(tmp_path / dtype, dtype) - expected).mean() < bound


def test_an_upload_that_is_stopped_says_what_is_there_and_how_it_goes_on(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_repo", stopped)
    with pytest.raises(UserError) as caught:
        upload.upload(tmp_path, "you/name")
    assert str(caught.value).startswith(f"Stopped. {tmp_path} is written; you/name may have a part of it.")
    assert f"'hf upload you/name {tmp_path}'" in str(caught.value)


# --- without a model ---


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(project_root() / "adapters" / "demo", tmp_path / "mine")
    return tmp_path / "mine"


def changed(adapter, text=None, **config):
    file = adapter / "adapter_config.json"
    file.write_text(text if text is not None else json.dumps(json.loads(file.read_text()) | config))


BROKEN = {
    "no JSON": (lambda a: changed(a, "{"), "There is no adapter in"),
    "a list": (lambda a: changed(a, "[]"), "There is no adapter in"),
    "null": (lambda a: changed(a, "null"), "There is no adapter in"),
    "a number as its base": (lambda a: changed(a, base_model_name_or_path=5), "There is no adapter in"),
    "no rank": (lambda a: changed(a, '{"base_model_name_or_path": "a/b"}'), "There is no adapter in"),
    "no base": (lambda a: changed(a, base_model_name_or_path=None), "does not name its base"),
    "empty weights": (lambda a: (a / "adapter_model.safetensors").write_bytes(b""), "has no whole adapter_model"),
    "half the weights": (
        lambda a: (a / "adapter_model.safetensors").write_bytes((a / "adapter_model.safetensors").read_bytes()[:9999]),
        "has no whole adapter_model",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("target", ["adapter", "merged"])
def test_a_broken_adapter_is_refused_and_nothing_is_written(copied, tmp_path, what, target):
    breaks, told = BROKEN[what]
    breaks(copied)
    with pytest.raises(UserError) as caught:
        export(copied, target, tmp_path / "out")
    assert told in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["mine"]


PLACES = {
    "a file": ("file", "has something in it"),
    "below a file": ("file/out", "could not be written"),
    "the root": ("/", "has something in it"),
    "the adapter itself": ("mine", "has something in it"),
    "where nothing can be made": ("/proc/nowhere/out", "could not be written"),
    "a name that is too long": ("x" * 300, "could not be written"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_said_and_left_as_it_is(copied, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    output, told = PLACES[place]
    with pytest.raises(UserError) as caught:
        export(copied, "adapter", tmp_path / output)
    assert told in str(caught.value) and sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"model": "other/model"}, "was trained from embedded:smollm2-135m, not from other/model; leave --model out"),
        ({"push_to": ""}, "'' is no id of a repository on the hub; write it as in you/name"),
        ({"push_to": "a b/c"}, "'a b/c' is no id of a repository"),
    ],
)
def test_another_base_and_what_is_no_id_are_refused_before_anything_is_written(copied, tmp_path, how, told):
    with pytest.raises(UserError) as caught:
        export(copied, "adapter", tmp_path / "out", **how)
    assert told in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_base_may_be_given_by_the_name_that_it_has_on_the_hub(copied, tmp_path):
    export(copied, "adapter", tmp_path / "out", model="HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_an_adapter_can_be_exported_where_folders_are_missing(copied, tmp_path):
    export(copied, "adapter", tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c" / "README.md").exists()


def test_facts_and_weights_go_from_card_to_card(copied, tmp_path):
    (copied / "README.md").unlink()  # a card that is there stays
    (copied / checkpoints.BASE).write_text("0123456789abcdef")
    facts = ["- Data: mine.jsonl, 8 pairs.", "- held-out margin: 1.0 [0.5, 1.5] nats."]
    export(copied, "adapter", tmp_path / "one" / "adapter", facts=facts)
    export(tmp_path / "one", "adapter", tmp_path / "two")  # the folder around the adapter does as well
    texts = [(folder / "README.md").read_text() for folder in (tmp_path / "one" / "adapter", tmp_path / "two")]
    assert texts[0] == texts[1] and all(fact in texts[0] for fact in facts) and "weights `0123456789ab`" in texts[0]


@pytest.mark.parametrize("patience", [0, 1])
def test_a_merged_model_has_the_template_that_its_adapter_was_trained_with(tmp_path, patience):
    """TEMPLATE_OPTIONS are a run's, not the base's: they go with the adapter, and with what is made of it."""
    base = random_models.write(tmp_path / "base", "tiny")
    template = "{{ day }}: " + random_models.tokenizer().chat_template
    (tmp_path / "base" / "chat_template.jinja").write_text(template)
    options = {"day": "Monday"}
    tokenizer = models.load_tokenizer(base, options)
    rows = [{"prompt": "What now?", "context": "Ana keeps bees.", "user_id": "u"}] * 4
    sides = ["Rest."] * 4, ["Go out."] * 4
    data, _ = pairs.build(rows, *sides, tokenizer, negative="missing_context", max_length=None)
    numbers = {
        "learning_rate": 1e-3,
        "batch_size": 2,
        "rank": 2,
        "dtype": "float32",
        "device": "cpu",
        "max_length": None,
    }
    watched = {"held_out": (data, np.zeros((4, 2))), "evaluate_every": 1, "patience": patience} if patience else {}
    folder = tmp_path / "trained"
    found = training.train(base, data, np.zeros((4, 2)), folder=folder, template_options=options, **numbers, **watched)
    export(found["adapter"], "merged", tmp_path / "out", model=base)
    merged = models.load_tokenizer(str(tmp_path / "out"))
    assert merged.chat_template == tokenizer.chat_template != models.load_tokenizer(base).chat_template
    assert merged.decode(prompts.prompt_ids(merged, data[0]["prompt"])).startswith("Monday: ")


def test_an_adapter_that_does_nothing_is_merged_without_a_word_on_rounding(tmp_path):
    from peft import get_peft_model

    base = random_models.write(tmp_path / "base", "tiny")
    model, tokenizer = models.load(base, dtype="float32")
    get_peft_model(model, training.lora(2)).save_pretrained(tmp_path / "mine")  # its second matrices are zero
    tokenizer.save_pretrained(tmp_path / "mine")
    said = " ".join(export(tmp_path / "mine", "merged", tmp_path / "out", model=base))
    assert "log-probability by 0.000 nats" in said and "Rounding" not in said
