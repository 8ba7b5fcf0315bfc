"""What a run costs: weights, memory and minutes, by arithmetic on a model's configuration before anything is loaded;
and what its trainings cost, once they ran."""

import math
import time
from dataclasses import dataclass
from types import SimpleNamespace

from mipo_nb.engine.arguments import outline

# Share of the machine's matrix product rate that is left for the arithmetic of the model. On a CPU as measured with
# SmolLM2-135M on two cores (figures/bench.csv): training 0.50 to 0.57, sampling 0.40 to 0.54, scoring 0.52 to 0.66. On
# a GPU nothing was measured: these are assumptions, low for sampling, where each token waits for the one before it.
EFFICIENCY = {
    "cpu": {"training": 0.5, "full fine-tuning": 0.1, "sampling": 0.4, "scoring": 0.5},
    "cuda": {"training": 0.2, "full fine-tuning": 0.3, "sampling": 0.01, "scoring": 0.2},
}

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: 4 bits, of 64 an 8-bit scale, of 256 of these a float32 (QLoRA)
# What is there whatever the model is. On a CPU as measured with SmolLM2-135M: the process with its libraries and what
# loading and scoring leave behind. CUDA's own was not measured here.
CONSTANT = {"cpu": ("Python, libraries, freed memory", 0.7e9), "cuda": ("CUDA context, not measured", 0.4e9)}
FREED = 1 / 5  # of the activations: what glibc keeps between blocks; 0.2 in 16 bits, 0.4 in 4, measured as above


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
    model = outline(config)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total = sum(weights.numel() for weights in model.parameters())
    outside = embedding.numel() if head is embedding else embedding.numel() + head.numel()
    return total - outside, head.numel(), total


def memory_budget(
    config, *, four_bit, dtype, rank, pairs_per_batch, prompt_tokens, completion_tokens, device="cuda", beside=0,
    checkpointing=None,
):  # fmt: skip
    """Bytes by part that one training step needs at its peak: a table worked out before anything is loaded.

    `completion_tokens` is the length of one response; a pair has two after one prompt. `beside` models are held meanwhile
    besides the one in training, which shares its weights with them where it can (`models.load_frozen`). With
    `checkpointing` a layer keeps its input alone and is computed anew on the way back; None takes what
    `training.trainer_arguments` does: on CUDA, not on a CPU. `rank=0` is full fine-tuning as `training.train` does it, all in float32.

    The sum is within 25% of the resident memory that was measured on a CPU (`tests/lab/test_costs.py`). Nothing was
    measured with CUDA.
    """
    shape, size = _shape(config), 2 if rank and dtype in ("bfloat16", "float16") else 4
    on_cpu, scored = device == "cpu", 2 * pairs_per_batch * completion_tokens
    checkpointing = not on_cpu if checkpointing is None else checkpointing
    packed = on_cpu and rank  # see `linear.PackedTraining`
    stored = _stored(shape, size, pairs_per_batch, prompt_tokens, completion_tokens, rank, packed)
    inputs = (pairs_per_batch * prompt_tokens + scored) * shape.h * size
    base = math.ceil(shape.linear * (NF4_BYTES if four_bit else size)) + shape.embeddings * size
    budget = {
        "weights": base,
        **_learning(shape, rank, base),
        "activations": shape.layers * inputs + stored if checkpointing else shape.layers * stored,
        "logits": _logits(shape, size, scored, rank),
    }
    if beside and (not rank or (four_bit and on_cpu)):
        budget["base model, held beside"] = beside * base
    if on_cpu and rank:  # once for the way forward, once for the way back
        budget["weights, laid out twice"] = 2 * ((not four_bit) * shape.linear + shape.vocab * shape.h) * size
    name, constant = CONSTANT[device]
    return {**budget, name: math.ceil(constant + on_cpu * FREED * budget["activations"])}


def _shape(config):
    """What of a configuration sets memory: widths of hidden states, queries, keys and feed-forward, and weights."""
    config = config.get_text_config()
    h, layers, ff, heads = (
        getattr(config, name)
        for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    )
    head = getattr(config, "head_dim", None) or h // heads
    q, kv, vocab = heads * head, config.num_key_value_heads * head, config.vocab_size
    tables = 1 if getattr(config, "tie_word_embeddings", True) else 2
    weights = {"linear": layers * (2 * h * q + 2 * h * kv + 3 * h * ff), "embeddings": tables * vocab * h}
    return SimpleNamespace(h=h, layers=layers, ff=ff, heads=heads, q=q, kv=kv, vocab=vocab, **weights)


def _stored(shape, size, pairs, prompt, completion, rank, packed):
    """Bytes that one layer stores for the way back; pairs share their prompt.

    Two norms with their float32 middle; the inputs of the products, which each adapter casts to float32 for itself unless
    the layer is packed; gate, its activation and the other branch; queries and attention's result; the keys and values
    that a prompt and its responses see, and a weight for each key of every head.
    """
    h, q, ff = shape.h, shape.q, shape.ff
    norms = 2 * 4 * h if rank else 4 * 4 * h  # twice as many where they learn
    inputs = size * (2 * h + q + ff) if packed or size == 4 else 4 * (5 * h + q + ff)
    tokens, keys = prompt + 2 * completion, prompt + 2 * (prompt + completion)
    seen = shape.heads * (prompt**2 + 2 * completion * (prompt + completion))
    return pairs * (tokens * (norms + inputs + size * (3 * ff + 2 * q)) + size * (2 * shape.kv * keys + seen))


def _learning(shape, rank, weights):
    """What learns has a gradient and Adam's two moments; all in float32, whatever an adapter's base is held in."""
    if not rank:
        return {"gradient": weights, "Adam": 2 * weights}
    widths = 2 * (shape.h + shape.q) + 2 * (shape.h + shape.kv) + 3 * (shape.h + shape.ff)
    return {"adapter, gradient, Adam": shape.layers * rank * widths * 4 * 4}


def _logits(shape, size, scored, rank):
    """Of a frozen head for a few tokens at a time, in the weights' type and in float32, and so their probabilities; a
    gradient stays for each `scored` token. A head that learns, for as few: logits, log-probs, both gradients, and what
    they and those before add to the head's own."""
    from mipo_nb.engine.head import HeadLogProbabilities

    tokens = min(HeadLogProbabilities.piece, scored)
    if not rank:
        return tokens * shape.vocab * 4 * 4 + 2 * shape.vocab * shape.h * 4
    return HeadLogProbabilities.piece * shape.vocab * 2 * (size + 4) + scored * shape.h * size


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


def spent(trainings, learning_rate, seconds):
    """{"steps", "full steps", "minutes"} of one training, as text: the row of a method in a cost table.

    `trainings` are what `training.train`, `contrastive.train` or `grpo.train` returned, one for each seed, at the same
    `learning_rate`; `seconds` is how long each took, or a list. Full steps are the sum of the rate's multipliers, as they
    were logged at each step: with warm-up and a cosine, half as many as steps or fewer.
    """
    from mipo_nb.engine.checkpoints import full_steps

    logs = [result["log"] for result in trainings]
    steps, full = (sum(map(count, logs)) / len(logs) for count in (len, lambda log: full_steps(log, learning_rate)))
    took = math.fsum(seconds) / len(seconds) if isinstance(seconds, list) else seconds
    return {"steps": f"{steps:g}", "full steps": f"{full:.1f}", "minutes": f"{took / 60:.2f}"}


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
