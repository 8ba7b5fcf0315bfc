"""Training on games of who is meant: losses over matrices log pi(response | context), for what TRL has no loss for.

A batch of pairs is laid out as G games of A conversations and R responses, and a loss reads the summed log-probs of all
of them, [G, A, R]. The forward pass runs a batch as one tree (see `packing`): a response under several contexts is
scored once per context, with gradients, and whatever conversations share is computed once.
"""

import copy
import os
from dataclasses import replace
from pathlib import Path

import torch

from mipo_nb import models, prompts, training
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.engine import packing, routes
from mipo_nb.engine.linear import PackedTraining
from mipo_nb.mipo import call
from mipo_nb.objectives import info_nce_loss, mio_loss, sami_loss, sft_loss
from mipo_nb.pairs import texts
from mipo_nb.scoring import padded_log_probabilities

SIDES = ("chosen", "rejected")

# --- which responses are scored under which conversations: rows -> [G][A][R] of (conversation, response) ---


def chosen_only(rows):
    """The chosen side of a pair under the pair's own conversation: one game per row, [B][1][1]."""
    return [[[(row["prompt"], row["chosen"])]] for row in rows]


def own_conversation(rows):
    """Both sides of a pair under the pair's own conversation: one game per row, [B][1][2]."""
    return [[[(row["prompt"], row[side]) for side in SIDES]] for row in rows]


def own_and_other(rows):
    """Both sides of a pair under its own conversation and the one the rejected side was written for: [B][2][2]."""
    return [[[(row[column], row[side]) for side in SIDES] for column in ("prompt", "other")] for row in rows]


def in_batch(rows):
    """Each chosen response, its question kept, under the contexts of all rows of the batch: one game, [1][B][B]. The
    context is everything before the last message of a conversation. Rows of one user in a batch cannot be told apart,
    and hold the loss up."""
    return [[[([*host["prompt"][:-1], row["prompt"][-1]], row["chosen"]) for row in rows] for host in rows]]


# --- losses: summed log-probs [G, A, R], tokens of the responses [G, R], reference [G, R], beta -> one number ---


def _sft(scores, tokens, reference, beta):
    return sft_loss(scores.flatten(), tokens.flatten())


def _info_nce(scores, tokens, reference, beta):
    games, contexts, responses = scores.shape
    true = torch.arange(responses, device=scores.device).repeat(games)
    return info_nce_loss(scores.transpose(1, 2).reshape(-1, contexts), 1 / beta, true).mean()


def _sami(scores, tokens, reference, beta):
    return _sami_summed(scores / tokens[:, None], tokens, reference, beta)


def _sami_summed(scores, tokens, reference, beta):
    return torch.stack([sami_loss(beta * game) for game in scores]).mean()


def _mio(scores, tokens, reference, beta):
    return mio_loss(*scores[:, 0].T, *reference.T, beta).mean()


OBJECTIVES = {
    "sft_plain": (chosen_only, _sft),
    "info_nce": (own_and_other, _info_nce),
    "info_nce_in_batch": (in_batch, _info_nce),
    "sami": (own_and_other, _sami),
    "sami_summed": (own_and_other, _sami_summed),
    "mio": (own_conversation, _mio),
}


# {objective: the chat template that it trains in, where that is not the model's own, and responses are texts}. What stands in for a template in the
# authors' SFT as printed (5c19f0f train_sft.py:215), the context before the question as in their prompts.
PLAIN = {
    "sft_plain": "User: {{ messages | rejectattr('role', 'equalto', 'assistant') | map(attribute='content') | join('\n') }}\n"
    "Assistant: {% if messages[-1].role == 'assistant' %}{{ messages[-1].content }}{{ eos_token }}{% endif %}"
}


def game_scores(model, tokenizer, games):
    """(log-probs [G, A, R] summed over each response, tokens [G, R] of the responses, tokens read), differentiable.
    `games` is [G][A][R] of (conversation, response: text or token ids). "Tokens read" counts every conversation and response in full,
    as if nothing were shared."""
    cells = [cell for game in games for row in game for cell in row]
    starts = [prompts.prompt_ids(tokenizer, conversation) for conversation, _ in cells]
    ends = [prompts.completion_ids(tokenizer, conversation, response) for conversation, response in cells]
    lengths = list(map(len, ends))
    if routes.packs_by_default(model):
        whole = [start + end for start, end in zip(starts, ends, strict=True)]
        log_probs = packing.completion_scores(model, whole, list(map(len, starts)))[0]
    else:
        log_probs = padded_log_probabilities(packing.without_adapter_shell(model), starts, ends)
    shape = len(games), len(games[0]), len(games[0][0])
    scores = torch.stack([response.sum() for response in log_probs.split(lengths)]).view(shape)
    tokens = torch.tensor(lengths, device=scores.device).view(shape)[:, 0]
    return scores, tokens, sum(map(len, starts)) + sum(lengths)


