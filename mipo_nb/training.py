"""DPO through TRL, of an adapter (LoRA, QLoRA) or of all weights: the recipe, the reference's log-probs, the training."""

import math
import shutil
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path

import numpy as np

from mipo_nb import models, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import hardware
from mipo_nb.engine import checkpoints
from mipo_nb.engine.checkpoints import carry_through
from mipo_nb.pairs import SIDES, with_reference
from mipo_nb.scoring import continuation_log_probabilities

ROUTES = ("shared_prefix", "trl")


@dataclass(frozen=True)
class Recipe:
    """What a training is told, checked when it is made. Raises `UserError` for a number that no training can have.

    The paper's code (arXiv 2603.19294) has `warmup` 0.03, `final_rate` 0.1 and trains all weights (`rank` 0).
    """

    learning_rate: float  # Adam's, at its highest; for adapters some 1e-5 to 5e-4, the more the fewer the steps
    beta: float = 0.1  # of DPO: the larger, the closer the policy stays to its reference
    epochs: float = 1  # passes over the pairs
    batch_size: int = 4  # pairs that go through the model together
    accumulate: int = 1  # such batches in one step of the optimizer
    max_length: int | None = 512  # tokens of a prompt with a response; None: whatever they have
    rank: int = 16  # of the adapter; 0 trains all weights
    warmup: float = 0.1  # share of the steps in which the learning rate rises; none where there are 20 or fewer
    final_rate: float = 0.0  # share of the learning rate that is left at the end of its cosine; 1 keeps it constant
    loss: str = "sigmoid"  # a loss type of TRL: "sigmoid" (DPO), "ipo" (per token), "sft" (the chosen side only), ...
    four_bit: bool = False  # base weights in NF4: the Q of QLoRA
    seed: int = 0  # of the adapter's start and the order of the pairs
    device: str | None = None  # "cpu" or "cuda"; None: what this machine has
    dtype: str | None = None  # of the base weights; None: the faster one here
    route: str = "shared_prefix"  # or "trl": the same numbers on TRL's own forward pass, slower
    template_options: tuple = ()  # (name, value) of variables that the chat template reads; takes a dict too

    def __post_init__(self):
        if self.device is None or self.dtype is None:
            machine = hardware()
            object.__setattr__(self, "device", self.device or machine.device)
            object.__setattr__(self, "dtype", self.dtype or machine.dtype)
        object.__setattr__(self, "template_options", tuple(sorted(dict(self.template_options).items())))
        for name in ("learning_rate", "epochs", "batch_size", "accumulate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a finite number greater than 0, not {getattr(self, name)!r}.")
        for name, most in {"beta": math.inf, "rank": math.inf, "warmup": 1, "final_rate": 1}.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be from 0 to {most}, not {getattr(self, name)!r}.")
        if self.route not in ROUTES:
            raise UserError(f"Unknown route '{self.route}'; use one of {', '.join(ROUTES)}.")
        if self.four_bit and not self.rank:
            raise UserError("4-bit weights cannot be trained themselves; set four_bit = false, or a lora_rank above 0.")

    @classmethod
    def of(cls, settings, **changes):
        """The recipe of a run's settings (`lab.settings.Settings`), some numbers of it changed."""
        s = settings
        numbers = {**s.numbers, "rank": s.lora_rank, "seed": s.seed, "device": s.device, "dtype": s.dtype, **changes}
        return cls(**{f.name: numbers[f.name] for f in fields(cls) if f.name in numbers})

    @property
    def pairs_per_step(self):
        return self.batch_size * self.accumulate

    @property
    def weights(self):
        """How `models.load` is to hold the base weights; for a training of all weights see `train`."""
        dtype = self.dtype if self.rank else "float32"
        names = ("device", "four_bit", "template_options")
        return {"dtype": dtype, **{name: getattr(self, name) for name in names}}


def lora(rank=16):
    """LoRA on all linear layers, scaled by alpha = 2 x rank (Hu et al. 2021; all layers as in QLoRA, 2305.14314)."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def trainer_arguments(folder, recipe):
    """What every training tells its trainer; after the paper's code: cosine, Adam betas (0.9, 0.95), clip 1.0."""
    return {
        "output_dir": str(folder),
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulate,
        "gradient_checkpointing": recipe.device == "cuda",
        "lr_scheduler_type": "cosine_with_min_lr" if recipe.final_rate else "cosine",
        "lr_scheduler_kwargs": {"min_lr_rate": recipe.final_rate} if recipe.final_rate else None,
        "warmup_steps": recipe.warmup,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": recipe.dtype == "bfloat16",
        "fp16": recipe.dtype == "float16",
        "use_cpu": recipe.device == "cpu",
        "dataloader_pin_memory": recipe.device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",  # see `engine.checkpoints`
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }


def dpo_numbers(recipe):
    """What DPO adds to `trainer_arguments`. The reference is scored before training, and not held beside the policy."""
    return {
        "beta": recipe.beta,
        "loss_type": recipe.loss,
        "num_train_epochs": recipe.epochs,
        "max_length": recipe.max_length,
        "precompute_ref_log_probs": True,
    }


