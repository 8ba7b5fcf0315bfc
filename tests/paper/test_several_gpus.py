"""The files for several GPUs: read by TRL's own parser, and run by its command with two processes on this CPU."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from mipo_nb import models, training
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.command import random_models
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

    words = ["--config", str(folder / "dpo.yaml"), "--use_cpu", "true"]
    return make_parser().parse_args_and_config(words, return_remaining_strings=True)


def launched(folder):
    """What the file tells accelerate."""
    left = parsed(folder)[-1]
    return dict(zip(left[::2], left[1::2], strict=True))


def plain(config):
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in OTHERWISE}


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_trl_reads_the_same_training_as_ours(tmp_path, gpus):
    numbers = {**NUMBERS, "batch_size": 2, "accumulate": 2, "seed": 42}
    several_gpus.write(tmp_path, PAPER["model"], PAIRS, gpus=gpus, **numbers, evaluate_every=2)
    told = {"accelerate_config": "multi_gpu", "num_processes": gpus, "mixed_precision": "bf16", "main_process_port": 0}
    assert launched(tmp_path) == {f"--{name}": str(value) for name, value in told.items()}
    _, arguments, model, data, _ = parsed(tmp_path)
    ours = training.dpo_arguments(tmp_path, device="cpu", dtype="bfloat16", **{**numbers, "warmup": 0.0})
    theirs, ours = plain(arguments), plain(ours)
    on_gpu = {"gradient_checkpointing": True, "activation_checkpointing": True}
    assert {k for k in ours if ours[k] != theirs.get(k)} == set(on_gpu) and {k: theirs[k] for k in on_gpu} == on_gpu
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
    sides = [{k: p[k] for k in ("prompt", "chosen", "rejected")} for p in PAIRS]
    settled = {"enable_thinking": False, "date_string": "01 Jan 2026"}
    assert [json.loads(line) for line in lines] == [{**row, "chat_template_kwargs": settled} for row in sides]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = get_dataset(parsed(tmp_path)[3])["train"]
    assert len(rows) == 8 and rows[3]["rejected"] == PAIRS[3]["rejected"]


def test_a_model_too_large_for_one_gpu_is_spread_over_all(tmp_path):
    several_gpus.write(tmp_path, "a/b", PAIRS, gpus=4, batch_size=4, sharded=True, **NUMBERS)
    assert launched(tmp_path)["--accelerate_config"] == "fsdp2" and launched(tmp_path)["--num_processes"] == "4"
    assert parsed(tmp_path)[1].per_device_train_batch_size == 1


def test_the_configurations_that_are_named_come_with_trl():
    from importlib import resources

    there = {p.name for p in (resources.files("trl") / "accelerate_configs").iterdir()}
    assert {"multi_gpu.yaml", "fsdp2.yaml"} <= there


@pytest.mark.parametrize("epochs, warmup", [(10, 0.0), (11, 0.03)])
def test_few_steps_have_no_warm_up_as_in_our_training(tmp_path, epochs, warmup):
    several_gpus.write(tmp_path, "a/b", PAIRS, gpus=2, batch_size=4, **{**NUMBERS, "epochs": epochs})
    assert parsed(tmp_path)[1].warmup_steps == warmup


@pytest.mark.parametrize(
    "change, told",
    [
        ({"gpus": 3}, "cannot be divided among 3 GPUs"),
        ({"pairs": PAIRS[:3]}, "fewer than one batch"),
        ({"four_bit": True, "rank": 4}, "trained on one GPU"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(tmp_path, change, told):
    call = {"pairs": PAIRS, "gpus": 2, "batch_size": 4, **NUMBERS, **change}
    with pytest.raises(UserError, match=told):
        several_gpus.write(tmp_path, "a/b", **call)
    assert not list(tmp_path.iterdir())


# Two processes against one. What each of them is told at its start: to say where it stands if it waits for ever.
WAITING = "import faulthandler; faulthandler.dump_traceback_later(100, exit=True)"
# Accelerate takes FSDP on GPUs only: on CPUs it would leave each process a whole copy, without a word. So two processes
# that are to shard are told that they have GPUs, and say how many parts they sharded.
SHARDING = """
import atexit, gc, os
if "LOCAL_RANK" in os.environ:
    from accelerate.state import DistributedType, PartialState
    from torch.distributed.fsdp import FSDPModule

    own = PartialState.__init__

    def begun(self, *args, **kwargs):
        own(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = begun
    atexit.register(lambda: print("sharded", sum(isinstance(o, FSDPModule) for o in gc.get_objects()), flush=True))
"""
WAYS = {f"{kind}, rank {rank}": (kind == "shards", rank) for kind in ("copies", "shards") for rank in (0, 8)}
TRAINING = {"batch_size": 4, "epochs": 2, "max_length": 256, "dtype": "float32", "learning_rate": 1e-3}
FOLDER = "my_training"  # as docs/running.md calls it


def documented():
    """The line of docs/running.md that trains."""
    [line] = re.findall(rf"^cd {FOLDER} && .*$", (project_root() / "docs/running.md").read_text(), re.MULTILINE)
    return line


def wishes():
    """12 pairs of several lengths, a `datasets.Dataset`."""
    words = "Brot und Wein. Oben liegt Schnee. Wir bleiben heute hier. Bald.".split(". ")
    said = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    rows = [
        {
            "prompt": [*said("system", f"Von {words[k % 4]}"), *said("user", f"{k}: {words[k % 3]}?")],
            "chosen": said("assistant", words[(k + 1) % 4]),
            "rejected": said("assistant", words[(k + 2) % 4] * (1 + k % 3)),
        }
        for k in range(12)
    ]
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random Llama and a chat template that writes a date."""
    folder = tmp_path_factory.mktemp("tiny")
    random_models.write(folder, random_models._shape("llama", 64, 128, 2, 4, 2, 512), seed=1)
    template = folder / "chat_template.jinja"
    template.write_text("{{ date_string or 'today' }} " + template.read_text())
    return str(folder)


@pytest.fixture(scope="module")
def one_process(tiny, tmp_path_factory):
    """{rank: (losses, folder of what was trained)} by `training.train`."""
    folder, found = tmp_path_factory.mktemp("one"), {}
    for rank in (0, 8):
        call = {**TRAINING, "rank": rank, "device": "cpu", "route": "trl"}
        result = training.train(tiny, wishes(), None, folder=folder / str(rank), **call)
        found[rank] = [entry["loss"] for entry in result["log"]], result["adapter"]
    return found


@pytest.fixture(scope="module")
def two_processes(tiny, tmp_path_factory):
    """{way: (losses as printed, folder of what was trained, how many parts each process sharded)}."""

    def run(way):
        sharded, rank = WAYS[way]
        folder = tmp_path_factory.mktemp("two")
        command = several_gpus.write(folder / FOLDER, tiny, wishes(), gpus=2, sharded=sharded, rank=rank, **TRAINING)
        assert documented() == f"cd {FOLDER} && {command}"
        (folder / "sitecustomize.py").write_text(WAITING + SHARDING * sharded)
        told = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(folder)}
        told |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        told |= {"HF_DATASETS_CACHE": str(folder / "cache")}
        words, where = ["bash", "-c", f"{documented()} --use_cpu true"], {"cwd": folder, "env": {**os.environ, **told}}
        done = subprocess.run(words, capture_output=True, text=True, **where)
        text = done.stdout + done.stderr
        assert done.returncode == 0, text[-6000:]
        losses, parts = re.findall(r"'loss': '([^']+)'", text), re.findall(r"sharded (\d+)", text)
        return list(map(float, losses)), folder / FOLDER / several_gpus.MODEL, list(map(int, parts))

    with ThreadPoolExecutor(2) as pool:  # to load the libraries is most of it
        return dict(zip(WAYS, pool.map(run, WAYS), strict=True))


