"""Self-distillation: what the teacher reads, the loss by hand, and that the student comes nearer to it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mipo_nb import models, pairs, prompts, sources
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models
from mipo_nb.engine import decoding, self_distillation
from mipo_nb.lab import settings
from mipo_nb.studies import arms, distillation

NAME = "embedded:smollm2-135m"
NUMBERS = {"rank": 4, "seed": 1, "dtype": "float32", "batch_size": 2, "learning_rate": 1e-3}


def test_the_teacher_reads_the_context_behind_the_question_too():
    conversation = prompts.messages("What now, {you}?", "Ana keeps {bees}.")
    twice = distillation.told_twice(conversation, "Ana keeps {bees}.")
    assert twice[:-1] == conversation[:-1] and conversation[-1]["content"] == "What now, {you}?"
    assert twice[-1]["content"] == "What now, {you}?\n\nAbout the user who asks: Ana keeps {bees}."
    trainer = SimpleNamespace(args=SimpleNamespace(teacher_prompt_template=distillation.TEMPLATE))
    builder = self_distillation.SDFTTrainer.__init__.__globals__["DemonstrationTeacherContextBuilder"](trainer)
    assert builder._compose_teacher_prompt(conversation, "Ana keeps {bees}.") == twice


def rows():
    from datasets import Dataset

    contexts = ["Ana keeps bees. She wants answers in Spanish.", "Ben drives a bus. He wants a numbered list."]
    asked = ["What now?", "Name a gift."]
    table = zip(asked, contexts, strict=True)
    return Dataset.from_list([{"prompt": prompts.messages(p, c), "context": c} for p, c in table])


ANSWERS = ["A walk by the river.", "A book."]


def fixed(monkeypatch, tokenizer):
    """Have the policy write the same answers whenever it is asked."""
    ids = {
        tuple(prompts.prompt_ids(tokenizer, row["prompt"])): prompts.completion_ids(tokenizer, row["prompt"], answer)[
            :-1
        ]
        for row, answer in zip(rows(), ANSWERS, strict=True)
    }
    written = lambda model, put, *how: [(ids[tuple(row)], True) for row in put]  # noqa: E731
    monkeypatch.setattr(decoding, "decode", written)
    return ids


def divergence(model, start, twice, end):
    """Jensen-Shannon's of student and teacher, over the student's 100 likeliest tokens, averaged over the answer."""
    with torch.inference_mode():
        student, teacher = (
            model(torch.tensor([ids + end])).logits[0, len(ids) - 1 : -1].double() for ids in (start, twice)
        )
    likely = student.topk(100).indices
    p, q = (scores.gather(-1, likely).softmax(-1) for scores in (student, teacher))
    middle = (p + q) / 2
    return ((p * (p / middle).log() + q * (q / middle).log()).sum(-1) / 2).mean().item()


@pytest.mark.model
def test_the_loss_is_that_by_hand_and_falls(model_and_tokenizer, tmp_path, monkeypatch):
    model, tokenizer = model_and_tokenizer
    ids = fixed(monkeypatch, tokenizer)
    by_hand = [
        divergence(
            model,
            list(start),
            prompts.prompt_ids(tokenizer, distillation.told_twice(row["prompt"], row["context"])),
            end,
        )
        for row, (start, end) in zip(rows(), ids.items(), strict=True)
    ]
    found = distillation.train(NAME, rows(), max_new_tokens=12, folder=tmp_path, epochs=6, **NUMBERS)
    losses = [entry["loss"] for entry in found["log"]]
    assert losses[0] == pytest.approx(np.mean(by_hand), rel=1e-3) and losses[0] > 1e-3
    assert len(losses) == 6 and losses[-1] < 0.8 * losses[0]
    assert found["log"][0]["learning_rate"] == pytest.approx(1e-3)  # no step is lost to a warm-up


@pytest.mark.model
def test_a_policy_writes_answers_of_its_own(tmp_path):
    found = distillation.train(NAME, rows(), max_new_tokens=5, folder=tmp_path, epochs=1, **NUMBERS)
    assert 1 <= found["log"][0]["completions/mean_length"] <= 5
    assert models.load(NAME, adapter=found["adapter"])[0].peft_config


@pytest.mark.model
def test_an_arm_that_is_told_twice_trains_nothing(model_and_tokenizer):
    s = settings.resolve("smoke", "20_contrastive_baselines", max_new_tokens=8)
    few = sources.personal_prompts("dev", n=2)
    arm = arms.Arm("random_context", 0.0, pairs=0, method="told_twice")
    function, *put = distillation.asked(arm, *model_and_tokenizer, few, s)
    assert [c[0] for c in put[2]] == [c[0] for c in pairs.positive_conversations(few)]
    assert all(row["context"] in c[-1]["content"] for row, c in zip(few, put[2], strict=True))
    assert len(function(*put, seed=1)["text"]) == 2


def test_too_few_rows_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match="fewer than one batch of 4"):
        distillation.train(
            "embedded:nothing", rows(), max_new_tokens=4, folder=tmp_path, **{**NUMBERS, "batch_size": 4}
        )
    assert not list(tmp_path.iterdir())


def test_nothing_is_learned_from_an_answer_that_thinks_aloud(tmp_path, monkeypatch, capsys):
    model = random_models.write(tmp_path / "tiny", "tiny")
    tokenizer, found = models.load_tokenizer(model), {}
    for kind, said in {"a": "<think>aaaa", "b": "<think>bbbb", "spoken": "I say: bbbb"}.items():
        ids = [tokenizer(text)["input_ids"] for text in ("A walk.", said)]
        monkeypatch.setattr(decoding, "decode", lambda *call, ids=ids: [(tokens, False) for tokens in ids])
        call = {"max_new_tokens": 12, "folder": tmp_path / kind, "device": "cpu", **NUMBERS}
        found[kind] = distillation.train(model, rows(), **call)
    adapters = {kind: result["final_adapter"] for kind, result in found.items()}
    assert adapters["a"] == adapters["b"] != adapters["spoken"] and adapters["a"] != found["a"]["initial_adapter"]
    assert [result["thinking"] for result in found.values()] == [1, 1, 0]
    assert capsys.readouterr().out.count("think aloud, from which nothing was learned: 1.") == 2
