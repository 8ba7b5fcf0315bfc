"""On a CUDA device: scores, drawn tokens, training and memory are what they are on a CPU, or what was worked out.

The models are tiny and random, so that neither a network nor a hub is needed, and no fixture is another file's: `make
gpu-check` runs this file alone. Without CUDA the CPU stands in for the device, so that the tests themselves are tested.
"""

import pytest
import torch
from datasets import Dataset

from mipo_nb import models, prompts, scoring, training
from mipo_nb.base.hardware import hardware
from mipo_nb.command import gpu_measures, random_models
from mipo_nb.engine import decoding, packing, plain_decoding, routes, trainers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUMBERS = {"learning_rate": 1e-3, "beta": 0.1, "epochs": 1, "batch_size": 2, "max_length": 512, "rank": 4, "seed": 1}
KINDS = [("float32", False), ("bfloat16", False), ("bfloat16", True), ("float16", False), ("float16", True)]
MEDIUM = {  # large enough for its activations to outweigh what the libraries set aside
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 32768,
    "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
USERS = ["Ana keeps bees. She wants answers in Spanish.", "Ben drives a bus at night. He wants a numbered list."]
SAID = [
    ("What now?", "Claro.", "I do not know."),
    ("Name a gift.", "1. A book. 2. A pen.", "A gift is nice for everybody."),
    ("How do I rest?", "Duerme.", "Rest."),
    ("Plan my day.", "1. Walk. 2. Read.", "You could do many things today."),
    ("Cook what?", "Una sopa.", "Rice"),
    ("Go where?", "1. To the sea, by train.", "Out"),
]

pytestmark = pytest.mark.model
needs_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="needs CUDA")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """The folder of a tiny random model."""
    return random_models.write(tmp_path_factory.mktemp("models") / "tiny", "tiny")


@pytest.fixture(scope="module")
def pair_rows():
    """Six short pairs, of which neighbours have different users."""
    asked = [prompts.messages(question, USERS[k % 2]) for k, (question, _, _) in enumerate(SAID)]
    sides = [[[{"role": "assistant", "content": row[k]}] for row in SAID] for k in (1, 2)]
    return Dataset.from_dict({"prompt": asked, "chosen": sides[0], "rejected": sides[1]})


@pytest.fixture(scope="module")
def here(name):
    """(model, tokenizer) on the CPU, in float32."""
    return models.load(name, dtype="float32")


@pytest.fixture(scope="module")
def there(name):
    """(model, tokenizer) on the device, in float32, run on packed sequences."""
    model, tokenizer = models.load(name, device=DEVICE, dtype="float32")
    assert routes.enable_packing(model)
    return model, tokenizer


def trained(name, pair_rows, folder, **changes):
    """What `training.train` returns on the device, in float32 unless `changes` say otherwise."""
    numbers = {**NUMBERS, "device": DEVICE, "dtype": "float32", **changes}
    weights = {key: numbers[key] for key in ("device", "dtype", "four_bit") if key in numbers}
    reference = training.reference_log_probabilities(*models.load(name, **weights), pair_rows)
    return training.train(name, pair_rows, reference, folder=folder, **numbers)


def require_alike(log, other, *, loss, scores):
    """Equal steps: the loss within a distance, both sides' log-probs within a share."""
    assert len(log) == len(other) == len(SAID) // NUMBERS["batch_size"]
    for one, another in zip(log, other, strict=True):
        assert one["loss"] == pytest.approx(another["loss"], abs=loss)
        for side in ("logps/chosen", "logps/rejected"):
            assert one[side] == pytest.approx(another[side], rel=scores)


def require_kind(dtype, four_bit):
    """Skip weights that cannot be trained on this device."""
    if four_bit:
        pytest.importorskip("bitsandbytes")
    if dtype == "float16" and DEVICE == "cpu":
        pytest.skip("a CPU trains in no float16")
    if dtype == "bfloat16" and DEVICE == "cuda" and not hardware().bf16:
        pytest.skip("this card multiplies no bfloat16")


def test_scores_are_those_of_a_cpu(here, there, pair_rows):
    """Token by token: packed, in padded rows, and as a training asks for its reference."""
    (model, tokenizer), rows = there, training.tokenize(pair_rows, there[1])
    starts, ends = [prompt for prompt, *_ in rows] * 2, [row[k] for k in (1, 2) for row in rows]
    with torch.inference_mode():
        expected = scoring.padded_log_probabilities(here[0], starts, ends)
        whole = [start + end for start, end in zip(starts, ends, strict=True)]
        packed = packing.completion_scores(model, whole, list(map(len, starts)))[0]
        padded = scoring.padded_log_probabilities(model, starts, ends)
    for found in (packed, padded):
        assert found.cpu().numpy() == pytest.approx(expected.cpu().numpy(), abs=1e-3)
    sums = [values.sum().item() for values in expected.split(list(map(len, ends)))]
    found = training.reference_log_probabilities(model, tokenizer, pair_rows)
    assert found.T.flatten() == pytest.approx(sums, rel=1e-3)


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_drawn_tokens_are_those_of_a_cpu(here, there, temperature):
    ids = [prompts.prompt_ids(there[1], prompts.messages(q, USERS[0])) for q, _, _ in SAID[:3]]
    how, ends = decoding.Sampling(temperature=temperature, max_new_tokens=24), {there[1].eos_token_id}
    chance = decoding.chances([(0, row) for row in range(len(ids))], how.max_new_tokens)
    found = decoding.decode(there[0], ids, how, ends, chance=chance)
    if temperature == 0:
        assert (
            found
            == plain_decoding.generate(there[0], ids, how, ends)
            == plain_decoding.generate(here[0], ids, how, ends)
        )
    assert routes.enable_packing(here[0])
    assert found == decoding.decode(here[0], ids, how, ends, chance=chance)


