"""What `gpu_check` measures: steps of a training and sampled tokens, by this project and by the libraries, in turn.

Each measurement loads its model anew, so that its memory is its own. Every rate is a median after one run to warm up.
"""

import gc
import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial

import torch

from mipo_nb import models, training
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models, samplers
from mipo_nb.engine import checkpoints, decoding, packing
from mipo_nb.lab import costs, runs

ROUTES = {"ours": "shared_prefix", "TRL": "trl"}  # as `training.Recipe` calls them
RANK = 16  # of the adapter that is trained


@dataclass(frozen=True)
class Load:
    """How much is done at once, and how long it is timed."""

    pairs: int = 8
    prompt: int = 128  # tokens
    response: int = 160  # tokens of each side of a pair, and of each response that is sampled
    rows: int = 64  # responses that are sampled together
    repetitions: int = 5
    seconds: float = 8.0  # after which nothing is repeated


TINY = Load(pairs=2, prompt=40, response=8, rows=3, repetitions=2, seconds=2.0)


def load_of(size):
    """The load that a size of `random_models.SHAPES` is measured with."""
    return TINY if size == "tiny" else Load()


def words(load):
    """What the tables mean, for whoever reads them alone."""
    pairs, sampled = f"{load.pairs} pairs of {load.prompt} + 2 x {load.response} tokens", f"{load.rows} responses"
    return (
        f"Weights are random. train: a step of DPO on {pairs}, an adapter of rank {RANK},\n"
        f"stored reference log-probs. sample: {sampled} of {load.response} tokens to prompts of {load.prompt}. Medians of n.\n"
        "x libraries: rate over that of TRL or generate. share: arithmetic that the task needs, over the matrix product.\n"
        "budget_gb: memory worked out beforehand, for ours alone. loss: of the first step. generate_batch: with its set-up."
    )


@dataclass(frozen=True)
class Case:
    """A model and a machine: the folder of the model, how much it does, the device, the weights' type, and the fastest rate
    of matrix products there, in FLOP/s."""

    folder: str
    load: Load
    device: str
    dtype: str
    rate: float


def forget(device):
    """Free what earlier measurements left; returns the bytes that stay held on a GPU, 0 on a CPU."""
    gc.collect()
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    product = torch.ones(64, 64, device=device)
    (product @ product).sum().item()  # the workspace of the matrix library belongs to nobody's measurement
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_memory(device):
    """Bytes held at most: on a GPU by torch since `forget`, on a CPU by this process since its start."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else runs.peak_memory()


def train(case, *, route, four_bit, checkpointing):
    """Steps of DPO on an adapter, by the trainer of a route: seconds of a step (median), bytes at the peak, how many steps
    were timed, and the first loss. Both routes read stored reference log-probs, and hold what learns in float32."""
    from transformers import PrinterCallback

    from mipo_nb.engine import trainers

    device, load = case.device, case.load
    before = forget(device)
    model, tokenizer = models.load(case.folder, device=device, dtype=case.dtype, four_bit=four_bit)
    pairs = random_models.token_pairs(load.pairs, load.prompt, load.response, model.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        recipe = {"learning_rate": 1e-5, "batch_size": load.pairs, "max_length": None, "checkpointing": checkpointing}
        arguments = training.dpo_arguments(folder, **recipe, device=device, dtype=case.dtype, four_bit=four_bit)
        arguments.max_steps = 1 + load.repetitions
        timer = _timer(device, load.seconds)
        trainer = trainers.DPO[ROUTES[route]](
            model=model,
            args=arguments,
            train_dataset=pairs,
            processing_class=tokenizer,
            peft_config=training.lora(RANK),
            callbacks=[timer],
        )
        del model
        checkpoints.hold_in_float32(trainer.model)
        trainer.remove_callback(PrinterCallback)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # loading is another matter
        trainer.train()
        peak, loss = peak_memory(device) - before, trainer.state.log_history[0]["loss"]
        trainer.accelerator.free_memory()
        vars(trainer).clear()  # trainer and model hold one another
    timed = timer.seconds[1:] or timer.seconds
    return {"seconds": statistics.median(timed), "peak": peak, "n": len(timed), "loss": loss}


def _timer(device, limit):
    """A callback for transformers' trainers: `seconds` of each step; ends a training when those after the first took
    `limit` seconds."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def __init__(self):
            self.seconds = []

        def on_step_begin(self, args, state, control, **kwargs):
            self.begun = _now(device)

        def on_step_end(self, args, state, control, **kwargs):
            self.seconds.append(_now(device) - self.begun)
            control.should_training_stop |= sum(self.seconds[1:]) >= limit

    return Timer()


