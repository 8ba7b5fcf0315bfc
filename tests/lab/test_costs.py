"""What a run costs: weights counted without allocating any, memory and minutes by arithmetic."""

import pytest
import torch

from mipo_nb import models
from mipo_nb.lab import costs


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


def test_memory_budget_moves_the_right_way():
    assert budget(four_bit=True)["weights"] < budget()["weights"]
    assert budget(dtype="float32")["weights"] == 2 * budget()["weights"]
    assert budget(pairs_per_batch=16)["activations"] == 2 * budget()["activations"]
    assert budget(rank=32)["adapter, gradient, Adam"] == 2 * budget()["adapter, gradient, Adam"]


def test_full_fine_tuning_takes_sixteen_bytes_a_weight_and_more():
    found = budget(rank=0)
    held = sum(found[part] for part in ("weights", "gradient", "Adam"))
    assert held == pytest.approx(16 * 134.5e6, rel=0.01)
    assert found["weights in the type of the products"] == pytest.approx(2 * 106.2e6, rel=0.01)
    assert "weights in the type of the products" not in budget(rank=0, dtype="float32")
    assert budget(rank=0, device="cpu")["activations"] > 5 * found["activations"]  # nothing is computed anew there
    assert found["activations"] == budget(rank=0, pairs_per_batch=4)["activations"] * 2


@pytest.mark.model
def test_weights_are_counted_as_the_model_has_them(model_and_tokenizer):
    model, _ = model_and_tokenizer
    layers, head, every = costs.count_weights(models.load_config("embedded:smollm2-135m"))
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


def test_the_rate_of_products_is_plausible():
    assert 1e8 < costs.product_rate("cpu", "float32", seconds=0.1) < 1e14
    assert torch.get_default_dtype() == torch.float32
