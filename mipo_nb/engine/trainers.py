"""DPO and GRPO with the prompt computed once: TRL's trainers with another forward pass underneath.

The two sides of a MIPO pair share their prompt, and all pairs of a batch the words that introduce the user. TRL runs
every prompt+chosen and prompt+rejected as a row of its own. Here they are a tree (see `packing`): what is shared is
computed once, without padding, and logits only for completion tokens. In GRPO a group's responses share their problem.
"""

import contextlib
import logging
import os
from dataclasses import dataclass

import torch
from trl import DPOConfig, DPOTrainer, GRPOTrainer
from trl.trainer import dpo_trainer

from mipo_nb.base.errors import UserError
from mipo_nb.engine import decoding, own_forward, packing, plain_decoding, routes
from mipo_nb.engine.checkpoints import THINKING
from mipo_nb.engine.linear import PackedTraining
from mipo_nb.engine.templates import thinks_aloud

# What is overridden below and is no promise of TRL's: renamed there, it would no longer be called here, without a word.
_PRIVATE = {
    DPOTrainer: ("_prepare_dataset", "_precompute_ref_logps", "_compute_loss", "compute_ref_log_probs"),
    GRPOTrainer: (
        "_generate_single_turn",
        "_generate_and_score_completions",
        "_get_per_token_logps_and_entropies",
    ),
    dpo_trainer: ("hash_module",),
}


def require_private(private):
    """Raise `UserError` where an owner (a class or module of TRL's) has not all of its names: {owner: names}."""
    for owner, names in private.items():
        for name in names:
            if not hasattr(owner, name):
                raise UserError(f"This version of TRL has no {owner.__name__}.{name}; install trl>=1.16,<1.17.")


require_private(_PRIVATE)


@dataclass
class Arguments(DPOConfig):
    """`trl.DPOConfig`, and the manifest of the run: whichever tracker a training reports to, it takes its configuration
    from here (transformers gives it `to_dict`)."""

    manifest: dict | None = None


def on_one_gpu(arguments):
    """`transformers.TrainingArguments` that use one GPU, however many this process sees; with a launcher's several
    processes each has its own anyway. Else every batch would be as many times as large and spread by
    `nn.DataParallel`, which TRL's trainers refuse."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # as transformers sets it for a model whose layers lie on several
    return arguments


class OneGPU:
    """For a trainer: it trains by `on_one_gpu`."""

    def __init__(self, *positional, args, **kwargs):
        super().__init__(*positional, args=on_one_gpu(args), **kwargs)


class WithoutThoughts:
    """For a trainer that samples: nothing is learned from a response that thinks aloud. How many is logged."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # TRL's list has a None in it where a tokenizer has no end token, and then nothing can be sampled.
        self.eos_token_ids = [token for token in self.eos_token_ids if token is not None]
        self.generation_config.eos_token_id = self.eos_token_ids or None

    def _masked(self, batch):
        """A batch of TRL's with `completion_ids` [B, L], none of whose thinking responses is in `completion_mask`."""
        rows, mask = batch["completion_ids"].tolist(), batch["completion_mask"]
        responses = ([token for token, real in zip(*row, strict=True) if real] for row in zip(rows, mask, strict=True))
        thinking = torch.tensor([thinks_aloud(self._tokenizer, ids) for ids in responses], device=mask.device)
        self._metrics["train" if self.model.training else "eval"][THINKING].append(int(thinking.sum()))
        return {**batch, "completion_mask": mask.masked_fill(thinking[:, None], 0)}


class StoredReferenceDPOTrainer(OneGPU, DPOTrainer):
    """TRL's own path, reading reference log-probs that are already there (`ref_chosen_logps`, `ref_rejected_logps`)."""

    def __init__(self, *args, train_dataset, eval_dataset=None, **kwargs):
        stored = _has_reference(train_dataset) and (eval_dataset is None or _has_reference(eval_dataset))
        # TRL hashes all weights to find reference log-probs that it computed before. Where they are stored, that is a
        # second for nothing, a tenth of a short training on a laptop.
        unhashed = _replaced(vars(dpo_trainer), "hash_module", lambda module: None)
        with unhashed if stored else contextlib.nullcontext():
            super().__init__(*args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)

    def _prepare_dataset(self, dataset, *args, **kwargs):
        if "prompt_ids" in getattr(dataset, "column_names", ()):  # its tokens are there
            return dataset
        return super()._prepare_dataset(dataset, *args, **kwargs)

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if _has_reference(dataset):
            return dataset
        self.model.train()  # see `packing`: no forward pass in evaluation mode before training
        with _replaced(os.environ, "TQDM_DISABLE", "1"):  # nothing else turns TRL's own progress bar off
            return super()._precompute_ref_logps(dataset, name, batch_size)

    def _forward(self, model):
        """What the loss calls in place of `model`."""
        return own_forward.under_losses(model, packing.without_adapter_shell(self.accelerator.unwrap_model(model)))

    def _compute_loss(self, model, inputs, return_outputs):
        return super()._compute_loss(self._forward(model), inputs, return_outputs)

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self._forward(model), inputs)


