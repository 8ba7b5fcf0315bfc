"""`mipo-nb bench`: ours against the straightforward TRL and transformers route, on this machine.

Both routes run in one process, in turn, several times; compare machines by the ratio of medians. The share of peak is
the arithmetic that the task needs (shared tokens once, no padding, logits of scored tokens only) per second, over the
fastest matrix product measured beside it.
"""

import statistics
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from mipo_nb import generation, models, prompts, scoring, sources, training
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.base.hardware import hardware, processor
from mipo_nb.command import plain_route
from mipo_nb.command.plain_route import CHOSEN, MODEL, PROMPT, operations, training_step
from mipo_nb.engine import decoding, packing, plain_decoding, routes
from mipo_nb.engine.linear import packed_weights
from mipo_nb.lab.costs import product_rate

PARTS = ("train", "sample", "score", "pipeline")
NOT_YET = "not measured yet"
COLUMNS = ("what", "ours", "reference", "unit", "ratio", "share_of_peak", "device", "n")
BATCH = 8  # pairs in a training step


def _seconds(task, device):
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    begun = time.perf_counter()
    task()
    wait()
    return time.perf_counter() - begun


def in_turn(tasks, repetitions, device="cpu"):
    """Median seconds of each task: one call each to warm up, then alternating."""
    for task in tasks:
        task()
    times = [[_seconds(task, device) for task in tasks] for _ in range(repetitions)]
    return tuple(statistics.median(column) for column in zip(*times, strict=True))


def bench_training(dtype, device, peak, repetitions):
    """Pairs per second of a step, against TRL's defaults: bf16, gradient checkpointing, a reference pass each step.

    Also against TRL in the type that weights are held in here, without checkpointing; with CUDA, also with NF4 weights
    on both sides. Yields one row per case.
    """
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    pairs = plain_route.some_pairs(tokenizer, BATCH)
    rows = training.tokenize(pairs, tokenizer)
    tokens = sum(map(len, packing.tree([prompt + side for prompt, *sides in rows for side in sides])[1]))
    work = operations(model, tokens, sum(len(a) + len(b) for _, a, b in rows), backward=True)
    cases = {"train": ("bfloat16", True, False), "train, reference without checkpointing": (dtype, False, False)}
    if device == "cuda":
        cases["train, NF4"] = (dtype, True, True)
    for what, (reference_dtype, checkpointing, four_bit) in cases.items():
        ours = training_step("ours", pairs, dtype, device, four_bit)
        changes = {"precompute_ref_log_probs": False, "gradient_checkpointing": checkpointing}
        reference = training_step("trl", pairs, reference_dtype, device, four_bit, **changes)
        seconds = in_turn((ours, reference), repetitions, device)
        yield _row(what, BATCH, "pairs/s", seconds, work / seconds[0] / peak, repetitions)


def bench_sampling(dtype, device, peak, repetitions, *, n=128, batch=64):
    """Tokens per second over `n` prompts, in one batch and in batches of `batch`, against `model.generate` in such
    batches. With users' contexts, and bare: few prompts that many users share. Yields one row per case."""
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    routes.enable_packing(model)
    plain = models.load(MODEL, device=device, dtype=dtype)[0]
    rows, ends = sources.personal_prompts("train", n=n, seed=0), {tokenizer.eos_token_id}
    personal = sorted(prompts.prompt_ids(tokenizer, prompts.messages(r["prompt"], r["context"])) for r in rows)
    bare = sorted(prompts.prompt_ids(tokenizer, prompts.messages(r["prompt"])) for r in rows)
    for conversations, cases in (
        (personal, {"sample": n, f"sample, batches of {batch}": batch}),
        (bare, {"sample, shared bare prompts": n}),
    ):
        ways = [(decoding.decode, model, size) for size in cases.values()] + [(plain_decoding.generate, plain, batch)]
        counts = [[] for _ in ways]  # tokens of each call: which responses finish early differs between draws

        def run(sampler, policy, size, counts, ids=conversations):
            with torch.inference_mode(), packed_weights(policy) if policy is model else nullcontext():
                sampling = generation.Sampling(batch_size=size)
                responses = (drawn for part in _batches(ids, size) for drawn in sampler(policy, part, sampling, ends))
                counts.append(sum(len(tokens) + done for tokens, done in responses))

        torch.manual_seed(0)
        tasks = [partial(run, *way, of_way) for way, of_way in zip(ways, counts, strict=True)]
        seconds, tokens = in_turn(tasks, repetitions, device), list(map(statistics.mean, counts))
        for k, (what, size) in enumerate(cases.items()):
            prefill = sum(len(piece) for part in _batches(conversations, size) for piece in packing.tree(part)[1])
            work = operations(model, prefill + tokens[k], tokens[k])
            both = seconds[k], seconds[-1] * tokens[k] / tokens[-1]
            yield _row(what, tokens[k], "tokens/s", both, work / seconds[k] / peak, repetitions)


