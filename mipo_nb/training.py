"""DPO through TRL, of an adapter (LoRA, QLoRA) or of all weights: the recipe, the reference's log-probs, the training."""

import contextlib
import math
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from mipo_nb import models, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import write_atomically
from mipo_nb.base.hardware import hardware
from mipo_nb.engine import checkpoints
from mipo_nb.engine.arguments import ALL, dpo_numbers, lora, reports, require_layers, trainer_arguments
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
    lora_target: str = ALL  # the layers that get an adapter, or their names: "q_proj,v_proj"
    warmup: float = 0.1  # share of the steps in which the learning rate rises; none where there are 20 or fewer
    final_rate: float = 0.0  # share of the learning rate that is left at the end of its cosine; 1 keeps it constant
    loss: str = "sigmoid"  # a loss type of TRL: "sigmoid" (DPO), "ipo" (per token), "sft" (the chosen side only), ...
    four_bit: bool = False  # base weights in NF4: the Q of QLoRA
    seed: int = 0  # of the adapter's start and the order of the pairs
    device: str | None = None  # "cpu" or "cuda"; None: what this machine has
    dtype: str | None = None  # of the base weights; None: the faster one here
    route: str | None = None  # "shared_prefix", or "trl": TRL's own forward pass; None: the first on a CPU alone
    checkpointing: bool | None = None  # compute activations again on the way back, in less memory; None: on CUDA
    evaluate_every: int = 0  # steps from one look at held-out pairs to the next; 0: none
    patience: int = 0  # looks without a better held-out margin after which a training stops; 0: it goes to its end
    template_options: tuple = ()  # (name, value) of variables that the chat template reads; takes a dict too

    def __post_init__(self):
        if self.device is None or self.dtype is None:
            machine = hardware()
            object.__setattr__(self, "device", self.device or machine.device)
            object.__setattr__(self, "dtype", self.dtype or machine.dtype)
        if self.route is None:  # ours was not measured on CUDA yet
            object.__setattr__(self, "route", "shared_prefix" if self.device == "cpu" else "trl")
        object.__setattr__(self, "template_options", tuple(sorted(dict(self.template_options).items())))
        for name in ("learning_rate", "epochs", "batch_size", "accumulate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a finite number greater than 0, not {getattr(self, name)!r}.")
        at_most = dict.fromkeys(("beta", "rank", "evaluate_every", "patience"), math.inf)
        for name, most in {**at_most, "warmup": 1, "final_rate": 1}.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be from 0 to {most}, not {getattr(self, name)!r}.")
        if self.route not in ROUTES:
            raise UserError(f"Unknown route '{self.route}'; use one of {', '.join(ROUTES)}.")
        if self.patience and not (self.evaluate_every and self.rank):
            raise UserError("Patience needs looks at held-out pairs, and an adapter; set evaluate_every and lora_rank.")
        if self.four_bit and not self.rank:
            raise UserError("4-bit weights cannot be trained themselves; set four_bit = false, or a lora_rank above 0.")

    @classmethod
    def of(cls, settings, **changes):
        """The recipe of a run's settings, some numbers of it changed. Raises `UserError` as `require_layers` does."""
        s = settings
        numbers = {**s.numbers, "rank": s.lora_rank, "seed": s.seed, "device": s.device, "dtype": s.dtype, **changes}
        recipe = cls(**{f.name: numbers[f.name] for f in fields(cls) if f.name in numbers})
        if recipe.lora_target != ALL:
            require_layers(recipe, models.load_config(s.model))
        return recipe

    @property
    def pairs_per_step(self):
        return self.batch_size * self.accumulate

    @property
    def weights(self):
        """How `models.load` is to hold the base weights; for a training of all weights see `train`."""
        dtype = self.dtype if self.rank else "float32"
        names = ("device", "four_bit", "template_options")
        return {"dtype": dtype, **{name: getattr(self, name) for name in names}}


def dpo_arguments(folder, **numbers):
    """A `trl.DPOConfig` for the `numbers` of a `Recipe`: a loss on summed log-probs, without dropout."""
    from mipo_nb.engine.trainers import Arguments

    recipe = Recipe(**numbers)
    return Arguments(**trainer_arguments(folder, recipe), **dpo_numbers(recipe))


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
    spells = lambda some: tokenizer.decode(some, skip_special_tokens=True).strip() == text.strip()  # noqa: E731
    ended = bool(ids) and ids[-1] in tokenizer.added_tokens_decoder  # an end need not be marked special, and is no text
    spelt = bool(ids) and (spells(ids) or (ended and spells(ids[:-1])))
    return ids if spelt else prompts.completion_ids(tokenizer, pair["prompt"], text)