@pytest.mark.parametrize(("dtype", "four_bit"), KINDS)
def test_both_routes_train_alike(name, pair_rows, tmp_path, dtype, four_bit):
    require_kind(dtype, four_bit)
    kind = {"dtype": dtype, "four_bit": four_bit}
    ours, theirs = (trained(name, pair_rows, tmp_path / route, route=route, **kind)["log"] for route in training.ROUTES)
    exact = dtype == "float32"
    require_alike(ours, theirs, loss=1e-3 if exact else 3e-2, scores=1e-3 if exact else 2e-2)


@pytest.mark.parametrize("route", training.ROUTES)
def test_a_training_gives_what_it_gives_on_a_cpu(name, pair_rows, tmp_path, route):
    """And its adapter prefers the chosen sides, where it is loaded on the device."""
    found = trained(name, pair_rows, tmp_path / "there", route=route)
    expected = trained(name, pair_rows, tmp_path / "here", route=route, device="cpu")
    require_alike(found["log"], expected["log"], loss=1e-3, scores=1e-3)
    sides = []
    for adapter in (None, found["adapter"]):
        model, tokenizer = models.load(name, device=DEVICE, dtype="float32", adapter=adapter)
        sides.append(training.reference_log_probabilities(model, tokenizer, pair_rows))
    chosen, rejected = (sides[1] - sides[0]).T
    assert (chosen - rejected).mean() > 0


@pytest.mark.parametrize("route", training.ROUTES)
def test_checkpointing_changes_no_step(name, pair_rows, tmp_path, route):
    kept, anew = (
        trained(name, pair_rows, tmp_path / str(on), route=route, checkpointing=on)["log"] for on in (False, True)
    )
    require_alike(kept, anew, loss=1e-4, scores=1e-4)


@needs_cuda
@pytest.mark.parametrize("four_bit", [True, False], ids=["4 bits", "16 bits"])
def test_a_base_lies_in_memory_once_and_a_training_leaves_it_as_it_was(name, pair_rows, tmp_path, four_bit):
    kind = {"dtype": "bfloat16" if hardware().bf16 else "float16", "four_bit": four_bit}
    require_kind(**kind)
    held, tokenizer = models.load(name, device=DEVICE, **kind)
    before = training.reference_log_probabilities(held, tokenizer, pair_rows)
    shared = models.load_frozen(name, device=DEVICE, template_options=(), **kind)[0]
    assert {id(weight) for weight in shared.parameters()} == {id(weight) for weight in held.parameters()}
    trained(name, pair_rows, tmp_path, **kind)
    assert (training.reference_log_probabilities(held, tokenizer, pair_rows) == before).all()


@needs_cuda
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "none"])
@pytest.mark.parametrize("four_bit", [True, False], ids=["4 bits", "16 bits"])
def test_memory_is_within_15_percent_of_its_budget(tmp_path, four_bit, checkpointing):
    dtype = hardware().dtype
    require_kind(dtype, four_bit)
    folder = random_models.write(tmp_path / "medium", MEDIUM, dtype=dtype, device=DEVICE)
    case = gpu_measures.Case(folder, gpu_measures.Load(pairs=16, repetitions=1), DEVICE, dtype, rate=1.0)
    found = gpu_measures.training_row(case, route="ours", four_bit=four_bit, checkpointing=checkpointing)
    assert found["peak_gb"] == pytest.approx(found["budget_gb"], rel=0.15)


@pytest.mark.parametrize("route", training.ROUTES)
def test_a_trainer_uses_one_of_the_gpus_that_it_sees(name, pair_rows, tmp_path, monkeypatch, route):
    """Only the number of GPUs is faked. Without a launcher transformers would use both by `nn.DataParallel`."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    arguments = training.dpo_arguments(tmp_path, device="cuda", dtype="float32", **NUMBERS)
    assert arguments.n_gpu == 2 and arguments.train_batch_size == 4
    arguments.dataloader_pin_memory = False  # there is none to pin it for
    model, tokenizer = models.load(name, dtype="float32")
    trainer = trainers.DPO[route](
        model=model, args=arguments, train_dataset=pair_rows, processing_class=tokenizer, peft_config=training.lora(4)
    )
    assert trainer.args.n_gpu == 1 and len(trainer.get_train_dataloader()) == len(pair_rows) // 2


def test_a_training_with_several_processes_is_left_alone(tmp_path):
    arguments = training.dpo_arguments(tmp_path, device="cpu", dtype="float32", **NUMBERS)
    for devices in (0, 1):
        arguments._n_gpu = devices  # 1 is what a launcher's process has
        assert trainers.on_one_gpu(arguments).n_gpu == devices


@needs_two
def test_two_gpus_give_what_one_gives(name, pair_rows, tmp_path):
    """The number of steps and the first loss are those of one device with the recipe's batch."""
    there, here = (trained(name, pair_rows, tmp_path / d, device=d)["log"] for d in ("cuda", "cpu"))
    assert len(there) == len(here) and there[0]["loss"] == pytest.approx(here[0]["loss"], rel=1e-3)


def test_the_libraries_ways_are_the_default_on_cuda(there):
    assert routes.packs_by_default(there[0]) == (DEVICE == "cpu")
    taken = [training.Recipe(learning_rate=1e-4, device=d, dtype="float32").route for d in ("cpu", "cuda")]
    assert taken == ["shared_prefix", "trl"]
