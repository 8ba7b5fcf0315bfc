"""What a run costs: weights counted without allocating any, memory and minutes by arithmetic. Run as a script with a
setting as JSON, this file trains with it and prints the memory that this took."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from mipo_nb import models, prompts, training
from mipo_nb.base.hardware import hardware
from mipo_nb.lab import costs, runs

NAME = "embedded:smollm2-135m"


def budget(**changes):
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "llama", hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, vocab_size=49152, tie_word_embeddings=True,
    )  # fmt: skip
    numbers = {"four_bit": False, "dtype": "bfloat16", "rank": 16, "pairs_per_batch": 8}
    numbers |= {"prompt_tokens": 90, "completion_tokens": 72}
    return costs.memory_budget(config, **{**numbers, **changes})


def test_memory_budget_of_weights_is_their_number_times_two_bytes():
    assert budget()["weights"] == pytest.approx(134.5e6 * 2, rel=0.01)


def test_memory_budget_of_four_bits_counts_the_scales_and_what_is_not_quantized():
    """QLoRA, arXiv 2305.14314, section 3: 0.5 bits a weight for scales, which double quantization makes 0.127."""
    assert pytest.approx(4.127, abs=1e-3) == costs.NF4_BYTES * 8
    assert budget(four_bit=True)["weights"] == pytest.approx(106.2e6 * 4.127 / 8 + 28.3e6 * 2, rel=0.01)


def test_memory_budget_moves_the_right_way():
    assert budget(dtype="float32")["weights"] == 2 * budget()["weights"]
    assert budget(pairs_per_batch=16)["activations"] == 2 * budget()["activations"]
    assert budget(rank=32)["adapter, gradient, Adam"] == 2 * budget()["adapter, gradient, Adam"]
    four_bit = budget(four_bit=True, device="cpu")
    beside = budget(four_bit=True, device="cpu", beside=2)
    assert beside.pop("base model, held beside") == 2 * beside["weights"] and beside == four_bit
    assert budget(beside=2) == budget()  # whose weights are shared, and on a card those of 4 bits too
    assert budget(four_bit=True, beside=2) == budget(four_bit=True)


def test_an_adapter_takes_sixteen_bytes_a_weight_whatever_its_base_is_held_in():
    """Counted from PEFT's model of the same configuration: A and B of rank 16 on all linear layers."""
    for changes in ({}, {"four_bit": True}, {"dtype": "float32"}, {"device": "cpu"}):
        assert budget(**changes)["adapter, gradient, Adam"] == 16 * 4_884_480


def test_checkpointing_is_counted_where_it_is_on():
    """One layer and the inputs [tokens, h] of all, in 16 bits: 8 pairs of 90 + 2 x 72 tokens."""
    on, off = (budget(checkpointing=value)["activations"] for value in (True, False))
    assert on == pytest.approx(30 * 8 * 234 * 576 * 2 + off / 30)
    assert budget() == budget(checkpointing=True)
    assert budget(device="cpu") == budget(device="cpu", checkpointing=False)
    assert budget(device="cpu")["activations"] < off  # an adapter of a packed layer casts no input


def test_full_fine_tuning_takes_sixteen_bytes_a_weight_and_more():
    found = budget(rank=0)
    held = sum(found[part] for part in ("weights", "gradient", "Adam"))
    assert held == pytest.approx(16 * 134.5e6, rel=0.01)
    assert found["logits"] == 128 * 49152 * 16 + 2 * 49152 * 576 * 4  # whatever the batch
    assert found["logits"] == budget(rank=0, pairs_per_batch=4)["logits"]
    assert budget(rank=0, device="cpu")["activations"] > 5 * found["activations"]  # nothing is computed anew there
    assert found["activations"] == budget(rank=0, pairs_per_batch=4)["activations"] * 2
    assert found == budget(rank=0, dtype="float32")