@pytest.mark.whole
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(way, tiny, one_process, two_processes):
    sharded, rank = WAYS[way]
    (expected, alone), (losses, folder, parts) = one_process[rank], two_processes[way]
    # Two layers, the embedding, the head with the last norm, and the rest.
    assert parts == ([parts[0]] * 2 if sharded else []) and all(n >= 3 for n in parts)
    assert len(losses) == 6 and losses == pytest.approx(expected, abs=1e-4) and len(set(losses)) == 6
    names = ("adapter_model.safetensors", "model.safetensors", "part-0.safetensors")
    start, one, two = (
        load_file(next(Path(at) / name for name in names if (Path(at) / name).exists())) for at in (tiny, alone, folder)
    )
    if sharded and not rank:  # saved from shards, a head that is the embedding is there by its own name too
        assert torch.equal(two.pop("lm_head.weight"), two["model.embed_tokens.weight"])
    assert one.keys() == two.keys()
    for name, weights in one.items():
        assert torch.allclose(two[name], weights, rtol=0, atol=1e-3), name
    learned = [(weights - start.get(name, 0)).abs().max() for name, weights in one.items() if "lora_A" not in name]
    assert sum(change > 3e-3 for change in learned) > len(learned) / 2
    models.load(tiny, dtype="float32", adapter=folder)
