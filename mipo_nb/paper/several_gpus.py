"""Full fine-tuning on several GPUs: the files that TRL's own command reads, from a notebook's pairs and numbers.

A notebook is one process on one GPU. Where that is too small or too slow, `trl dpo` trains with one process per GPU,
and the notebook loads the folder that it leaves. Not run by us on several GPUs: a test holds the arguments against
those of `training.train`.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import yaml

from mipo_nb import models, training
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import write_atomically

MODEL = "model"  # the folder, beside the two files, in which the trained model will lie


def write(folder, model_name, pairs, *, gpus, sharded=False, **numbers):
    """Write pairs.jsonl and dpo.yaml into `folder`. Returns the command that trains, to be given in that folder.

    The same training as `training.train(..., rank=0, reference=None)` with these `numbers` of a `training.Recipe`, on
    `gpus` processes: the global batch `batch_size` x `accumulate` is divided among them, and the model is saved in
    `folder / MODEL`, which `models.load(model_name, adapter=folder / MODEL)` takes. `sharded` spreads weights, gradient
    and Adam over the GPUs (FSDP) where one cannot hold all of them; else each has a copy. Raises `UserError` where the
    global batch cannot be divided, or for fewer pairs than one batch.
    """
    recipe = training.Recipe(**{"dtype": "bfloat16", **numbers, "rank": 0, "device": "cuda"})
    whole = recipe.pairs_per_step
    training.require_a_batch(pairs, whole)
    if whole % gpus:
        raise UserError(
            f"A global batch of {whole} cannot be divided among {gpus} GPUs; take a number of GPUs that divides it."
        )
    at_once = math.gcd(recipe.batch_size, whole // gpus)
    recipe = replace(recipe, batch_size=at_once, accumulate=whole // gpus // at_once)
    source, revision = models.resolve(model_name)
    arguments = {
        **training.trainer_arguments(MODEL, recipe),
        **training.dpo_numbers(recipe),
        "model_name_or_path": source,
        "dtype": "float32",  # the weights; products are in bf16, see `training.train`
        "datasets": [{"path": "json", "data_files": "pairs.jsonl"}],
        "model_revision": revision,
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    folder = Path(folder)
    rows = ({side: pair[side] for side in ("prompt", "chosen", "rejected")} for pair in pairs)
    write_atomically(folder / "pairs.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_atomically(folder / "dpo.yaml", yaml.safe_dump(arguments, sort_keys=False))
    kind = "fsdp2" if sharded else "multi_gpu"
    return f"trl dpo --config dpo.yaml --accelerate_config {kind} --num_processes {gpus}"
