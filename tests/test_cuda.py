"""On a CUDA device: training, sampling and scoring give what they give on a CPU. Skipped where there is none, but for
how many GPUs a training takes."""

import pytest
import torch

from mipo_nb import generation, models, prompts, scoring, training
from mipo_nb.engine import decoding, packing, trainers

NAME = "embedded:smollm2-135m"
NUMBERS = {"learning_rate": 1e-3, "beta": 0.1, "epochs": 1, "max_length": 256, "rank": 4, "seed": 1}

pytestmark = pytest.mark.model
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(scope="module")
def on_cuda():
    return models.load(NAME, device="cuda", dtype="float32")


@needs_cuda
def test_scores_are_those_of_a_cpu(on_cuda, model_and_tokenizer, some_pairs):
    assert packing.enable_packing(on_cuda[0])
    there, here = (training.reference_log_probabilities(m, t, some_pairs) for m, t in (on_cuda, model_and_tokenizer))
    assert there == pytest.approx(here, rel=1e-3)


@needs_cuda
def test_greedy_tokens_are_those_of_generate(on_cuda):
    model, tokenizer = on_cuda
    asked = [prompts.prompt_ids(tokenizer, prompts.messages(q)) for q in ("Name a bird.", "How does rain form?")]
    how = generation.Sampling(temperature=0, max_new_tokens=24)
    ends = {tokenizer.eos_token_id}
    assert decoding.decode(model, asked, how, ends) == generation.generate(model, asked, how, ends)


@needs_cuda
@pytest.mark.parametrize(
    "dtype, four_bit", [("float32", False), ("bfloat16", False), ("bfloat16", True), ("float16", True)]
)
def test_both_routes_train_alike(on_cuda, some_pairs, tmp_path, dtype, four_bit):
    model, tokenizer = models.load(NAME, device="cuda", dtype=dtype, four_bit=four_bit)
    reference = training.reference_log_probabilities(model, tokenizer, some_pairs)
    shared, trl = (
        training.train(
            NAME, some_pairs, reference, batch_size=2, device="cuda", dtype=dtype, four_bit=four_bit, route=route,
            folder=tmp_path / route, **NUMBERS,
        )["log"]
        for route in training.ROUTES
    )  # fmt: skip
    for ours, theirs in zip(shared, trl, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3 if dtype == "float32" else 5e-2)


@needs_cuda
def test_scoring_matches_padded_rows(on_cuda):
    model, tokenizer = on_cuda
    asked = [prompts.messages("Name a bird.", c) for c in ("Ada likes the sea.", None)]
    packed = scoring.log_probabilities(model, tokenizer, asked, ["A gull."] * 2)
    starts = [prompts.prompt_ids(tokenizer, c) for c in asked]
    ends = [prompts.completion_ids(tokenizer, c, "A gull.") for c in asked]
    with torch.inference_mode():
        apart = scoring.padded_log_probabilities(model, starts, ends).split([len(e) for e in ends])
    assert packed == pytest.approx([row.sum().item() for row in apart], rel=1e-3)


@pytest.mark.parametrize("route", training.ROUTES)
def test_a_trainer_uses_one_of_the_gpus_that_it_sees(some_pairs, tmp_path, monkeypatch, route):
    """Only the number of GPUs is faked. Without a launcher transformers would use both by `nn.DataParallel`."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    arguments = training.dpo_arguments(tmp_path, batch_size=2, device="cuda", dtype="float32", **NUMBERS)
    assert arguments.n_gpu == 2 and arguments.train_batch_size == 4
    arguments.dataloader_pin_memory = False  # there is none to pin it for
    model, tokenizer = models.load(NAME, dtype="float32")
    trainer = trainers.DPO[route](
        model=model, args=arguments, train_dataset=some_pairs, processing_class=tokenizer, peft_config=training.lora(4)
    )
    assert trainer.args.n_gpu == 1 and len(trainer.get_train_dataloader()) == len(some_pairs) // 2


def test_a_training_with_several_processes_is_left_alone(tmp_path):
    arguments = training.dpo_arguments(tmp_path, device="cpu", dtype="float32", **NUMBERS)
    for devices in (0, 1):
        arguments._n_gpu = devices  # 1 is what a launcher's process has
        assert trainers.on_one_gpu(arguments).n_gpu == devices


@needs_two
def test_two_gpus_give_what_one_gives(some_pairs, tmp_path):
    """The number of steps and the first loss are those of one device with the recipe's batch."""
    call = {**NUMBERS, "batch_size": 2, "dtype": "float32", "folder": tmp_path}
    there, here = (training.train(NAME, some_pairs, None, device=d, **call)["log"] for d in ("cuda", "cpu"))
    assert len(there) == len(here) and there[0]["loss"] == pytest.approx(here[0]["loss"], rel=1e-3)