def _with_tokens(pairs, tokenizer):
    """Pairs with the columns of token ids that TRL would make, so that it trains on those that were scored."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns = zip(names, zip(*tokenize(pairs, tokenizer), strict=True), strict=True)
    pairs = pairs.remove_columns([name for name in names if name in pairs.column_names])
    for name, ids in columns:
        pairs = pairs.add_column(name, list(ids))
    return pairs


def train(start, pairs, reference, *, folder, held_out=None, report_to="none", manifest=None, **numbers: Recipe):
    """Train an adapter, or all weights, on pairs. Returns what `carry_through` returns.

    `start` is a model's name or a `models.Lineage`, whose adapter is trained on. `reference` is the
    array of `reference_log_probabilities` of whichever model the loss is to compare with; where None, the trainer computes
    it at the beginning. `numbers` make a `Recipe`.
    `held_out`, (pairs, their reference), is looked at every `evaluate_every` steps; with `patience` "adapter" is the one
    with the largest margin there, and "best" says when. `report_to` names a tracker, which gets the run's `manifest`.
    `rank=0` trains all weights, in float32: a step of 5e-7 is lost in a bfloat16 weight. Leave `reference` None then, so
    that it comes from the same forward; `models.load(name, adapter=...)` takes the whole model that is saved.

    Raises `UserError` as `Recipe` does, for fewer pairs than a batch, or no such `report_to`.
    """
    from mipo_nb.engine import early_stopping, trainers

    recipe, folder = Recipe(**numbers), Path(folder)
    recipe = recipe if held_out else replace(recipe, evaluate_every=0, patience=0)
    lineage = start if isinstance(start, models.Lineage) else models.Lineage(start)
    require_a_batch(pairs, recipe.pairs_per_step)
    model, tokenizer = lineage.start(frozen=recipe.rank > 0, **recipe.weights)
    stopping = [early_stopping.EarlyStopping(folder, recipe.patience)] if recipe.patience else []
    arguments = dpo_arguments(folder / "checkpoints", **vars(recipe))
    arguments.report_to, arguments.project, arguments.run_name = reports(report_to), "mipo-nb", folder.name
    revision = checkpoints.revision_of(model)
    arguments.manifest = manifest and {**manifest, "revision": revision}
    trainer = trainers.DPO[recipe.route](
        model=model,
        args=arguments,
        train_dataset=_as_trained(pairs, reference, tokenizer),
        eval_dataset=_as_trained(*held_out, tokenizer) if recipe.evaluate_every else None,
        processing_class=tokenizer,
        peft_config=lora(recipe.rank, recipe.lora_target) if recipe.rank else None,
        callbacks=stopping,
    )
    del model  # the trainer alone holds it
    if lineage.adapter:
        lineage.put_adapter_into(trainer.model)
    result = carry_through(trainer, folder)
    if not recipe.rank:
        _stand_alone(result["adapter"], folder, tokenizer)
    result |= stopping[0].found() if stopping else {}
    if recipe.rank:
        write_atomically(Path(result["adapter"]) / checkpoints.BASE, revision)
    return result


def _stand_alone(model_folder, folder, tokenizer):
    """Add the tokenizer to a whole model; remove its checkpoints, which are three times as large."""
    tokenizer.save_pretrained(model_folder)
    for checkpoint in folder.glob("checkpoints/checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    (folder / "checkpoints" / "README.md").unlink(missing_ok=True)  # a card of TRL's, beside a checkpoint
    with contextlib.suppress(OSError):  # it holds a tracker's files
        (folder / "checkpoints").rmdir()


def _as_trained(pairs, reference, tokenizer):
    return _with_tokens(pairs if reference is None else with_reference(pairs, reference), tokenizer)


def require_a_batch(pairs, size):
    """Raise `UserError` for fewer pairs than one batch."""
    if len(pairs) < size:
        raise UserError(f"{len(pairs)} pairs are fewer than one batch of {size}; add pairs or lower batch_size.")
