"""`mipo-nb bench`: ours against the straightforward TRL and transformers route, on this machine.

Both routes run in one process, in turn, several times over; the ratio of medians is what can be compared between
machines. The share of peak is the arithmetic that the task needs (what is shared once, no padding, logits of scored
tokens only) per second, over the fastest matrix product measured beside it.
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
from mipo_nb.command.plain_route import (
    CHOSEN,
    MODEL,
    PROMPT,
    one_by_one,
    operations,
    pipeline,
    some_pairs,
    texts,
    training_step,
)
from mipo_nb.engine import decoding, packing
from mipo_nb.engine.linear import packed_weights
from mipo_nb.lab import plots
from mipo_nb.lab.costs import product_rate

PARTS = ("train", "sample", "score", "pipeline")
NOT_YET = "not measured yet"
COLUMNS = ("what", "ours", "reference", "unit", "ratio", "share_of_peak", "device", "n")
BATCH = 8  # pairs in a training step


def _seconds(task, device):
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    task()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_turn(tasks, repetitions, device="cpu"):
    """Median seconds of each task: one call each to warm up, then alternating."""
    for task in tasks:
        task()
    times = [[_seconds(task, device) for task in tasks] for _ in range(repetitions)]
    return tuple(statistics.median(column) for column in zip(*times, strict=True))


def bench_training(dtype, device, peak, repetitions):
    """Pairs per second of a step, against TRL at its defaults: bf16, gradient checkpointing, a reference pass each step.

    Where weights are not held in bf16 here, also against TRL in the type they are held in, without checkpointing; with
    CUDA, also with NF4 weights on both sides.
    """
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    pairs = some_pairs(tokenizer, BATCH)
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
        found = in_turn((ours, reference), repetitions, device)
        yield _row(what, BATCH, "pairs/s", found, work / found[0] / peak, repetitions)


def bench_sampling(dtype, device, peak, repetitions, *, n=128, batch=64):
    """Tokens per second over `n` prompts, against `model.generate` in batches of `batch`: in one batch of all, and in as
    small ones. With users' contexts, and bare: few prompts that many users share."""
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    plain = models.load(MODEL, device=device, dtype=dtype)[0]
    plain.set_attn_implementation("sdpa")
    rows, ends = sources.personal_prompts("train", n=n, seed=0), {tokenizer.eos_token_id}
    personal = sorted(prompts.prompt_ids(tokenizer, prompts.messages(r["prompt"], r["context"])) for r in rows)
    bare = sorted(prompts.prompt_ids(tokenizer, prompts.messages(r["prompt"])) for r in rows)
    for conversations, cases in (
        (personal, {"sample": n, f"sample, batches of {batch}": batch}),
        (bare, {"sample, shared bare prompts": n}),
    ):
        routes = [(decoding.decode, model, size) for size in cases.values()] + [(generation.generate, plain, batch)]
        made = [[] for _ in routes]  # tokens of each call: what is finished early differs between draws

        def run(sampler, policy, size, tokens, asked=conversations):
            with torch.inference_mode(), packed_weights(policy) if policy is model else nullcontext():
                parts = [asked[k : k + size] for k in range(0, len(asked), size)]
                how = generation.Sampling(batch_size=size)
                tokens.append(sum(len(t) + done for part in parts for t, done in sampler(policy, part, how, ends)))

        torch.manual_seed(0)
        tasks = [partial(run, *route, tokens) for route, tokens in zip(routes, made, strict=True)]
        seconds, tokens = in_turn(tasks, repetitions, device), [statistics.mean(m) for m in made]
        for k, (what, size) in enumerate(cases.items()):
            prefill = sum(
                len(piece) for i in range(0, n, size) for piece in packing.tree(conversations[i : i + size])[1]
            )
            work = operations(model, prefill + tokens[k], tokens[k])
            found = seconds[k], seconds[-1] * tokens[k] / tokens[-1]
            yield _row(what, tokens[k], "tokens/s", found, work / seconds[k] / peak, repetitions)


