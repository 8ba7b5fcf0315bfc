"""Scores and answers beside a public reference: EleutherAI's lm-evaluation-harness on the same items and weights.

Needs the extra `harness` and a folder with the data sets; elsewhere these tests are skipped.
"""

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mipo_nb import models
from mipo_nb.verifiable import answers, grading, problems

DATA = Path(os.environ.get("MIPO_NB_DATA") or Path(os.environ.get("MIPO_NB_SHARED", "no folder")) / "data")
N = int(os.environ.get("MIPO_NB_HARNESS_ITEMS", 40))  # all of ARC-Easy are 2,376

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(not DATA.is_dir(), reason="MIPO_NB_DATA names no folder with the data sets"),
]


@pytest.fixture(scope="module")
def harness():
    return pytest.importorskip("lm_eval", reason="needs the extra 'harness': pip install -e '.[harness]'")


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
def test_arc_by_cloze_picks_what_the_harness_picks(harness, model_and_tokenizer, tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("MIPO_NB_DATA", str(DATA))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    lines = (DATA / "ai2_arc/ARC-Easy/test.jsonl").read_text(encoding="utf-8").splitlines()[:N]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    task = {
        "task": "arc_easy_here",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    model, tokenizer = model_and_tokenizer
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")  # what the harness would run
    try:
        theirs = harness.simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8), tasks=[task], log_samples=True, bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
        )["samples"]["arc_easy_here"]  # fmt: skip
    finally:
        model.set_attn_implementation(before)
    theirs = sorted(theirs, key=lambda sample: sample["doc_id"])
    rows = [problems._read("arc_easy", json.loads(line)) for line in lines]
    ours = grading.option_scores(model, tokenizer, rows, "plain")
    same, apart = [], []
    for scores, sample in zip(ours, theirs, strict=True):
        reference = np.array([float(response[0]) for response in sample["filtered_resps"]])
        same.append(scores.argmax() == reference.argmax())
        apart.append(np.abs(scores - reference).max())
    print(f"{np.mean(same):.2%} of {len(same)} picks are the same, scores at most {max(apart):.1e} nats apart")
    assert np.mean(same) >= 0.99 and np.median(apart) < 0.01
    for rule, metric in (("likelihood", "acc"), ("per character", "acc_norm")):
        found = grading.picked(rows, ours, rule)
        assert np.mean(np.round(found) == [sample[metric] for sample in theirs]) >= 0.99


def test_numbers_are_read_as_the_harness_reads_them(harness, monkeypatch):
    """Its two filters on GSM8K's solutions: the strict one after ####, and the last number of the text.

    The strict one agrees always. The flexible one takes the last number also where the text has called another one the
    answer before ("the answer as a percentage: 32 water type"), which ours prefers.
    """
    from lm_eval.filters.extraction import RegexFilter

    monkeypatch.setenv("MIPO_NB_DATA", str(DATA))
    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    rows = problems._rows("gsm8k", "test")
    marked = [row["answer"] for row in rows]
    bare = [row["answer"].replace("####", "That makes") for row in rows]
    for texts, theirs, least in ((marked, strict, 1), (bare, flexible, 0.99)):
        found = [
            value.replace(",", "").replace("$", "").rstrip(".") for [value] in theirs.apply([[t] for t in texts], rows)
        ]
        same = [answers.read_number(text).value == Fraction(value) for text, value in zip(texts, found, strict=True)]
        print(f"{np.mean(same):.2%} of {len(same)} numbers are the same")
        assert np.mean(same) >= least


def test_the_models_of_both_are_the_same_weights(model_and_tokenizer):
    """Or the comparison would say nothing: the embedded model's folder is one that the harness could load by itself."""
    path, revision = models.resolve("embedded:smollm2-135m")
    assert (Path(path) / "model.safetensors").exists() and revision is None
    assert (
        model_and_tokenizer[0].config.vocab_size == json.loads((Path(path) / "config.json").read_text())["vocab_size"]
    )