def _batches(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def bench_scoring(dtype, device, peak, repetitions, *, k=8):
    """Responses scored per second: one under K contexts, K under one context, a K x K matrix. Yields a row per case."""
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    contexts, responses = (plain_route.texts(tokenizer, [length] * k) for length in (PROMPT - 44, CHOSEN))
    conversations = [prompts.messages("What shall I do with a free evening?", context) for context in contexts]
    cases = {
        f"score, 1 response x {k} contexts": [(c, responses[0]) for c in conversations],
        f"score, {k} responses x 1 context": [(conversations[0], r) for r in responses],
        f"score, {k} x {k} matrix": [(c, r) for c in conversations for r in responses],
    }
    for what, pairs in cases.items():
        ids = [(prompts.prompt_ids(tokenizer, c), prompts.completion_ids(tokenizer, c, r)) for c, r in pairs]
        tokens = sum(map(len, packing.tree([start + end for start, end in ids])[1]))
        work = operations(model, tokens, sum(len(end) for _, end in ids))
        ours = partial(scoring.log_probabilities, model, tokenizer, *map(list, zip(*pairs, strict=True)))
        seconds = in_turn((ours, partial(plain_route.one_by_one, model, ids)), repetitions, device)
        yield _row(what, len(pairs), "responses/s", seconds, work / seconds[0] / peak, repetitions)


def bench_pipeline(dtype, device, peak, repetitions, *, users=64):
    """Users per minute from their prompts to a measured adapter: one run of either route, which takes minutes."""
    rows = sources.personal_prompts("train", n=users, seed=0)
    tasks = [partial(plain_route.pipeline, route, rows, dtype, device) for route in ("ours", "trl")]
    yield _row("pipeline", 60 * users, "users/min", [_seconds(task, device) for task in tasks], None, 1)


def _row(what, amount, unit, seconds, share, n):
    ours, reference = seconds
    rates = {"ours": amount / ours, "reference": amount / reference, "ratio": reference / ours}
    return {"what": what, **rates, "unit": unit, "share_of_peak": share, "n": n}


def run(repetitions=5, *, folder=None, parts=PARTS):
    """Run the benchmarks; write bench.csv to `folder` (default: figures/). Returns the rows.

    Rows of other devices stay in the file, so that it can hold a laptop's and a GPU's figures.
    """
    machine = hardware()
    device, dtype = machine.device, machine.dtype
    folder = Path(folder or project_root() / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{machine.cuda or f'{machine.cores} cores, {processor()}'}, {dtype}"
    peak = product_rate(device, dtype)
    rows = [{"what": "matrix product (the peak)", "ours": peak / 1e9, "unit": "GFLOP/s", "device": name}]
    for part in parts:
        for row in BENCHES[part](dtype, device, peak, repetitions):
            rows.append({**row, "device": name})
            print("{what}: {ours:.3g} against {reference:.3g} {unit}, {ratio:.1f} times".format(**row), flush=True)
            _write(folder / "bench.csv", rows, name)  # row by row: a benchmark that is stopped loses nothing
    return rows


def _write(file, rows, name):
    """Write the rows in place of earlier rows of the same device and `what`; all others stay."""
    tables = [pd.DataFrame(rows, columns=COLUMNS)]
    if file.exists():
        old = pd.read_csv(file)
        replaced = (old["device"] == name) & old["what"].isin([row["what"] for row in rows])
        tables.append(old[~replaced & ~old["device"].str.startswith(NOT_YET)])
    if not any(table["device"].str.contains("NVIDIA").any() for table in tables):
        tables.append(pd.DataFrame({"what": list(PARTS), "device": f"{NOT_YET} with CUDA"}))
    write_atomically(file, pd.concat(tables).to_csv(index=False, float_format="%.4g"))


BENCHES = {"train": bench_training, "sample": bench_sampling, "score": bench_scoring, "pipeline": bench_pipeline}
