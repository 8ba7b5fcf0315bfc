"""The method on one page: from rows to an adapter, in a plain script and in a run; what a recipe refuses."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from transformers import TrainerCallback

from mipo_nb import generation, mipo, models, pairs, sources, training
from mipo_nb.base import hardware
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash, project_root
from mipo_nb.command import random_models
from mipo_nb.engine import checkpoints
from mipo_nb.lab import runs, settings

NAME = "embedded:smollm2-135m"
SHORT = generation.Sampling(max_new_tokens=24)
RECIPE = mipo.Recipe(learning_rate=1e-3, batch_size=2, rank=4, max_length=256, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows():
    return sources.personal_prompts("train", n=4)


@pytest.mark.model
def test_a_plain_script_as_the_readme_prints_it(tmp_path):
    readme = (project_root() / "README.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) == 3
    script += 'print(sorted(file.name for file in trained["adapter"].iterdir()), trained["log"][0]["loss"])'
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files, loss = done.stdout.strip().rsplit(" ", 1)
    assert "adapter_model.safetensors" in files and float(loss) == pytest.approx(math.log(2), abs=0.05)
    assert (tmp_path / "my_adapter" / "adapter" / "adapter_config.json").exists()


@pytest.mark.model
def test_pairs_are_what_asking_twice_by_hand_gives(model_and_tokenizer, rows):
    model, tokenizer = model_and_tokenizer
    made, counts = mipo.make_pairs(model, tokenizer, rows, "missing_context", SHORT, seed=3)
    asked = pairs.positive_conversations(rows), pairs.negative_conversations(rows, "missing_context")
    chosen, rejected = (
        generation.sample(model, tokenizer, conversations, SHORT, seed=3 + k)
        for k, conversations in enumerate(asked, 1)
    )
    by_hand, same = pairs.build(rows, chosen, rejected, tokenizer, negative="missing_context", max_length=512)
    assert (made.to_list(), counts) == (by_hand.to_list(), same) and len(made) > 0


@pytest.mark.model
@pytest.mark.parametrize("limit", ["max_length", "window"])
def test_a_row_that_leaves_no_room_is_counted_and_the_others_are_asked(model_and_tokenizer, rows, monkeypatch, limit):
    model, tokenizer = model_and_tokenizer
    several = [*list(rows)[:1], {**rows[1], "context": rows[1]["context"] + " and bees" * 120}, *list(rows)[2:]]
    options = {"max_length": 200} if limit == "max_length" else {"max_length": None}
    if limit == "window":
        monkeypatch.setattr(model.config, "max_position_embeddings", 200)
    made, counts = mipo.make_pairs(model, tokenizer, several, "missing_context", SHORT, seed=3, **options)
    assert counts["rows"] == 4 and counts["over-long"] == 1 and counts["cut"] <= 6
    assert {pair["pair_id"][-1]: pair["user_id"] for pair in made}.items() <= {
        str(i): row["user_id"] for i, row in enumerate(several) if i != 1
    }.items()
    with pytest.raises(UserError, match="3 of 4 prompts have room"):
        mipo.make_pairs(model, tokenizer, several, "missing_context", SHORT, at_least=4, **options)


@pytest.mark.model
@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (
            {"max_length": 20},
            "0 of 4 prompts have room for a response in 20 tokens, and 1 pairs are needed; raise max_len",
        ),
        ({"at_least": 8}, "4 of 4 prompts have room for a response in 512 tokens, and 8 pairs are needed; "),
    ],
)
def test_what_no_sampling_would_mend_is_refused_before_it(model_and_tokenizer, rows, sizes, told):
    with pytest.raises(UserError) as caught:
        mipo.make_pairs(*model_and_tokenizer, rows, "missing_context", SHORT, step=None, **sizes)
    assert str(caught.value).startswith(told)


@pytest.mark.model
def test_from_rows_to_an_adapter_that_prefers_what_was_asked(rows, tmp_path):
    recipe = mipo.Recipe(**{**vars(RECIPE), "epochs": 4})
    result = mipo.mipo(NAME, rows, recipe, folder=tmp_path / "new", sampling=SHORT)
    assert result["counts"]["pairs"] == len(result["pairs"]) >= 2
    assert result["log"][0]["loss"] == pytest.approx(math.log(2), rel=1e-4)
    tuned, tokenizer = models.load(NAME, dtype="float32", adapter=result["adapter"])
    after = training.reference_log_probabilities(tuned, tokenizer, result["pairs"])
    with tuned.disable_adapter():
        before = training.reference_log_probabilities(tuned, tokenizer, result["pairs"])
    margin = (after - before) @ np.array([1, -1])
    assert margin.mean() > 1  # nats, on the pairs it was trained on


@pytest.mark.model
def test_in_a_run_every_step_is_kept_and_found(rows, tmp_path):
    def trained():
        run = runs.start("01_test", "smoke", output_dir=tmp_path)
        return run, mipo.mipo(NAME, rows, RECIPE, sampling=SHORT, step=run.step)

    (first, once), (second, again) = trained(), trained()
    names = ["chosen responses", "rejected responses random_context", "reference log-probs", "training"]
    assert [step["name"] for step in first.steps] == names and not any(step["found"] for step in first.steps)
    assert all(step["found"] for step in second.steps)
    assert (once["adapter"], once["log"]) == (again["adapter"], again["log"])
    assert once["adapter"].is_relative_to(tmp_path / "smoke" / "steps")


def test_a_folder_that_has_something_in_it_is_left_alone(rows, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, None):
        with pytest.raises(UserError, match="new or empty"):
            mipo.mipo(NAME, rows, RECIPE, folder=folder)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be a finite number greater than 0, not 0.0."),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number greater than 0"),
        ({"epochs": math.inf}, "epochs must be a finite number"),
        ({"batch_size": 0}, "batch_size must be a finite number greater than 0, not 0."),
        ({"accumulate": -1}, "accumulate must be a finite number greater than 0"),
        ({"beta": -0.1}, "beta must be from 0 to inf, not -0.1."),
        ({"rank": -1}, "rank must be from 0 to inf"),
        ({"warmup": 1.5}, "warmup must be from 0 to 1, not 1.5."),
        ({"final_rate": 2}, "final_rate must be from 0 to 1"),
        ({"route": "fast"}, "Unknown route 'fast'; use one of shared_prefix, trl."),
        ({"rank": 0, "four_bit": True}, "4-bit weights cannot be trained themselves"),
    ],
)
def test_a_recipe_refuses_what_no_training_can_have(number, message):
    with pytest.raises(UserError) as caught:
        mipo.Recipe(**{"learning_rate": 1e-4, **number})
    assert message in str(caught.value)


def test_a_recipe_knows_this_machine_and_the_settings_of_a_run():
    machine = hardware.hardware()
    plain = mipo.Recipe(learning_rate=1e-4)
    assert (plain.device, plain.dtype) == (machine.device, machine.dtype)
    s = settings.resolve("laptop", "11_qlora_mipo", seed=5, device="cpu")
    recipe = mipo.Recipe.of(s, beta=0.3)
    assert (recipe.learning_rate, recipe.epochs, recipe.rank) == (s.learning_rate, s.epochs, s.lora_rank)
    assert (recipe.seed, recipe.device, recipe.dtype, recipe.beta) == (5, "cpu", s.dtype, 0.3)
    assert recipe.pairs_per_step == s.batch_size * s.accumulate
    assert mipo.Recipe(learning_rate=1e-4, rank=0, dtype="bfloat16").weights["dtype"] == "float32"


@pytest.mark.model
@pytest.mark.parametrize("target", ["q_porj", "q_proj, v_porj", "layers.99.self_attn.q_proj"])
def test_a_layer_that_the_model_has_not_is_refused_before_anything_is_sampled(target, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "sample", None)
    told = "no layer '[^']+' to put an adapter on; (did you mean '[qv]_proj'|known: .*q_proj.*)"
    with pytest.raises(UserError, match=told):
        mipo.mipo(NAME, rows, mipo.Recipe(**{**vars(RECIPE), "lora_target": target}), folder=tmp_path / "new")
    with pytest.raises(UserError, match=told):
        mipo.Recipe.of(settings.resolve("smoke", "train", lora_target=target))


@pytest.mark.model
@pytest.mark.parametrize("target", ["all-linear", "q_proj, v_proj", "layers.0.self_attn.q_proj"])
def test_a_layer_that_the_model_has_is_taken(target):
    assert mipo.Recipe.of(settings.resolve("smoke", "train", lora_target=target)).lora_target == target


@pytest.mark.model
def test_an_adapter_on_the_head_is_refused_before_anything_is_sampled():
    with pytest.raises(UserError, match="'lm_head' is the head, .* put adapters on other layers"):
        mipo.Recipe.of(settings.resolve("smoke", "train", lora_target="q_proj, lm_head"))


class Tracker(TrainerCallback):
    """Takes its configuration as the trackers that transformers knows do: what the arguments say of themselves."""

    def on_train_begin(self, args, state, control, **kwargs):
        Tracker.told = json.loads(args.to_json_string())


def reporting_to(tracker, tmp_path):
    """(a run, `training.train` of a tiny model as one of its steps, to be called)"""
    model, data = random_models.write(tmp_path / "tiny", "tiny"), tmp_path / "users.jsonl"
    data.write_text('{"prompt": "What now?", "context": "Ana keeps bees.", "user_id": "a"}\n')
    run = runs.start("train", "smoke", seed=3, model=model, output_dir=str(tmp_path), data=str(data), n_pairs=5)
    said = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    pair = {"prompt": said("user", "Now?"), "chosen": said("assistant", "Rest."), "rejected": said("assistant", "No")}
    call = (model, Dataset.from_list([pair] * 2), np.zeros((2, 2)))
    numbers = {**vars(RECIPE), "report_to": tracker}
    return run, lambda: run.step("training", training.train, *call, **numbers)


def test_a_tracker_is_told_the_manifest_of_the_run(tmp_path, monkeypatch):
    from transformers.integrations import integration_utils

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tracker", Tracker)
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tracker"])
    run, train = reporting_to("tracker", tmp_path)
    first = train()
    told, manifest = Tracker.told["manifest"], run.manifest()
    assert Tracker.told["learning_rate"] == 1e-3 and told["seed"] == 3 and told["model"] == "tiny"
    for name in ("numbers", "data", "git", "libraries"):
        assert told[name] == manifest[name], name
    assert told["numbers"]["n_pairs"] == 5 and told["data"] == {
        "name": "users.jsonl",
        "content": content_hash([tmp_path / "users.jsonl"]),
    }
    assert told["revision"] == checkpoints.revision_of(models.load(str(tmp_path / "tiny"))[0])
    assert train() == first and run.steps[-1]["found"]


def test_tensorboard_has_the_manifest_and_every_step(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, train = reporting_to("tensorboard", tmp_path)
    log = train()["log"]
    [file] = tmp_path.rglob("events.out.tfevents.*")
    found = events.EventAccumulator(str(file)).Reload()
    told = json.loads(found.Tensors("args/text_summary")[0].tensor_proto.string_val[0])["manifest"]
    assert told["seed"] == 3 and told["numbers"] == run.manifest()["numbers"]
    assert [event.value for event in found.Scalars("train/loss")] == pytest.approx([entry["loss"] for entry in log])


def test_trackio_has_the_manifest_and_every_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    run, train = reporting_to("trackio", tmp_path)
    result = train()
    name = result["adapter"].parent.name
    told = storage.get_run_config("mipo-nb", name)["manifest"]
    assert told["seed"] == 3 and told["numbers"] == run.manifest()["numbers"]
    losses = [entry["train/loss"] for entry in storage.get_logs("mipo-nb", name) if "train/loss" in entry]
    assert losses == pytest.approx([entry["loss"] for entry in result["log"]])
