"""DPO and GRPO with the prompt computed once: TRL's trainers with another forward pass underneath.

The two sides of a MIPO pair share their prompt, and all pairs of a batch the words that introduce the user. TRL runs
every prompt+chosen and prompt+rejected as a row of its own. Here they are a tree (see `packing`): what is shared is paid
for once, padding never, and logits are computed for completion tokens only. In GRPO the responses of a group share
their problem likewise.
"""

import contextlib
import os
from types import SimpleNamespace

import torch
from trl import DPOTrainer, GRPOTrainer
from trl.trainer import dpo_trainer

from mipo_nb.engine import decoding, packing
from mipo_nb.engine.linear import packed_weights
from mipo_nb.engine.packing import completion_scores, enable_packing


class StoredReferenceDPOTrainer(DPOTrainer):
    """TRL's own path, reading reference log-probs that are already there (`ref_chosen_logps`, `ref_rejected_logps`)."""

    def __init__(self, *args, train_dataset, eval_dataset=None, **kwargs):
        given = _has_reference(train_dataset) and (eval_dataset is None or _has_reference(eval_dataset))
        with _weights_unhashed() if given else contextlib.nullcontext():
            super().__init__(*args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if _has_reference(dataset):
            return dataset
        self.model.train()  # see `packing`: no forward pass in evaluation mode before training
        with _no_bar():
            return super()._precompute_ref_logps(dataset, name, batch_size)


def _has_reference(dataset):
    return "ref_chosen_logps" in getattr(dataset, "column_names", ())


@contextlib.contextmanager
def _weights_unhashed():
    """TRL hashes all weights to find reference log-probs that it computed before; where they are given that is a second
    for nothing, a tenth of a short training on a laptop."""
    before = dpo_trainer.hash_module
    dpo_trainer.hash_module = lambda module: None
    try:
        yield
    finally:
        dpo_trainer.hash_module = before


@contextlib.contextmanager
def _no_bar():
    """TRL's own progress bar is heard of in this way alone."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TQDM_DISABLE") if before is None else os.environ.update(TQDM_DISABLE=before)


class SharedPrefixDPOTrainer(StoredReferenceDPOTrainer):
    """`trl.DPOTrainer` with all its arguments, losses, metrics and callbacks, on rows that share their prefix.

    Reference log-probs that the data set already has are used as they are. Models whose attention cannot share a prefix
    are trained on TRL's own path, with a notice.
    """

    def __init__(self, *args, **kwargs):
        self.shares_prefix = None  # unknown until the first batch
        super().__init__(*args, **kwargs)

    def train(self, *args, **kwargs):
        with packed_weights(self.model):
            return super().train(*args, **kwargs)

    def _forward(self, model):
        base = self.accelerator.unwrap_model(model)
        if self.shares_prefix is None:
            self.shares_prefix = enable_packing(base)
            if not self.shares_prefix:
                print("This model's attention cannot share a prefix: training on TRL's own path.")
        if not self.shares_prefix:
            return model
        return lambda **inputs: shared_prefix_forward(
            base, inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
        )

    def _compute_loss(self, model, inputs, return_outputs):
        return super()._compute_loss(self._forward(model), inputs, return_outputs)

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self._forward(model), inputs)


DPO = {"shared_prefix": SharedPrefixDPOTrainer, "trl": StoredReferenceDPOTrainer}  # by the route of a recipe


def shared_prefix_forward(model, input_ids, attention_mask, labels):
    """What TRL's loss reads, for its batch of B prompt+chosen rows followed by B prompt+rejected rows.

    `input_ids`, `attention_mask`, `labels` are [2B, L], padded on the right, labels -100 outside completions. Returns
    `log_probs`, `entropy`, `mean_logits`, `is_top1` of shape [2B, L-1]: the token at position t+1 given those before.
    """
    ends = attention_mask.sum(1).tolist()
    starts = ((labels == -100) & attention_mask.bool()).sum(1).tolist()
    rows = [row[:end] for row, end in zip(input_ids.tolist(), ends, strict=True)]
    scored = completion_scores(model, rows, starts)
    # Back at their places in TRL's [2B, L-1].
    side = [row for row, (start, end) in enumerate(zip(starts, ends, strict=True)) for _ in range(start, end)]
    at = [k - 1 for start, end in zip(starts, ends, strict=True) for k in range(start, end)]
    place = torch.tensor(side, device=input_ids.device), torch.tensor(at, device=input_ids.device)

    def spread(values):
        out = values.new_zeros(input_ids.shape[0], input_ids.shape[1] - 1)
        return out.index_put(place, values)

    log_probs, entropy, mean_logits, is_top1 = (spread(values) for values in scored)
    return SimpleNamespace(
        log_probs=log_probs, entropy=entropy, mean_logits=mean_logits, is_top1=is_top1 > 0, aux_loss=None
    )


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` whose responses are written by `decoding` and scored by `packing`, at temperature 1.

    The same loss, advantages, metrics and callbacks. Models whose attention cannot share a prefix go TRL's own way.
    """

    def train(self, *args, **kwargs):
        with packed_weights(self.model):
            return super().train(*args, **kwargs)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        policy = self.accelerator.unwrap_model(self.model)
        if not packing.enable_packing(policy):
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        ends = decoding.ends_of(packing.without_adapter_shell(policy), self._tokenizer)
        how = decoding.Sampling(1.0, 1.0, 0, self.max_completion_length)
        written = decoding.decode(policy, prompt_ids, how, ends)
        closing = self._tokenizer.eos_token_id
        return [[*tokens, closing] if finished else tokens for tokens, finished in written], None

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
        base = self.accelerator.unwrap_model(model)
        if not packing.enable_packing(base):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, **kwargs
            )
        seen = attention_mask.bool()
        sequences = [row[mask].tolist() for row, mask in zip(input_ids, seen, strict=True)]
        starts = seen[:, :-logits_to_keep].sum(1).tolist()
        scored = packing.completion_scores(base, sequences, starts)
        place = seen[:, -logits_to_keep:].nonzero(as_tuple=True)
        log_probs, entropy = (
            values.new_zeros(len(sequences), logits_to_keep).index_put(place, values) for values in scored[:2]
        )
        return log_probs, entropy, None
