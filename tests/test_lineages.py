"""Lineages: which weights one stands for, and a training that goes on where the last one ended."""

import numpy as np
import pytest

from mipo_nb import training
from mipo_nb.base.errors import UserError
from mipo_nb.lab.steps import fingerprint
from mipo_nb.models import Lineage

NAME = "embedded:smollm2-135m"
HOW = {"dtype": "float32"}
NUMBERS = {"learning_rate": 1e-3, "beta": 0.1, "epochs": 1, "batch_size": 3, "max_length": 256, "rank": 4, **HOW}


def adapter(folder, content):
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(content)
    return folder


def test_a_lineage_is_known_by_its_weights_and_goes_on_from_its_last_adapter(tmp_path):
    plain = Lineage("m")
    first, second = adapter(tmp_path / "a", b"1"), adapter(tmp_path / "b", b"2")
    moved = adapter(tmp_path / "moved", b"1")
    assert plain.then(first).then(second) == plain.then(second)
    assert fingerprint(plain) != fingerprint(Lineage("other"))
    assert fingerprint(plain.then(first)) == fingerprint(plain.then(moved)) != fingerprint(plain.then(second))
    assert fingerprint(plain.then(first)) != fingerprint(plain)


def test_an_adapter_that_is_gone_is_told_before_anything_is_loaded(tmp_path):
    lineage = Lineage("m").then(tmp_path / "step" / "adapter")
    for use in (lineage.fingerprint, lineage.load):
        with pytest.raises(UserError, match="remove that step's folder"):
            use()


def test_fewer_pairs_than_a_batch_are_refused(some_pairs, tmp_path):
    with pytest.raises(UserError, match="fewer than one batch"):
        training.train(Lineage(NAME), some_pairs.select([0]), np.zeros((1, 2)), folder=tmp_path, **NUMBERS)


@pytest.fixture(scope="module")
def first_round(model_and_tokenizer, some_pairs, tmp_path_factory):
    reference = training.reference_log_probabilities(*model_and_tokenizer, some_pairs)
    result = training.train(Lineage(NAME), some_pairs, reference, folder=tmp_path_factory.mktemp("one"), **NUMBERS)
    return reference, result


@pytest.mark.model
@pytest.mark.whole
def test_the_first_round_is_an_ordinary_training(some_pairs, first_round, tmp_path):
    reference, result = first_round
    plain = training.train(NAME, some_pairs, reference, folder=tmp_path, **NUMBERS)
    assert [e["loss"] for e in result["log"]] == pytest.approx([e["loss"] for e in plain["log"]], rel=1e-5)


@pytest.mark.model
@pytest.mark.whole
def test_the_next_round_starts_where_the_last_one_ended(some_pairs, first_round, tmp_path):
    """With a renewed reference the first loss is ln 2 again; with the old one it is lower, for something was learned."""
    old, result = first_round
    lineage = Lineage(NAME).then(result["adapter"])
    renewed = training.reference_log_probabilities(*lineage.load(**HOW), some_pairs)
    assert np.abs(renewed - old).max() > 0.5
    call = {**NUMBERS, "batch_size": 6}  # one step on all pairs
    first = {
        name: training.train(lineage, some_pairs, reference, folder=tmp_path / name, **call)["log"][0]["loss"]
        for name, reference in {"renewed": renewed, "kept": old}.items()
    }
    assert first["renewed"] == pytest.approx(np.log(2), abs=1e-3)
    assert first["kept"] < np.log(2) - 0.01
