"""One and the same tokens: those that were sampled are those that are scored and trained on, whatever the chat template, and
an end that was not written is not trained. Tiny random models, whose tokens are bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_templates import KINDS

from mipo_nb import generation, models, pairs, prompts, scoring, training
from mipo_nb.command import random_models
from mipo_nb.engine import decoding, plain_decoding, routes
from mipo_nb.studies import contrastive, distillation
from mipo_nb.verifiable import grpo, rewards

SHAPE = {**random_models.SHAPES["tiny"], "vocab_size": 259, "num_hidden_layers": 2}
ENDS = {"one": 2, "several": [2, 0], "none": None}
ROWS = [{"prompt": p, "context": c, "user_id": c[:3]} for p in ("What now?", "Where?") for c in ("Ana sails.", "Ben reads.")] * 3  # fmt: skip
NUMBERS = {"learning_rate": 1e-3, "batch_size": 4, "rank": 2, "dtype": "float32", "device": "cpu", "seed": 1, "max_length": None}  # fmt: skip
SAMPLING = generation.Sampling(1.0, 1.0, 0, max_new_tokens=60, at_limit="whole")


def written(folder, template=None, ends="one", padding=True, end=True):
    """The folder of a tiny model: its chat `template`, the end tokens of its generation (a name of ENDS), and whether its
    tokenizer names a padding and an end token."""
    folder = Path(random_models.write(folder, SHAPE))
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    for name, gone in (("pad_token", not padding), ("eos_token", not end)):
        file = folder / "tokenizer_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, name: None if gone else config[name]}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS[ends]}))
    config = json.loads((folder / "config.json").read_text())
    numbers = {"eos_token_id": ENDS[ends], "pad_token_id": config["pad_token_id"] if padding else None}
    (folder / "config.json").write_text(json.dumps({**config, **numbers}))
    return str(folder)


def made(folder):
    """(model, tokenizer, pairs, the responses that were drawn for them)"""
    model, tokenizer = models.load(folder, dtype="float32")
    asked = pairs.positive_conversations(ROWS), pairs.negative_conversations(ROWS, "missing_context")
    sides = [generation.sample(model, tokenizer, put, SAMPLING, seed=k) for k, put in enumerate(asked)]
    data, counts = pairs.build(ROWS, *map(list, sides), tokenizer, negative="missing_context", max_length=None)
    assert counts["pairs"] == len(ROWS)
    return model, tokenizer, data, sides


def own_score(model, start, end):
    """Log-prob of tokens after others, in nats, by the model's own forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1].log_softmax(-1)
    return logits.gather(-1, torch.tensor(end)[:, None]).sum().item()


@pytest.fixture
def caught(monkeypatch, tmp_path):
    """The trainers that trainings make, which do not run."""
    trainers, made = [], {"adapter": str(tmp_path)}
    monkeypatch.setattr(training, "carry_through", lambda trainer, folder: trainers.append(trainer) or made)
    return trainers


def real(tokens, masks):
    """Rows of token ids without what is masked."""
    rows = zip(tokens.tolist(), masks.tolist(), strict=True)
    return [[token for token, kept in zip(*row, strict=True) if kept] for row in rows]


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_sampled_scored_and_trained_tokens_are_the_same(kind, tmp_path, caught):
    folder = written(tmp_path / "tiny", KINDS.get(kind))
    model, tokenizer, data, sides = made(folder)
    finished = [done for side in sides for done in side["finished"]]
    assert any(finished) and not all(finished)
    starts = [prompts.prompt_ids(tokenizer, conversation) for conversation in data["prompt"]]
    reference = training.reference_log_probabilities(model, tokenizer, data)
    for column, (name, side) in enumerate(zip(pairs.SIDES, sides, strict=True)):
        assert data[f"{name}_ids"] == side["tokens"]
        by_hand = [own_score(model, start, ids) for start, ids in zip(starts, side["tokens"], strict=True)]
        scored = scoring.log_probabilities(model, tokenizer, list(data["prompt"]), list(side["tokens"]))
        assert scored == pytest.approx(by_hand, abs=1e-3) == reference[:, column]
        for ids, done in zip(data[f"{name}_ids"], side["finished"], strict=True):
            assert ids.count(2) == done == (ids[-1] == 2)  # the end, where it was drawn, and no template's own
    for route in training.ROUTES:
        training.train(
            folder, data, reference, route=route, folder=tmp_path / route, **{**NUMBERS, "batch_size": len(data)}
        )
        batch = next(iter(caught[-1].get_train_dataloader()))
        learned, whole = (real(batch["input_ids"], batch[mask]) for mask in ("completion_mask", "attention_mask"))
        ids = [y for name in pairs.SIDES for y in data[f"{name}_ids"]]
        assert sorted(learned) == sorted(ids)
        assert sorted(whole) == sorted(start + y for start, y in zip(starts * 2, ids, strict=True))


@pytest.fixture
def seen(monkeypatch):
    """[(what was drawn, a batch that is learned from)] of each training that samples, instead of its steps."""
    found, own = [], decoding.decode

    def look(trainer, folder):
        drawn = []
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "decode", lambda *call: drawn.extend(some := own(*call)) or some)
            trainer.model.train()
            found.append((drawn, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))))
        return {}

    monkeypatch.setattr(training, "carry_through", look)
    monkeypatch.setitem(rewards.REWARDS, "short", lambda responses: [-float(len(t)) for t in responses.texts])
    return found