def _trainer(model, arguments, rows, tokenizer, objective, beta):
    """A `transformers.Trainer` that lays batches of rows out as games, scores them, and applies an objective."""
    from transformers import Trainer

    from mipo_nb.engine.trainers import on_one_gpu

    layout, loss = OBJECTIVES[objective]

    class ContrastiveTrainer(PackedTraining, Trainer):
        unlogged = 0  # tokens read since the last log entry

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            rows = inputs["rows"]
            scores, tokens, read = game_scores(self.accelerator.unwrap_model(model), tokenizer, layout(rows))
            self.unlogged += read
            reference = torch.tensor([row["reference"] for row in rows], device=scores.device)
            return loss(scores, tokens, reference, beta)

        def log(self, logs, *args, **kwargs):
            # From the saved history, so that a training that goes on from a checkpoint counts on.
            history = reversed(self.state.log_history)
            logged = next((entry["num_tokens"] for entry in history if "num_tokens" in entry), 0)
            super().log({**logs, "num_tokens": logged + self.unlogged}, *args, **kwargs)
            self.unlogged = 0

    arguments.remove_unused_columns = False  # the collator hands whole rows on
    trainer = ContrastiveTrainer(model, on_one_gpu(arguments), lambda batch: {"rows": batch}, rows)
    trainer.model_accepts_loss_kwargs = False  # the loss is a mean over a batch: let accumulated ones be averaged
    return trainer


def train(model_name, pairs, reference, *, objective, folder, **numbers: training.Recipe):
    """Train an adapter on pairs with an objective of `OBJECTIVES`. Returns what `training.carry_through` returns.

    Everything but the loss is as in `training.train`: the adapter at the start, optimizer, schedule and order of the
    pairs for a seed, and it goes on from its last checkpoint. `pairs` has a column `other`, the conversation that the
    rejected side was sampled from, where the objective reads it; `reference`, [pairs, 2] in nats, is read by "mio" alone.
    Log entries have `num_tokens`, the tokens read so far. `numbers` are those of a `training.Recipe`; its `beta` multiplies
    log-probs or their ratios: MIO's beta, or one over the temperature of InfoNCE; 1 in SAMI as published. An in-batch game
    has `batch_size` contexts.

    Raises `UserError` as `training.Recipe` does, and for an unknown objective, fewer pairs than a batch, or a missing
    column.
    """
    recipe = training.Recipe(**numbers)
    _check(pairs, objective, recipe)
    from peft import get_peft_model
    from transformers import set_seed

    model, tokenizer = models.load_frozen(model_name, **recipe.weights)
    reader = copy.copy(tokenizer)
    reader.chat_template = PLAIN.get(objective, tokenizer.chat_template)
    arguments = training.dpo_arguments(Path(folder) / "checkpoints", **vars(recipe))
    sides = zip(*(ids for _, *ids in training.tokenize(pairs, tokenizer)), strict=True)  # those of the reference
    sides = [texts(pairs, side) for side in SIDES] if objective in PLAIN else map(list, sides)
    columns = [*sides, reference.tolist()]
    rows = [
        {**pair, "chosen": chosen, "rejected": rejected, "reference": log_probs}
        for pair, chosen, rejected, log_probs in zip(pairs, *columns, strict=True)
    ]
    set_seed(recipe.seed)  # before the adapter is made, as TRL does: the same start for all losses
    policy = get_peft_model(model, training.lora(recipe.rank, recipe.lora_target))
    if arguments.gradient_checkpointing:
        policy.enable_input_require_grads()
    trainer = _trainer(policy, arguments, rows, reader, objective, recipe.beta)
    trainer.processing_class = tokenizer  # whose template is kept with the adapter
    del model, policy  # the trainer alone holds them
    return training.carry_through(trainer, Path(folder))


def prefer(start, reference_model, tokenizer, preferred, recipe, *, scoring_batch=16, step=call):
    """`mipo.train` for a recipe whose `loss` is an objective of `OBJECTIVES`: what `train` returns."""
    scored = (training.reference_log_probabilities, reference_model, tokenizer, preferred)
    reference = step("reference log-probs", *scored, batch_size=scoring_batch)
    numbers = vars(replace(recipe, loss="sigmoid"))
    return step("training", train, start, preferred, reference, objective=recipe.loss, **numbers)


def _check(pairs, objective, recipe):
    require_known("objective", objective, OBJECTIVES)
    training.require_a_batch(pairs, recipe.pairs_per_step)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # games go around the model that averages gradients over processes
        raise UserError(f"'{objective}' is trained by one process; start it without accelerate or torchrun.")
    if OBJECTIVES[objective][0] is own_and_other and "other" not in pairs.column_names:
        raise UserError(f"'{objective}' needs to know whom the rejected side was written for; add the column 'other'.")