def _has_reference(dataset):
    return "ref_chosen_logps" in getattr(dataset, "column_names", ())


@contextlib.contextmanager
def _replaced(names, name, value):
    """While it lasts, `names[name]` is another value."""
    before = names.get(name)
    names[name] = value
    try:
        yield
    finally:
        names.pop(name) if before is None else names.update({name: before})


class SharedPrefixDPOTrainer(PackedTraining, StoredReferenceDPOTrainer):
    """`trl.DPOTrainer` with all its arguments, losses, metrics and callbacks, on rows that share their prefix.
    Reference log-probs that the data set already has are used as they are. Models whose attention cannot share a prefix
    are trained on TRL's own path, as one line says."""

    def _forward(self, model):
        base = self.accelerator.unwrap_model(model)
        # Several processes average gradients around the model that they are given, so that one must be called.
        if self.accelerator.num_processes > 1 or not routes.enable_packing(base):
            return super()._forward(model)
        return lambda input_ids, attention_mask, labels, **_: shared_prefix_forward(
            base, input_ids, attention_mask, labels
        )


DPO = {"shared_prefix": SharedPrefixDPOTrainer, "trl": StoredReferenceDPOTrainer}  # by the route of a recipe


def shared_prefix_forward(model, input_ids, attention_mask, labels):
    """What TRL's loss reads, for its batch of B prompt+chosen rows followed by B prompt+rejected rows. `input_ids`,
    `attention_mask`, `labels` are [2B, L], padded on the right, labels -100 outside completions. Returns `log_probs`,
    `entropy`, `mean_logits`, `is_top1` of shape [2B, L-1]: the token at position t+1 given those before."""
    ends = attention_mask.sum(1).tolist()
    starts = ((labels == -100) & attention_mask.bool()).sum(1).tolist()
    rows = [row[:end] for row, end in zip(input_ids.tolist(), ends, strict=True)]
    scores = packing.completion_scores(model, rows, starts)
    # Back at their places in TRL's [2B, L-1].
    cells = [(row, k - 1) for row, span in enumerate(zip(starts, ends, strict=True)) for k in range(*span)]
    places = tuple(torch.tensor(cells, device=input_ids.device).T)
    return own_forward.read_by_losses(scores, places, len(rows), input_ids.shape[1] - 1)


# It warns of responses without any reward, each with its prompt: those that think aloud, of which one line tells at the end.
logging.getLogger(GRPOTrainer.__module__).addFilter(
    lambda record: "All reward functions returned None" not in record.getMessage()
)


class SharedPrefixGRPOTrainer(WithoutThoughts, PackedTraining, OneGPU, GRPOTrainer):
    """`trl.GRPOTrainer` whose responses are written by `decoding` and scored by `packing`, at temperature 1. The same
    loss, advantages, metrics and callbacks, of responses that do not think aloud; their reward must be None, so that it is
    not in the advantages of others. Models whose attention cannot share a prefix go TRL's own way."""

    def _generate_and_score_completions(self, inputs):
        batch = self._masked(super()._generate_and_score_completions(inputs))
        learned = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        return {**batch, "num_items_in_batch": learned}  # the loss is divided by it

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        policy = self.accelerator.unwrap_model(self.model)
        if not routes.packs_by_default(policy):
            with plain_decoding.without_defaults(policy):
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        sampling = decoding.Sampling(1.0, 1.0, 0, self.max_completion_length)
        responses = decoding.decode(policy, prompt_ids, sampling, set(self.eos_token_ids))
        return [tokens for tokens, _ in responses], None

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        base = self.accelerator.unwrap_model(model)
        if self.accelerator.num_processes > 1 or not routes.packs_by_default(base):
            bare = packing.without_adapter_shell(base)
            forward = own_forward.padded_on_the_left(own_forward.under_losses(model, bare), bare)
            scored = forward, input_ids, attention_mask, logits_to_keep
            return super()._get_per_token_logps_and_entropies(*scored, **kwargs)
        real = attention_mask.bool()
        sequences = [row[mask].tolist() for row, mask in zip(input_ids, real, strict=True)]
        starts = real[:, :-logits_to_keep].sum(1).tolist()
        scores = packing.completion_scores(base, sequences, starts)[:2]
        places = real[:, -logits_to_keep:].nonzero(as_tuple=True)
        return *own_forward.spread(scores, places, len(sequences), logits_to_keep), None