def dpo_arguments(folder, **numbers):
    """A `trl.DPOConfig` for the `numbers` of a `Recipe`: a loss on summed log-probs, without dropout."""
    from trl import DPOConfig

    recipe = Recipe(**numbers)
    return DPOConfig(**trainer_arguments(folder, recipe), **dpo_numbers(recipe))


def reference_log_probabilities(
    model, tokenizer, pairs, *, batch_size=16, folder=None, description="reference log-probs"
):
    """Array [pairs, 2]: log pi_ref of chosen and rejected, summed over their tokens, in nats.

    `model` is the untrained model (or a PEFT model with its adapter off). Computed once: beta, learning rate and seed
    do not change it.
    """
    starts, chosen, rejected = map(list, zip(*tokenize(pairs, tokenizer), strict=True))
    kept = {"folder": folder, "description": description}
    scored = continuation_log_probabilities(model, starts * 2, chosen + rejected, batch_size=2 * batch_size, **kept)
    return np.array([row.sum() for row in scored]).reshape(2, -1).T


def tokenize(pairs, tokenizer):
    """[(prompt ids, chosen ids, rejected ids)]: the tokens that are scored and trained on.

    A side's are those that the pair holds, as long as they spell its text; else those of the chat template.
    """
    return [
        (
            prompts.prompt_ids(tokenizer, pair["prompt"]),
            *(_side_ids(tokenizer, pair, pair[side][-1]["content"], pair.get(f"{side}_ids")) for side in SIDES),
        )
        for pair in pairs
    ]


def _side_ids(tokenizer, pair, text, ids):
    spelt = ids and tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()
    return ids if spelt else prompts.completion_ids(tokenizer, pair["prompt"], text)


def _with_tokens(pairs, tokenizer):
    """Pairs with the columns of token ids that TRL would make, so that it trains on those that were scored."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns = zip(names, zip(*tokenize(pairs, tokenizer), strict=True), strict=True)
    pairs = pairs.remove_columns([name for name in names if name in pairs.column_names])
    for name, ids in columns:
        pairs = pairs.add_column(name, list(ids))
    return pairs


def train(start, pairs, reference, *, folder, keep_at=None, **numbers: Recipe):
    """Train an adapter, or all weights, on pairs. Returns what `carry_through` returns.

    `start` is a model's name or a `models.Lineage`: a lineage that is not merged has its adapter trained on, with a new
    optimizer and schedule. `reference` is the array of `reference_log_probabilities` of whichever model the loss is to
    compare with; where None, the trainer computes it at the beginning. `numbers` make a `Recipe`.

    `keep_at` is a rising list of steps: the training then ends with the last of them, its pairs taken again from the
    start where they are used up, and "adapters" in what is returned has the adapter's folder after each.

    `rank=0` trains all weights, as the paper's code does. Weights, gradient and Adam are then float32 and `dtype` is that
    of the products: a step of 5e-7 is lost in a bfloat16 weight, whose neighbours are half a per cent of it away. Leave
    `reference` None, so that it comes from the same forward. `models.load(name, adapter=...)` takes the whole model that
    is saved.

    Raises `UserError` as `Recipe` does, for fewer pairs than a batch, or steps that do not rise.
    """
    from mipo_nb.engine import trainers

    recipe, folder, steps = Recipe(**numbers), Path(folder), [] if keep_at is None else _rising(keep_at)
    require_a_batch(pairs, recipe.pairs_per_step)
    lineage = start if isinstance(start, models.Lineage) else models.Lineage(start)
    model, tokenizer = lineage.start(**recipe.weights)
    arguments = dpo_arguments(folder / "checkpoints", **vars(recipe))
    if steps:
        arguments.max_steps = steps[-1]
    trainer = trainers.DPO[recipe.route](
        model=model,
        args=arguments,
        train_dataset=_with_tokens(pairs if reference is None else with_reference(pairs, reference), tokenizer),
        processing_class=tokenizer,
        peft_config=lora(recipe.rank) if recipe.rank else None,
        callbacks=[checkpoints.keeping(folder, steps)],
    )
    del model  # the trainer alone holds it
    if lineage.adapters and not lineage.merged:
        lineage.put_adapter_into(trainer.model)
    result = carry_through(trainer, folder)
    if steps:
        result["adapters"] = [checkpoints.kept_at(folder, step) for step in steps]
    if not recipe.rank:
        tokenizer.save_pretrained(result["adapter"])  # a folder that stands alone
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times as large as the model
    return result


def _rising(steps):
    steps = list(steps)
    if not steps or not all(isinstance(n, Integral) and n >= 1 for n in steps) or sorted(set(steps)) != steps:
        raise UserError(f"{steps} are no steps to keep an adapter at; give whole numbers from 1 on that rise.")
    return steps


def require_a_batch(pairs, size):
    """Raise `UserError` for fewer pairs than one batch."""
    if len(pairs) < size:
        raise UserError(f"{len(pairs)} pairs are fewer than one batch of {size}; add pairs or lower batch_size.")