@pytest.mark.whole
@pytest.mark.model
@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 8}, {"batch_size": 4, "four_bit": True}, {"batch_size": 2, "rank": 0}],
    ids=["16 bits", "4 bits", "all weights"],
)
def test_memory_that_a_training_takes_is_that_of_its_budget(changes):
    """By a fresh process that does what notebook 11 does up to its training: the untrained model stays beside."""
    if changes.get("four_bit"):
        pytest.importorskip("bitsandbytes")
    numbers = {
        "learning_rate": 1e-4,
        "rank": 16,
        "four_bit": False,
        "device": "cpu",
        "dtype": hardware().dtype,
        **changes,
    }
    command = [sys.executable, __file__, json.dumps(numbers)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    names = ("four_bit", "dtype", "rank", "device")
    predicted = costs.memory_budget(
        models.load_config(NAME), pairs_per_batch=numbers["batch_size"], beside=1, **found["tokens"],
        **{name: numbers[name] for name in names},
    )  # fmt: skip
    assert sum(predicted.values()) == pytest.approx(found["peak"], rel=0.25), predicted


def trained(numbers):
    """{"tokens": lengths of the pairs, "peak": resident bytes at most} of three steps on pairs that share nothing."""
    draw, recipe = random.Random(0), training.Recipe(**numbers)
    model, tokenizer = models.load(NAME, **recipe.weights)
    words = [word for word in map(tokenizer.decode, range(1000, 9000)) if word[:1] == " " and word[1:].isalpha()]
    text = lambda n: "".join(draw.choices(words, k=n)).strip()  # noqa: E731
    side = lambda: [{"role": "assistant", "content": text(70)}]  # noqa: E731
    rows = ({"prompt": prompts.messages(text(10), text(55)), "chosen": side(), "rejected": side()} for _ in range(3 * recipe.batch_size))  # fmt: skip
    data = Dataset.from_list([{**row, "user_id": ""} for row in rows])
    lengths = training.tokenize(data, tokenizer)
    tokens = {
        "prompt_tokens": max(len(prompt) for prompt, _, _ in lengths),
        "completion_tokens": max(len(side) for _, *sides in lengths for side in sides),
    }
    reference = training.reference_log_probabilities(model, tokenizer, data) if recipe.rank else None
    with tempfile.TemporaryDirectory() as folder:
        training.train(NAME, data, reference, folder=Path(folder), **numbers)
    return {"tokens": tokens, "peak": runs.peak_memory()}


@pytest.mark.model
def test_weights_are_counted_as_the_model_has_them(model_and_tokenizer):
    model, _ = model_and_tokenizer
    layers, head, every = costs.count_weights(models.load_config(NAME))
    assert every == model.num_parameters() and head == model.get_output_embeddings().weight.numel()
    assert layers == every - head  # which it shares with the embedding


def test_a_head_of_its_own_is_counted_beside_the_embedding():
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "llama", hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=128, vocab_size=1000, tie_word_embeddings=False,
    )  # fmt: skip
    layers, head, every = costs.count_weights(config)
    assert head == 64_000 and every == layers + 2 * head


def work(**changes):
    numbers = {"trainings": 1, "pairs": 256, "epochs": 2, "prompt_tokens": 84, "response_tokens": 72}
    return costs.Work(**{**numbers, "samples": 512, "scored": 1024, **changes})


def minutes(device="cpu", full=False, rate=258.7e9, **changes):
    return costs.minutes(work(**changes), 106.2e6, 28.3e6, rate, device=device, full=full)


def test_minutes_of_a_training_are_those_that_were_measured():
    """figures/bench.csv: 1.135 pairs a second in float32 where matrix products reach 258.7 GFLOP/s."""
    assert minutes()["training"] == pytest.approx(512 / 1.135 / 60, rel=0.3)


def test_minutes_of_sampling_and_scoring_are_those_that_were_measured():
    """As above: 160 tokens a second sampled; 6.35 responses a second scored, one context for eight of them."""
    assert minutes()["sampling"] == pytest.approx(512 * 72 / 160 / 60, rel=0.5)
    assert minutes()["scoring"] == pytest.approx(1024 / 5 / 60, rel=0.5)


def test_minutes_move_the_right_way():
    one = minutes()
    assert minutes(trainings=3)["training"] == pytest.approx(3 * one["training"])
    assert minutes(epochs=1)["training"] == pytest.approx(one["training"] / 2)
    assert minutes(samples=0)["sampling"] == 0 and minutes(samples=0)["scoring"] == one["scoring"]
    assert minutes(rate=2 * 258.7e9)["training"] == pytest.approx(one["training"] / 2)
    assert minutes(full=True)["training"] > one["training"]


def trained_for(steps, warmup):
    """What a training of so many steps returns, as far as costs read it: the rates of transformers' own schedule."""
    from transformers.optimization import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=4e-4)
    schedule, log = get_cosine_schedule_with_warmup(optimizer, warmup, steps), []
    for _ in range(steps):
        log.append({"learning_rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
    return {"log": log}


def test_full_steps_are_the_sum_of_the_rates_multipliers():
    """A cosine's n steps from 1 towards 0 sum to (n + 1) / 2, the w of a rise from 0 towards 1 to (w - 1) / 2."""
    assert costs.spent([trained_for(12, 0)], 4e-4, 90) == {"steps": "12", "full steps": "6.5", "minutes": "1.50"}
    both = costs.spent([trained_for(12, 0), trained_for(43, 5)], 4e-4, [60, 120])
    assert both == {"steps": "27.5", "full steps": f"{(6.5 + 2 + 19.5) / 2:.1f}", "minutes": "1.50"}
    assert costs.spent([trained_for(12, 0)], 5e-4, 90)["full steps"] == "5.2"


@pytest.mark.model
def test_a_training_has_the_full_steps_of_its_schedule(tmp_path):
    """Of a few steps none is lost to a warm-up, whatever its share."""
    numbers = {"learning_rate": 4e-4, "warmup": 0.5, "batch_size": 2, "rank": 4, "device": "cpu", "dtype": "float32"}
    rows = [{"prompt": prompts.messages(f"What is {k}?"), "user_id": ""} for k in range(6)]
    data = Dataset.from_list([{**row, **{side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}} for row in rows])  # fmt: skip
    result = training.train(NAME, data, None, folder=tmp_path, **numbers)
    assert costs.spent([result], 4e-4, 6)["full steps"] == costs.spent([trained_for(3, 0)], 4e-4, 6)["full steps"]


def test_the_rate_of_products_is_plausible():
    assert 1e8 < costs.product_rate("cpu", "float32", seconds=0.1) < 1e14
    assert torch.get_default_dtype() == torch.float32


if __name__ == "__main__":
    print(json.dumps(trained(json.loads(sys.argv[1]))))
