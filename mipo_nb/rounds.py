"""Repeating "sample, pair, train": models that were trained more than once, and what a repeated training is held against.

A round starts from the model that the last one made. Either it trains the same adapter on, or it merges that adapter into
the weights and begins a new one. `Lineage` is such a model: its name and the adapters of its rounds.
"""

import copy
import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipo_nb import models, training
from mipo_nb.settings import UserError


@dataclass(frozen=True)
class Lineage:
    """A model and what training made of it: `name` as in `models.load`, and folders of `adapters`, the oldest first.

    Not `merged`, there is one adapter at most, which every round trains on. `merged`, every round leaves an adapter of its
    own: all but the last are added to the weights, in the order and in the type in which the weights are held (in 16 or 4
    bits that rounds them, each time).
    """

    name: str
    adapters: tuple = ()
    merged: bool = False

    def then(self, adapter):
        """The lineage after a round that left `adapter`, a folder."""
        kept = self.adapters if self.merged else ()
        return Lineage(self.name, (*kept, Path(adapter)), self.merged)

    def fingerprint(self):
        """What identifies the weights for a step's key: the same for untrained lineages of a name, merged or not."""
        files = [Path(adapter) / "adapter_model.safetensors" for adapter in self.adapters]
        for file in files:
            _there(file)
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
        return [self.name, self.merged and bool(hashes), *hashes]

    def load(self, **how):
        """(model, tokenizer) in evaluation mode, the last adapter attached; `how` goes to `models.load`."""
        from peft import PeftModel

        for adapter in self.adapters:
            _there(Path(adapter) / "adapter_config.json")
        model, tokenizer = _with(self.name, self.adapters[:-1], how)
        if self.adapters:
            model = PeftModel.from_pretrained(model, self.adapters[-1])
        return model.eval(), tokenizer

    def start(self, **how):
        """(model, tokenizer) as a training needs them: without an adapter, and where `merged` with all of them added."""
        return _with(self.name, self.adapters if self.merged else (), how)


def _with(name, adapters, how):
    """(model, tokenizer) with `adapters` added to the weights, the caller's own."""
    return copy.deepcopy(_merged(name, adapters, **how)) if adapters else models.load(name, **how)


@functools.lru_cache(maxsize=1)
def _merged(name, adapters, **how):
    """What `_with` gives, not to be changed: the last one asked for stays in memory. A round asks for the one that its own
    begins with, and then for that with one adapter more."""
    from peft import PeftModel

    model, tokenizer = _with(name, adapters[:-1], how)
    return PeftModel.from_pretrained(model, adapters[-1]).merge_and_unload(), tokenizer


def _there(file):
    if not file.is_file():
        raise UserError(
            f"There is no adapter in {file.parent}; remove that step's folder {file.parent.parent} and run again."
        )


def train(
    lineage,
    pairs,
    reference,
    *,
    learning_rate,
    beta,
    epochs,
    batch_size,
    max_length,
    rank=16,
    accumulate=1,
    four_bit=False,
    seed=0,
    device="cpu",
    dtype="bfloat16",
    warmup=0.1,
    folder,
):
    """One round of DPO, from where `lineage` stands. Returns what `training.carry_through` returns.

    As `training.train` with its defaults, and for an untrained lineage the same training. `reference` is the array of
    `training.reference_log_probabilities`, of whichever model the loss is to compare with: the lineage as it stands (a
    renewed reference) or the model it comes from (one that is kept). Optimizer and schedule begin anew. Raises `UserError`
    for fewer pairs than a batch.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    from mipo_nb.shared_prefix import SharedPrefixDPOTrainer

    training.require_a_batch(pairs, batch_size * accumulate)
    model, tokenizer = lineage.start(device=device, dtype=dtype, four_bit=four_bit)
    arguments = training.dpo_arguments(
        Path(folder) / "checkpoints", learning_rate=learning_rate, beta=beta, epochs=epochs, batch_size=batch_size,
        accumulate=accumulate, max_length=max_length, seed=seed, device=device, dtype=dtype, warmup=warmup,
    )  # fmt: skip
    pairs = pairs.add_column("ref_chosen_logps", reference[:, 0].tolist())
    pairs = pairs.add_column("ref_rejected_logps", reference[:, 1].tolist())
    trainer = SharedPrefixDPOTrainer(
        model=model, args=arguments, train_dataset=pairs, processing_class=tokenizer, peft_config=training.lora(rank)
    )
    del model  # the trainer alone holds it
    if lineage.adapters and not lineage.merged:
        # Into the trainer's new adapter: a model that comes with one makes TRL hold a second copy as its reference.
        set_peft_model_state_dict(trainer.model, load_peft_weights(lineage.adapters[-1], device=device))
    return training.carry_through(trainer, Path(folder))


def best_of(values, n):
    """Array [rows]: expected best of `n` draws without replacement, from all the draws `values` [rows, N] of each row.

    Unbiased for the best of n fresh draws: E = sum_i v_(i) C(i-1, n-1) / C(N, n) over the values in rising order. For
    values 0 and 1 it is pass@n (Chen et al. 2021, arXiv 2107.03374). Raises `ValueError` for n outside 1 to N.
    """
    values = np.sort(np.asarray(values, dtype=float), axis=1)
    size = values.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"The best of {n} cannot be had from {size} draws.")
    weights = np.array([math.comb(i, n - 1) / math.comb(size, n) for i in range(size)])  # of whole numbers of any size
    return values @ weights
