"""The files for several GPUs, read by TRL's own parser and held against the arguments of our own training."""

import dataclasses
import json

import pytest

from mipo_nb import training
from mipo_nb.base.errors import UserError
from mipo_nb.lab import settings
from mipo_nb.paper import several_gpus

PAPER = settings.profile_numbers("paper", None)
NUMBERS = {k: PAPER[k] for k in ("learning_rate", "beta", "epochs", "max_length", "warmup", "final_rate")}
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Was nun, {k}?"}],
        "chosen": [{"role": "assistant", "content": "Schlaf."}],
        "rejected": [{"role": "assistant", "content": "Größer."}],
        "pair_id": str(k),
    }
    for k in range(8)
]
# Where the result lies, and how the batch is divided, which are looked at by themselves.
OTHERWISE = {"output_dir", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"}


def parsed(folder):
    from trl.scripts.dpo import make_parser

    return make_parser().parse_args_and_config(["--config", str(folder / "dpo.yaml"), "--use_cpu", "true"])


def plain(config):
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in OTHERWISE}


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_trl_reads_the_same_training_as_ours(tmp_path, gpus):
    command = several_gpus.write(
        tmp_path, PAPER["model"], PAIRS, gpus=gpus, batch_size=2, accumulate=2, seed=42, **NUMBERS
    )
    assert command == f"trl dpo --config dpo.yaml --accelerate_config multi_gpu --num_processes {gpus}"
    _, arguments, model, data = parsed(tmp_path)
    ours = training.dpo_arguments(
        tmp_path, batch_size=2, accumulate=2, seed=42, device="cpu", dtype="bfloat16", **NUMBERS
    )
    theirs, ours = plain(arguments), plain(ours)
    on_gpu = {"gradient_checkpointing": True, "activation_checkpointing": True}
    assert {k for k in ours if ours[k] != theirs[k]} == set(on_gpu) and {k: theirs[k] for k in on_gpu} == on_gpu
    assert theirs["learning_rate"] == 5e-7 and theirs["lr_scheduler_kwargs"] == {"min_lr_rate": 0.1}
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * gpus == 4
    assert (model.model_name_or_path, model.model_revision) == tuple(PAPER["model"].split("@"))
    assert model.dtype == "float32" and not model.use_peft and not model.load_in_4bit
    [only] = data.datasets
    assert (only.path, only.data_files, arguments.output_dir) == ("json", "pairs.jsonl", "model")


def test_pairs_are_written_as_trl_takes_them(tmp_path, monkeypatch):
    from trl import get_dataset

    several_gpus.write(tmp_path, "embedded:smollm2-135m", PAIRS, gpus=1, batch_size=4, **NUMBERS)
    lines = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{k: p[k] for k in ("prompt", "chosen", "rejected")} for p in PAIRS]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = get_dataset(parsed(tmp_path)[3])["train"]
    assert len(rows) == 8 and rows[3]["rejected"] == PAIRS[3]["rejected"]


def test_a_model_too_large_for_one_gpu_is_spread_over_all(tmp_path):
    command = several_gpus.write(tmp_path, "a/b", PAIRS, gpus=4, batch_size=4, sharded=True, **NUMBERS)
    assert "--accelerate_config fsdp2 --num_processes 4" in command
    assert parsed(tmp_path)[1].per_device_train_batch_size == 1


def test_the_configurations_that_are_named_come_with_trl():
    from importlib import resources

    there = {p.name for p in (resources.files("trl") / "accelerate_configs").iterdir()}
    assert {"multi_gpu.yaml", "fsdp2.yaml"} <= there


@pytest.mark.parametrize(
    "gpus, pairs, told", [(3, 8, "cannot be divided among 3 GPUs"), (2, 3, "fewer than one batch")]
)
def test_what_cannot_be_divided_is_refused(tmp_path, gpus, pairs, told):
    with pytest.raises(UserError, match=told):
        several_gpus.write(tmp_path, "a/b", PAIRS[:pairs], gpus=gpus, batch_size=4, **NUMBERS)
    assert not list(tmp_path.iterdir())