def bench_scoring(dtype, device, peak, repetitions, *, k=8):
    """Sequences per second: one response under K contexts, K responses under one, a K x K matrix."""
    model, tokenizer = models.load(MODEL, device=device, dtype=dtype)
    asked = [prompts.messages("What shall I do with a free evening?", t) for t in texts(tokenizer, [PROMPT - 44] * k)]
    responses = texts(tokenizer, [CHOSEN] * k)
    cases = {
        f"score, 1 response x {k} contexts": [(c, responses[0]) for c in asked],
        f"score, {k} responses x 1 context": [(asked[0], r) for r in responses],
        f"score, {k} x {k} matrix": [(c, r) for c in asked for r in responses],
    }
    for what, pairs in cases.items():
        conversations, ends = (list(x) for x in zip(*pairs, strict=True))
        ids = [
            (prompts.prompt_ids(tokenizer, c), prompts.completion_ids(tokenizer, c, r))
            for c, r in zip(conversations, ends, strict=True)
        ]
        tokens = sum(map(len, packing.tree([s + e for s, e in ids])[1]))
        work = operations(model, tokens, sum(len(e) for _, e in ids))
        tasks = (
            lambda c=conversations, r=ends: scoring.log_probabilities(model, tokenizer, c, r),
            lambda ids=ids: one_by_one(model, ids),
        )
        found = in_turn(tasks, repetitions, device)
        yield _row(what, len(pairs), "responses/s", found, work / found[0] / peak, repetitions)


def bench_pipeline(dtype, device, peak, repetitions, *, users=64):
    """Users per minute from their prompts to a measured adapter: one run of either route, which takes minutes."""
    rows = sources.personal_prompts("train", n=users, seed=0)
    found = [_seconds(lambda r=route: pipeline(r, rows, dtype, device), device) for route in ("ours", "trl")]
    yield _row("pipeline", 60 * users, "users/min", found, None, 1)


def _row(what, amount, unit, seconds, share, n):
    ours, reference = seconds
    return {
        "what": what,
        "ours": amount / ours,
        "reference": amount / reference,
        "unit": unit,
        "ratio": reference / ours,
        "share_of_peak": share,
        "n": n,
    }


def run(repetitions=5, *, folder=None, parts=PARTS):
    """Run the benchmarks; write bench.csv and its plot to `folder` (default: figures/).

    Rows of other devices that are there already are kept, so that one file holds a laptop's and a GPU's figures.
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
            _write(folder / "bench.csv", rows, name)  # row by row: a benchmark that is stopped keeps what it has
    table = pd.read_csv(folder / "bench.csv")
    _plot_ratios(folder / "bench.png", table[(table["device"] == name) & table["ratio"].notna()], name)
    return rows


def _write(file, rows, name):
    """The rows in place of earlier ones of the same device and name, all others as they are."""
    tables = [pd.DataFrame(rows, columns=COLUMNS)]
    if file.exists():
        old = pd.read_csv(file)
        again = (old["device"] == name) & old["what"].isin([row["what"] for row in rows])
        tables.append(old[~again & ~old["device"].str.startswith(NOT_YET)])
    if not any(table["device"].str.contains("NVIDIA").any() for table in tables):
        tables.append(pd.DataFrame({"what": list(PARTS), "device": f"{NOT_YET} with CUDA"}))
    write_atomically(file, pd.concat(tables).to_csv(index=False, float_format="%.4g"))


def _plot_ratios(file, rows, name):
    fig, ax = plots.figure(width=8, height=0.5 * len(rows) + 1.2)
    ax.barh(rows["what"], rows["ratio"], color=plots.COLOURS[0])
    ax.axvline(1, color="0.4", ls="--", lw=1)
    ax.invert_yaxis()
    ax.set(xlabel="times as fast as the straightforward route (dashed: equal)", title=name)
    plots.save(fig, file)


BENCHES = {"train": bench_training, "sample": bench_sampling, "score": bench_scoring, "pipeline": bench_pipeline}
