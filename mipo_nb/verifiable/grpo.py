"""GRPO (Shao et al. 2024, arXiv 2402.03300) through TRL, with the trainer of `engine.trainers`.

In each step some problems are answered several times, each response is rewarded, and what earned more than the others of
its group becomes likelier. The responses of a group share their problem: it is read once, for writing and for learning.
"""

from pathlib import Path

from mipo_nb import models, training
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.engine.templates import thinks_aloud
from mipo_nb.verifiable import rewards


def train(
    start, rows, conversations, *, reward, steps, group, max_new_tokens, held_out=(), held_out_conversations=(),
    watch=0, folder, **numbers,
):  # fmt: skip
    """Train an adapter on problems by GRPO. Returns what `training.carry_through` returns.

    `start` is a model's name or a `models.Lineage`, whose adapter is trained on. `rows` are problems, or personal prompts,
    `conversations` how each is put. `numbers` are those of a `training.Recipe`: a step takes
    `batch_size` responses, `group` to a problem, sampled at temperature 1 and rewarded by `reward`, a name in
    `rewards.REWARDS`; `accumulate` such batches make one update; `beta`, here 0 unless given, weighs the KL divergence
    from the untrained model. Every `watch` steps the `held_out` problems are answered once each; the share of right
    answers is `eval_rewards/accuracy/mean` in the log, that of the step's own responses `rewards/accuracy/mean`. Neither
    affects the training. Adapter, optimizer and schedule are as in `training.train`: `warmup` is a share of the steps, none
    where there are 20 or fewer, and `final_rate` 1 keeps the rate. Raises `UserError` as `training.Recipe` does, for an
    unknown reward, or batches that are no whole number of groups.
    """
    recipe = training.Recipe(**{"beta": 0.0, **numbers})
    require_known("reward", reward, rewards.REWARDS)
    if group < 2 or recipe.batch_size % group:
        raise UserError(
            f"{recipe.batch_size} responses are no whole number of groups of {group}; a group has two at least."
        )
    from mipo_nb.engine.trainers import SharedPrefixGRPOTrainer

    lineage = start if isinstance(start, models.Lineage) else models.Lineage(start)
    model, tokenizer = lineage.start(frozen=True, **recipe.weights)
    problems = {"train": (list(rows), list(conversations)), "held out": (list(held_out), list(held_out_conversations))}
    policy = []  # filled below: rewards need the model that the trainer wraps
    data = {part: _prompts(part, asked) for part, (_, asked) in problems.items() if asked}
    trainer = SharedPrefixGRPOTrainer(
        model=model,
        reward_funcs=_reward_functions(reward, policy, tokenizer, problems),
        args=_arguments(folder, recipe, steps, group, max_new_tokens, watch, len(held_out)),
        train_dataset=data["train"],
        eval_dataset=data.get("held out"),
        processing_class=tokenizer,
        peft_config=training.lora(recipe.rank, recipe.lora_target),
    )
    policy.append(trainer.model)
    del model
    if lineage.adapter:
        lineage.put_adapter_into(trainer.model)
    result = training.carry_through(trainer, Path(folder))
    policy.clear()
    return result


def _arguments(folder, recipe, steps, group, max_new_tokens, watch, n_held_out):
    from trl import GRPOConfig

    common = training.trainer_arguments(Path(folder) / "checkpoints", recipe)
    common["per_device_eval_batch_size"] = max(1, n_held_out)
    sampling = {"num_generations": group, "max_completion_length": max_new_tokens, "temperature": 1.0}
    watched = bool(watch and n_held_out)
    watching = {"eval_strategy": "steps" if watched else "no", "eval_steps": watch or None, "eval_on_start": watched}
    learning = {"max_steps": steps, "beta": recipe.beta, "reward_weights": [1.0, 0.0], "router_aux_loss_coef": 0.0}
    return GRPOConfig(**common, **sampling, **watching, **learning, num_generations_eval=1)


def _prompts(part, conversations):
    from datasets import Dataset

    return Dataset.from_list([{"prompt": c, "part": part, "number": k} for k, c in enumerate(conversations)])


def _reward_functions(reward, policy, tokenizer, problems):
    """[what is learned from, what is only watched], as TRL calls them: one number for each of the completions, None for one
    that thinks aloud in training, which TRL then leaves out of the advantages of others."""

    def rewarded(name, part, number, completions):
        rows, conversations = ([column[k] for k in number] for column in problems[part[0]])
        texts = [completion[-1]["content"] for completion in completions]
        return rewards.REWARDS[name](rewards.Responses(policy[0], tokenizer, rows, conversations, texts))

    def without_thoughts(values, completion_ids):
        thinking = (thinks_aloud(tokenizer, ids) for ids in completion_ids)
        return [None if thinks else value for value, thinks in zip(values, thinking, strict=True)]

    def earned(completions, completion_ids, part, number, **kwargs):
        if part[0] != "train":
            return [None] * len(completions)
        with policy[0].disable_adapter():
            return without_thoughts(rewarded(reward, part, number, completions), completion_ids)

    def accuracy(completions, completion_ids, part, number, **kwargs):
        right = rewarded("verifiable", part, number, completions)
        return without_thoughts(right, completion_ids) if part[0] == "train" else right

    earned.__name__ = "reward"
    return [earned, accuracy]
