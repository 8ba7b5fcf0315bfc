"""What a run costs: weights, memory and minutes, by arithmetic on a model's configuration before anything is loaded."""

import math
import time
from dataclasses import dataclass

# Share of the machine's matrix product rate that is left for the arithmetic of the model. On a CPU as measured with
# SmolLM2-135M on two cores (figures/bench.csv): training 0.50 to 0.57, sampling 0.40 to 0.54, scoring 0.52 to 0.66. On
# a GPU nothing was measured: these are assumptions, low for sampling, where each token waits for the one before it.
EFFICIENCY = {
    "cpu": {"training": 0.5, "full fine-tuning": 0.1, "sampling": 0.4, "scoring": 0.5},
    "cuda": {"training": 0.2, "full fine-tuning": 0.3, "sampling": 0.01, "scoring": 0.2},
}


@dataclass(frozen=True)
class Work:
    """What a notebook is going to do. Tokens are those of one typical prompt and one typical response."""

    trainings: int
    pairs: int  # of one training
    epochs: float
    prompt_tokens: int
    response_tokens: int
    samples: int  # responses, those of pairs included
    scored: int  # responses of which log-probs are computed


def count_weights(config):
    """(weights of the layers, weights of the head, all weights) of a causal language model, none of them allocated. A
    head that shares its weights with the embedding counts once among all."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total = sum(weights.numel() for weights in model.parameters())
    outside = embedding.numel() if head is embedding else embedding.numel() + head.numel()
    return total - outside, head.numel(), total


def memory_budget(config, *, four_bit, dtype, rank, pairs_per_batch, prompt_tokens, completion_tokens, device="cuda"):
    """Bytes by part that one training step needs at its peak: a table worked out before anything is loaded.

    `completion_tokens` is the length of one response; a pair has two after one prompt. `rank=0` is full fine-tuning as
    `training.train` does it: weights, gradient and Adam in float32, products in `dtype`.
    """
    from mipo_nb.engine.packing import HeadLogProbabilities

    config = config.get_text_config()
    h, layers, ff, vocab = config.hidden_size, config.num_hidden_layers, config.intermediate_size, config.vocab_size
    heads, kv = config.num_attention_heads, config.num_key_value_heads * (h // config.num_attention_heads)
    size = 2 if dtype in ("bfloat16", "float16") else 4
    linear = layers * (2 * h * h + 2 * h * kv + 3 * h * ff)
    embeddings = (1 if getattr(config, "tie_word_embeddings", True) else 2) * vocab * h
    # Values stored for the backward pass per token and layer: two norms with their float32 middle, the inputs of each
    # product, query, keys and values, both feed-forward branches, and what every head looks at.
    stored = 16 * h + 4 * kv + 4 * ff + heads * (prompt_tokens + completion_tokens)
    if not rank:
        # TRL's rows repeat the prompt. A GPU stores only the layers' float32 inputs, and recomputes a layer at a time.
        tokens = 2 * pairs_per_batch * (prompt_tokens + completion_tokens)
        activations = tokens * (layers * h * 4 + stored * size) if device == "cuda" else layers * tokens * stored * size
        tile = min(tokens, 4096) * min(vocab, 32768) * (size + 4)  # of logits, as TRL makes them
        copies = {"weights in the type of the products": linear * size} if size == 2 else {}
        weights = (linear + embeddings) * 4
        budget = {"weights": weights, "gradient": weights, "Adam": 2 * weights, **copies}
        return {**budget, "activations": activations, "logits": tile + vocab * h * 4}
    adapter = layers * rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + ff))
    tokens = pairs_per_batch * (prompt_tokens + 2 * completion_tokens)
    # Logits exist for a few tokens at a time, in the model's type and in float32; a gradient stays per scored token.
    logits = HeadLogProbabilities.piece * vocab * 2 * (size + 4) + 2 * pairs_per_batch * completion_tokens * h * size
    budget = {
        "weights": math.ceil(linear * (0.56 if four_bit else size)) + embeddings * size,
        "adapter, gradient, Adam": adapter * 4 * 4,
        "activations": layers * tokens * stored * size,
        "logits": logits,
    }
    if device == "cpu" and not four_bit:  # see `linear`: once for the way forward, once for the way back
        budget["weights, laid out twice"] = 2 * (linear + vocab * h) * size
    return budget


def minutes(work, layers, head, rate, *, device, full):
    """{part: minutes} of `work` for a model with so many weights in `layers` and `head`, at `rate` FLOP/s of products.

    Two operations per weight and token forward; backward the same again, twice that where weights are trained, and once
    more forward on a GPU, where activations are computed anew. Attention's own products are left out.
    """
    prompt, response = work.prompt_tokens, work.response_tokens
    pair = (prompt + 2 * response) * layers + 2 * response * head  # a pair's sides share their prompt
    passes = (3 if full else 2) + (device == "cuda")
    training = work.trainings * work.pairs * work.epochs * passes * 2 * pair
    once = 2 * ((prompt + response) * layers + response * head)
    operations = {"training": training, "sampling": work.samples * once, "scoring": work.scored * once}
    share = EFFICIENCY[device] | ({"training": EFFICIENCY[device]["full fine-tuning"]} if full else {})
    return {part: count / (rate * share[part]) / 60 for part, count in operations.items()}


def product_rate(device, dtype, seconds=1.0):
    """FLOP/s of square matrix products on this machine: the fastest of those that fit into `seconds`."""
    import torch

    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    fastest, until = math.inf, time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until or fastest == math.inf:
        a @ b.T
        wait()
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * size**3 / fastest
