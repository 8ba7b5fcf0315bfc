"""One training on several GPUs: the files that TRL's own command reads, from a notebook's pairs and numbers.

A notebook is one process on one GPU. Where that is too small or too slow, `COMMAND` trains with one process per GPU, and
the notebook loads the folder that it leaves. A test runs it with two processes on a CPU, with copies of the model and
with shards of it, for all weights and for an adapter: losses and weights are those of `training.train`. Not run by us on
several GPUs.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import yaml

from mipo_nb import models, training
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import write_atomically
from mipo_nb.engine.arguments import lora_numbers
from mipo_nb.engine.checkpoints import FEW
from mipo_nb.engine.templates import variables

COMMAND = "trl dpo --config dpo.yaml"  # to be given in the folder
MODEL = "model"  # the folder, beside the two files, in which the trained model or adapter will lie
_PRODUCTS = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}  # as accelerate calls their types


def write(folder, model_name, pairs, *, gpus, sharded=False, **numbers):
    """Write pairs.jsonl and dpo.yaml into `folder`. Returns `COMMAND`, which trains, to be given in that folder.

    The same training as `training.train(model_name, pairs, None, route="trl")` with these `numbers` of a
    `training.Recipe`, of all weights unless there is a `rank`, on `gpus` processes: the global batch `batch_size` x
    `accumulate` is divided among them. What it saves in `folder / MODEL` is taken by `models.load(model_name,
    adapter=folder / MODEL)`. `sharded` spreads weights, gradient and Adam over the GPUs (FSDP2) where one cannot hold all
    of them; else each has a copy. TRL makes the tokens, by the model's own chat template.

    Raises `UserError` where the global batch cannot be divided, for fewer pairs than one batch, and for 4-bit weights.
    """
    recipe = training.Recipe(**{"dtype": "bfloat16", "rank": 0, **numbers, "device": "cuda"})
    whole = recipe.pairs_per_step
    training.require_a_batch(pairs, whole)
    if recipe.four_bit:
        raise UserError("Weights in 4 bits are trained on one GPU here; set four_bit = false, or train in a notebook.")
    if whole % gpus:
        raise UserError(
            f"A global batch of {whole} cannot be divided among {gpus} GPUs; take a number of GPUs that divides it."
        )
    at_once = math.gcd(recipe.batch_size, whole // gpus)
    few = math.ceil(recipe.epochs * math.ceil(len(pairs) / whole)) <= FEW
    recipe = replace(
        recipe,
        batch_size=at_once,
        accumulate=whole // gpus // at_once,
        warmup=0.0 if few else recipe.warmup,
        evaluate_every=0,
        patience=0,
    )
    folder, options = Path(folder), variables(dict(recipe.template_options))
    rows = ({side: pair[side] for side in ("prompt", "chosen", "rejected")} for pair in pairs)
    rows = (json.dumps({**row, "chat_template_kwargs": options}, ensure_ascii=False) for row in rows)
    write_atomically(folder / "pairs.jsonl", "".join(f"{row}\n" for row in rows))
    launched = {
        "accelerate_config": "fsdp2" if sharded else "multi_gpu",
        "num_processes": gpus,
        "mixed_precision": _PRODUCTS[recipe.dtype],
        "main_process_port": 0,  # whichever is free
    }
    write_atomically(folder / "dpo.yaml", yaml.safe_dump(launched | _arguments(model_name, recipe), sort_keys=False))
    return COMMAND


def _arguments(model_name, recipe):
    """What TRL's parser reads, without what is left to its defaults."""
    source, revision = models.resolve(model_name)
    arguments = {
        **training.trainer_arguments(MODEL, recipe),
        **training.dpo_numbers(recipe),
        "model_name_or_path": source,
        "dtype": recipe.weights["dtype"],
        "datasets": [{"path": "json", "data_files": "pairs.jsonl"}],
        "model_revision": revision,
    }
    if recipe.rank:
        named = {"r": "lora_r", "target_modules": "lora_target_modules", "task_type": "lora_task_type"}
        numbers = lora_numbers(recipe.rank, recipe.lora_target)
        arguments |= {"use_peft": True, **{named.get(name, name): value for name, value in numbers.items()}}
    return {name: value for name, value in arguments.items() if value is not None}
