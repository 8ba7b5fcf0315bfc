"""Calls that a cluster can share: an adapter's folder in, a measurement out, and the same as on a loaded model."""

import pytest

from mipo_nb import generation, models, pairs, scoring
from mipo_nb.lab import names, runs
from mipo_nb.paper import personal, trainings

HOW = {"untrained": "untrained", "start": "name"}


def told(policy, text, *, folder=None):
    return policy, text, folder


def plain(policy, text):
    return policy, text


def test_the_policy_is_the_untrained_model_or_it_with_the_adapter(monkeypatch):
    monkeypatch.setattr(models, "with_adapter", lambda *given: given)
    assert trainings.measured(plain, adapter=None, text="a", **HOW) == ("untrained", "a")
    assert trainings.measured(plain, adapter="at", text="a", **HOW) == (("untrained", "at", "name"), "a")


def test_a_steps_folder_goes_on_to_a_function_that_takes_one(tmp_path):
    run = runs.start("01_test", "smoke", output_dir=tmp_path)
    grid = [{"function": function, "text": text} for function in (told, plain) for text in "ab"]
    found = run.map("measured", trainings.measured, grid, adapter=None, **HOW)
    assert [one[:2] for one in found] == [["untrained", "a"], ["untrained", "b"]] * 2
    places = [one[2] for one in found[:2]]
    assert len(set(places)) == 2 and all(tmp_path in place.parents for place in places)


@pytest.fixture(scope="module")
def trained(model_and_tokenizer, tmp_path_factory):
    numbers = {
        "n_pairs": 4,
        "lora_rank": 2,
        "negative": "missing_context",
        "epochs": 1,
        "batch_size": 2,
        "accumulate": 1,
    }
    run = runs.start("30_reproduce_personalization", "smoke", output_dir=tmp_path_factory.mktemp("runs"), **numbers)
    how = {"model": model_and_tokenizer[0], "tokenizer": model_and_tokenizer[1], "s": run.settings, "step": run.step}
    return run, run.map("one training", trainings.trained, [{"seed": 3}], **how)[0]


@pytest.mark.model
def test_a_training_is_mipo_on_the_runs_data(trained):
    run, result = trained
    assert result["counts"]["rows"] == 4 and len(result["log"]) == 2
    assert (result["adapter"] / "adapter_config.json").exists()


@pytest.mark.model
def test_a_measurement_is_what_the_loaded_model_gives(trained, model_and_tokenizer):
    run, result = trained
    model, tokenizer = model_and_tokenizer
    rows = personal.personal_prompts("own", "test", n=2)
    put, texts = pairs.positive_conversations(rows), ["Make soup.", "Go out."]
    call = {
        "function": scoring.log_probabilities,
        "untrained": model,
        "start": run.settings.model,
        "tokenizer": tokenizer,
    }
    call |= {"conversations": put, "responses": texts, "adapter": result["adapter"]}
    [found] = run.map("measured", trainings.measured, [call])
    policy = models.with_adapter(model, result["adapter"], run.settings.model)
    assert found.tolist() == pytest.approx(scoring.log_probabilities(policy, tokenizer, put, texts).tolist(), abs=1e-4)


@pytest.mark.model
def test_a_measurement_travels_with_its_adapter(trained, model_and_tokenizer):
    pytest.importorskip("ray")
    run, result = trained
    model, tokenizer = model_and_tokenizer
    call = {"function": generation.sample, "untrained": model, "start": run.settings.model, "tokenizer": tokenizer}
    _, named = names.pack({"function": trainings.measured, "arguments": {**call, "adapter": result["adapter"]}})
    assert str(result["adapter"]) in [file.path for file in names.files_among(named)]
