"""Rounds: which weights a lineage stands for, a training that goes on where the last one ended, the best of n draws."""

import numpy as np
import pytest
import torch
from peft import LoraModel, PeftModel

from mipo_nb import models, prompts, training
from mipo_nb.base.errors import UserError
from mipo_nb.lab.steps import fingerprint
from mipo_nb.studies import rounds

NAME = "embedded:smollm2-135m"
HOW = {"dtype": "float32"}
NUMBERS = {"learning_rate": 1e-3, "beta": 0.1, "epochs": 1, "batch_size": 3, "max_length": 256, "rank": 4, **HOW}


def adapter(folder, content):
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(content)
    return folder


def test_a_continued_lineage_has_one_adapter_and_a_merged_one_all(tmp_path):
    first, second = adapter(tmp_path / "a", b"1"), adapter(tmp_path / "b", b"2")
    assert rounds.Lineage("m").then(first).then(second).adapters == (second,)
    assert rounds.Lineage("m", merged=True).then(first).then(second).adapters == (first, second)


def test_a_lineage_is_known_by_its_weights(tmp_path):
    plain, merged = rounds.Lineage("m"), rounds.Lineage("m", merged=True)
    first, second = adapter(tmp_path / "a", b"1"), adapter(tmp_path / "b", b"2")
    moved = adapter(tmp_path / "moved", b"1")
    assert fingerprint(plain) == fingerprint(merged) != fingerprint(rounds.Lineage("other"))
    assert fingerprint(plain.then(first)) == fingerprint(plain.then(moved)) != fingerprint(plain.then(second))
    assert fingerprint(merged.then(first).then(second)) != fingerprint(plain.then(second))


def test_an_adapter_that_is_gone_is_told_before_anything_is_loaded(tmp_path):
    lineage = rounds.Lineage("m").then(tmp_path / "step" / "adapter")
    for use in (lineage.fingerprint, lineage.load):
        with pytest.raises(UserError, match="remove that step's folder"):
            use()


def test_fewer_pairs_than_a_batch_are_refused(some_pairs, tmp_path):
    with pytest.raises(UserError, match="fewer than one batch"):
        rounds.train(rounds.Lineage(NAME), some_pairs.select([0]), np.zeros((1, 2)), folder=tmp_path, **NUMBERS)


@pytest.fixture(scope="module")
def first_round(model_and_tokenizer, some_pairs, tmp_path_factory):
    reference = training.reference_log_probabilities(*model_and_tokenizer, some_pairs)
    result = rounds.train(rounds.Lineage(NAME), some_pairs, reference, folder=tmp_path_factory.mktemp("one"), **NUMBERS)
    return reference, result


@pytest.mark.model
def test_the_first_round_is_an_ordinary_training(some_pairs, first_round, tmp_path):
    reference, result = first_round
    plain = training.train(NAME, some_pairs, reference, folder=tmp_path, **NUMBERS)
    assert [e["loss"] for e in result["log"]] == pytest.approx([e["loss"] for e in plain["log"]], rel=1e-5)


@pytest.mark.model
@pytest.mark.parametrize("merged", [False, True], ids=["continued", "merged"])
def test_the_next_round_starts_where_the_last_one_ended(some_pairs, first_round, tmp_path, merged):
    """With a renewed reference the first loss is ln 2 again; with the old one it is lower, for something was learned."""
    old, result = first_round
    lineage = rounds.Lineage(NAME, merged=merged).then(result["adapter"])
    renewed = training.reference_log_probabilities(*lineage.load(**HOW), some_pairs)
    assert np.abs(renewed - old).max() > 0.5
    call = {**NUMBERS, "batch_size": 6}  # one step on all pairs
    first = {
        name: rounds.train(lineage, some_pairs, reference, folder=tmp_path / name, **call)["log"][0]["loss"]
        for name, reference in {"renewed": renewed, "kept": old}.items()
    }
    assert first["renewed"] == pytest.approx(np.log(2), abs=1e-3)
    assert first["kept"] < np.log(2) - 0.01


@pytest.mark.model
def test_merged_adapters_add_up(first_round, tokenizer):
    """Merging an adapter and attaching it are the same model; merging it twice is not."""
    folder = first_round[1]["adapter"]
    ids = torch.tensor([prompts.prompt_ids(tokenizer, prompts.messages("What now?"))])
    with torch.inference_mode():
        attached, added, twice, base = (
            model(ids).logits[0, -1]
            for model in (
                rounds.Lineage(NAME).then(folder).load(**HOW)[0],
                rounds.Lineage(NAME, merged=True).then(folder).start(**HOW)[0],
                rounds.Lineage(NAME, merged=True).then(folder).then(folder).load(**HOW)[0],
                models.load(NAME, **HOW)[0],
            )
        )
    torch.testing.assert_close(added, attached, rtol=1e-3, atol=1e-3)
    assert (twice - attached).abs().max() > 10 * (added - attached).abs().max()
    assert (attached - base).abs().max() > 10 * (added - attached).abs().max()


@pytest.mark.model
def test_a_merged_model_is_all_adapters_added_and_a_round_adds_one(first_round, monkeypatch):
    """Whatever was held from before, and though what was handed out has been changed since."""
    folder, merges = first_round[1]["adapter"], []
    add = LoraModel.merge_and_unload
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self: merges.append(1) or add(self))
    lineage = rounds.Lineage(NAME, merged=True)
    models._merged.cache_clear()
    for _ in range(3):
        lineage = lineage.then(folder)
        for made, _ in (lineage.load(**HOW), lineage.start(**HOW)):
            next(made.parameters()).data.zero_()
    assert len(merges) == 3
    added, (model, _) = lineage.start(**HOW)[0].state_dict(), models.load(NAME, **HOW)
    for _ in range(3):
        model = add(PeftModel.from_pretrained(model, folder).base_model)
    assert all(torch.equal(weight, added[name]) for name, weight in model.state_dict().items())
