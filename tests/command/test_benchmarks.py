"""The benchmarks' own arithmetic, and one of them run small; times are never tested."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mipo_nb import generation, prompts, scoring, sources, training
from mipo_nb.base.errors import UserError
from mipo_nb.command import benchmarks, cli, plain_route

pytestmark = pytest.mark.model


def test_routes_run_in_turn_after_one_call_each_to_warm_up():
    calls = []
    found = benchmarks.in_turn([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b"] * 4 and len(found) == 2


def test_work_is_two_operations_per_weight_and_token(model_and_tokenizer):
    model, _ = model_and_tokenizer
    head = model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in model.parameters()) - head
    assert plain_route.operations(model, 10, 0) == pytest.approx(20 * layers, rel=1e-3)  # but for the norms
    assert plain_route.operations(model, 0, 5, backward=True) == 20 * head


def test_pairs_have_the_lengths_asked_for(tokenizer):
    rows = training.tokenize(plain_route.some_pairs(tokenizer, 4), tokenizer)
    for tokens, wanted in zip(zip(*rows, strict=True), (84, 68, 76), strict=True):
        assert all(abs(len(t) - wanted) <= 6 for t in tokens), [len(t) for t in tokens]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own call of a renamed function
def test_both_training_steps_compute_the_loss(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    rows = plain_route.some_pairs(tokenizer, 2, prompt=56, chosen=12, rejected=10)
    # TRL computes the reference, which an untrained policy equals; ours is timed with stored references of zero.
    changes = {"precompute_ref_log_probs": False, "gradient_checkpointing": True}
    assert plain_route.training_step("trl", rows, "float32", "cpu", **changes)() == pytest.approx(math.log(2), rel=1e-4)
    chosen, rejected = training.reference_log_probabilities(model, tokenizer, rows).T
    expected = np.logaddexp(0, -0.1 * (chosen - rejected)).mean()
    assert plain_route.training_step("ours", rows, "float32", "cpu")() == pytest.approx(expected, rel=1e-4)


def test_independent_passes_give_the_scores(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    asked = [prompts.messages("Name a bird.", text) for text in plain_route.texts(tokenizer, [20, 30])]
    ids = [(prompts.prompt_ids(tokenizer, c), prompts.completion_ids(tokenizer, c, "A heron.")) for c in asked]
    found = scoring.log_probabilities(model, tokenizer, asked, ["A heron."] * 2)
    assert plain_route.one_by_one(model, ids) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("route", ["ours", "trl"])
def test_the_pipeline_ends_in_a_measured_adapter(route, monkeypatch):
    monkeypatch.setattr(generation, "Sampling", partial(generation.Sampling, max_new_tokens=40))
    assert math.isfinite(plain_route.pipeline(route, sources.personal_prompts("train", n=4, seed=0), "float32", "cpu"))


def test_an_unknown_benchmark_is_refused():
    done = CliRunner().invoke(cli.app, ["bench", "sampel"])
    assert isinstance(done.exception, UserError) and "sample" in str(done.exception)


def test_a_benchmark_writes_its_table_and_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(benchmarks.BENCHES, "score", partial(benchmarks.bench_scoring, k=2))
    elsewhere = {"what": "train", "ours": 9.0, "device": "NVIDIA of another day, bfloat16"}
    pd.DataFrame([elsewhere], columns=benchmarks.COLUMNS).to_csv(tmp_path / "bench.csv", index=False)
    benchmarks.run(1, folder=tmp_path, parts=("score",))
    table = pd.read_csv(tmp_path / "bench.csv")
    assert tuple(table.columns) == benchmarks.COLUMNS
    assert {elsewhere["device"]} < set(table["device"]) and not table["device"].str.startswith("not measured").any()
    scored = table[table["what"].str.startswith("score")]
    assert len(scored) == 3 and (scored["ratio"] > 0).all() and scored["share_of_peak"].between(0, 1.5).all()
    (tmp_path / "bench.csv").unlink()
    benchmarks.run(1, folder=tmp_path, parts=("score",))
    table = pd.read_csv(tmp_path / "bench.csv")
    assert table["device"].str.startswith("not measured yet").sum() == len(benchmarks.PARTS)