def _now(device):
    """Seconds on a clock, when all that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def training_row(case, *, route, four_bit, checkpointing):
    """What a table says of `train`: rates in pairs and in tokens that the task needs, peak and budget in GB, the share of
    the machine's matrix rate that the task's own arithmetic took, the first loss, and how many steps were timed."""
    load, config = case.load, models.load_config(case.folder)
    budget = costs.memory_budget(
        config, four_bit=four_bit, dtype=case.dtype, rank=RANK, pairs_per_batch=load.pairs, prompt_tokens=load.prompt,
        completion_tokens=load.response, device=case.device, checkpointing=checkpointing,
    )  # fmt: skip
    if case.device == "cuda":
        budget.pop(costs.CONSTANT["cuda"][0])  # lies outside of what torch allocates
        _require_room(budget["weights"])
    found = train(case, route=route, four_bit=four_bit, checkpointing=checkpointing)
    pairs = random_models.token_pairs(load.pairs, load.prompt, load.response, config.vocab_size)
    rows = [pair["prompt_ids"] + pair[f"{side}_ids"] for pair in pairs for side in ("chosen", "rejected")]
    tokens = sum(map(len, packing.tree(rows)[1]))
    layers, head, _ = costs.count_weights(config)
    work = 2 * 2 * (tokens * layers + 2 * load.pairs * load.response * head)  # forward, and backward as much again
    return {
        "pairs_s": load.pairs / found["seconds"],
        "tokens_s": tokens / found["seconds"],
        "peak_gb": found["peak"] / 1e9,
        "budget_gb": sum(budget.values()) / 1e9 if route == "ours" else None,
        "share": work / found["seconds"] / case.rate,
        "loss": found["loss"],
        "n": found["n"],
    }


def _require_room(weights):
    """Raise `UserError` for weights, in bytes, that this card cannot hold."""
    card = torch.cuda.get_device_properties(0).total_memory
    if weights > card:
        raise UserError(f"skipped: the weights alone have {weights / 1e9:.0f} GB, the card {card / 1e9:.0f}.")


def sampling_row(case, *, route):
    """What a table says of sampling `rows` responses by a route: tokens per second, peak in GB, share of the matrix rate and
    how often it was timed. The answers of random weights end at the limit, or nearly all of them do."""
    load, device, config = case.load, case.device, models.load_config(case.folder)
    layers, head, every = costs.count_weights(config)
    if device == "cuda":
        _require_room(every * getattr(torch, case.dtype).itemsize)
    before = forget(device)
    respond = samplers.loaded(route, case.folder, device, case.dtype, load.prompt + load.response)
    ids = random_models.token_prompts(load.rows, load.prompt, config.vocab_size)
    respond(ids, decoding.Sampling(max_new_tokens=min(8, load.response)))  # to warm up
    seconds, counts = [], []
    while len(seconds) < min(3, load.repetitions) and sum(seconds) < load.seconds:
        begun = _now(device)
        counts.append(respond(ids, decoding.Sampling(max_new_tokens=load.response)))
        seconds.append(_now(device) - begun)
    peak, taken, tokens = peak_memory(device) - before, statistics.median(seconds), statistics.mean(counts)
    work = 2 * ((sum(map(len, packing.tree(ids)[1])) + tokens) * layers + tokens * head)
    return {
        "tokens_s": tokens / taken,
        "peak_gb": peak / 1e9 if route != "vllm" else None,  # which allocates in a process of its own
        "share": work / taken / case.rate,
        "n": len(seconds),
    }


def measurements(case, parts, *, vllm=False):
    """(labels, function) of each measurement of a model: what a table calls it, and what measures it."""
    if "train" in parts:
        for four_bit, checkpointing, route in itertools.product((True, False), (True, False), ROUTES):
            how = {"route": route, "four_bit": four_bit, "checkpointing": checkpointing}
            weights = "NF4" if four_bit else case.dtype
            labels = {"part": "train", "weights": weights, "checkpointing": "on" if checkpointing else "off"}
            yield {**labels, "route": route}, partial(training_row, case, **how)
    if "sample" in parts:
        for route in [name for name in samplers.ROUTES if vllm or name != "vllm"]:
            yield {"part": "sample", "weights": case.dtype, "route": route}, partial(sampling_row, case, route=route)