def trainings_that_sample(folder, output):
    """GRPO and self-distillation on two prompts; returns these."""
    from datasets import Dataset

    asked = pairs.positive_conversations(ROWS[:2])
    problem = {"question": "2 + 2?", "answer": "4", "letters": [], "options": [], "solution": "", "checker": "number"}
    numbers = {name: value for name, value in NUMBERS.items() if name != "max_length"}
    how = {"reward": "short", "steps": 1, "group": 2, "max_new_tokens": 60, "folder": output / "grpo"}
    grpo.train(folder, [problem] * 2, asked, **how, **numbers)
    told = Dataset.from_list([{"prompt": c, "context": r["context"]} for c, r in zip(asked, ROWS, strict=False)])
    distillation.train(folder, told, max_new_tokens=60, folder=output / "told", **{**numbers, "batch_size": 2})
    return asked


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_trainers_that_sample_learn_from_what_they_drew(kind, tmp_path, seen):
    folder = written(tmp_path / "tiny", KINDS.get(kind), ends="several")
    asked, tokenizer = trainings_that_sample(folder, tmp_path), models.load_tokenizer(folder)
    for (drawn, batch), size in zip(seen, (4, 2), strict=True):
        learned = real(batch["completion_ids"], batch["completion_mask"])
        assert len(drawn) == size and sorted(learned) == sorted(tokens for tokens, _ in drawn)
        read = {tuple(row) for row in real(batch["prompt_ids"], batch["prompt_mask"])}
        assert read == {tuple(prompts.prompt_ids(tokenizer, conversation)) for conversation in asked}


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_games_are_played_with_the_tokens_that_were_sampled(kind, tmp_path, caught):
    """So that a policy which learned nothing is as far from its reference as it should be: not at all."""
    folder = written(tmp_path / "tiny", KINDS.get(kind))
    model, tokenizer, data, _ = made(folder)
    reference = training.reference_log_probabilities(model, tokenizer, data)
    contrastive.train(folder, data, reference, objective="mio", folder=tmp_path, **NUMBERS)
    trainer = caught[-1]
    for rows in trainer.get_train_dataloader():
        scores, *_ = contrastive.game_scores(trainer.model, tokenizer, contrastive.own_conversation(rows["rows"]))
        stored = np.array([row["reference"] for row in rows["rows"]])
        assert scores[:, 0].detach().numpy() == pytest.approx(stored, abs=1e-3)


ENDINGS = {
    "several ends": {"ends": "several"},
    "no padding token": {"padding": False},
    "no end token": {"ends": "none", "end": False},
    "an end that only the tokenizer names": {"ends": "none"},
}


@pytest.mark.parametrize("what", ENDINGS)
def test_models_with_several_ends_without_one_or_without_padding_are_sampled_and_scored(what, tmp_path):
    model, tokenizer, data, sides = made(written(tmp_path / "tiny", **ENDINGS[what]))
    ends = {"several ends": {0, 2}, "no end token": set()}.get(what, {2})
    assert decoding.ends_of(model, tokenizer) == ends and tokenizer.pad_token_id in (0, 2)
    conversations = pairs.positive_conversations(ROWS)
    ids = [prompts.prompt_ids(tokenizer, conversation) for conversation in conversations]
    greedy = generation.Sampling(temperature=0, max_new_tokens=60)
    with torch.inference_mode():
        assert decoding.decode(model, ids, greedy, ends) == plain_decoding.generate(model, ids, greedy, ends)
    tokens = [(y, done) for side in sides for y, done in zip(side["tokens"], side["finished"], strict=True)]
    assert {y[-1] for y, done in tokens if done} == ends  # each of them closes some response
    assert all(not ends & set(y[:-1]) and (y[-1] in ends) == done == (len(y) < 60 or done) for y, done in tokens)
    starts = [prompts.prompt_ids(tokenizer, conversation) for conversation in data["prompt"]]
    by_hand = [own_score(model, start, y) for start, y in zip(starts, data["chosen_ids"], strict=True)]
    assert training.reference_log_probabilities(model, tokenizer, data)[:, 0] == pytest.approx(by_hand, abs=1e-3)


@pytest.mark.parametrize("what", ENDINGS)
def test_models_with_several_ends_without_one_or_without_padding_are_trained(what, tmp_path, monkeypatch):
    folder = written(tmp_path / "tiny", **ENDINGS[what])
    model, tokenizer, data, _ = made(folder)
    reference = training.reference_log_probabilities(model, tokenizer, data)
    for route in training.ROUTES:
        numbers = {**NUMBERS, "batch_size": len(data)}
        log = training.train(folder, data, reference, route=route, folder=tmp_path / route, **numbers)["log"]
        assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)  # policy and reference read the same tokens
        total = log[0]["logps/chosen"], log[0]["logps/rejected"]
        assert total == pytest.approx(reference.mean(0), abs=1e-3)
    results = []
    own = training.carry_through
    monkeypatch.setattr(training, "carry_through", lambda *call: results.append(own(*call)) or results[-1])
    monkeypatch.setitem(rewards.REWARDS, "short", lambda responses: [-float(len(t)) for t in responses.texts])
    trainings_that_sample(folder, tmp_path)
    monkeypatch.setattr(routes, "packs_by_default", lambda model: False)  # TRL's own way of writing
    trainings_that_sample(folder, tmp_path / "plain")
    assert len(results) == 4
    for result in results:
        assert np.isfinite(result["log"][0]["loss"]) and result["final_adapter"] != result["initial_adapter"]
