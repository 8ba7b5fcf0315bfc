"""Weights that learn are float32 when the first step begins, in every trainer, whatever the others are held in."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from mipo_nb import models, pairs, training
from mipo_nb.command import random_models
from mipo_nb.engine import callbacks
from mipo_nb.studies import contrastive, distillation
from mipo_nb.verifiable import grpo

SHAPE = {**random_models.SHAPES["tiny"], "vocab_size": 259, "num_hidden_layers": 2}
ROWS = [{"prompt": p, "context": "Ana sails.", "user_id": "ana"} for p in ("What now?", "Where?", "Why?", "When?")]
NUMBERS = {"learning_rate": 1e-4, "batch_size": 4, "rank": 2, "device": "cpu", "seed": 1}
OBJECTIVES = ("mio", "sft_plain", "info_nce_in_batch")
KINDS = ("shared_prefix", "trl", "all weights", "grpo", "self-distillation", *OBJECTIVES)
CASES = [(kind, False) for kind in KINDS] + [(kind, True) for kind in KINDS if kind != "all weights"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_models.write(tmp_path_factory.mktemp("models") / "tiny", SHAPE)


@pytest.fixture(scope="module")
def data(folder):
    sides = ["Rest.", "Sail.", "Row.", "Go."], ["No.", "Yes.", "So.", "Do."]
    return pairs.build(ROWS, *sides, models.load_tokenizer(folder), negative="missing_context", max_length=None)[0]


class Begun(Exception):
    """Where a training is stopped: not every processor multiplies in the type that is asked for."""


def begin(kind, folder, data, output, **numbers):
    """Carry a training through up to its first step."""
    reference, numbers = np.zeros((len(data), 2)), {**NUMBERS, **numbers}
    if kind in training.ROUTES:
        training.train(folder, data, reference, route=kind, folder=output, **numbers)
    elif kind == "all weights":
        training.train(folder, data, None, folder=output, **{**numbers, "rank": 0})
    elif kind == "grpo":
        asked = pairs.positive_conversations(ROWS)
        how = {"reward": "verifiable", "steps": 1, "group": 2, "max_new_tokens": 4}
        grpo.train(folder, ROWS, asked, folder=output, **how, **numbers)
    elif kind == "self-distillation":
        told = data.select_columns(["prompt"]).add_column("context", [row["context"] for row in ROWS])
        distillation.train(folder, told, max_new_tokens=4, folder=output, **numbers)
    else:
        contrastive.train(folder, data, reference, objective=kind, folder=output, **numbers)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("kind", "four_bit"), CASES, ids=lambda value: {True: "4 bits", False: "16 bits"}.get(value))
def test_what_learns_is_float32_and_what_does_not_is_as_it_was_asked_for(
    kind, dtype, four_bit, folder, data, tmp_path, monkeypatch
):
    found = []

    class Noting(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            found.append({learns: {p.dtype for p in model.parameters() if p.requires_grad == learns} for learns in (True, False)})  # fmt: skip
            raise Begun

    monkeypatch.setattr(callbacks, "reporting", Noting)
    with pytest.raises(Begun):
        begin(kind, folder, data, tmp_path, dtype=dtype, four_bit=four_bit)
    [types] = found
    assert types[True] == {torch.float32}
    asked = set() if kind == "all weights" else {getattr(torch, dtype), *([torch.uint8] if four_bit else [])}
    assert types[False] == asked
