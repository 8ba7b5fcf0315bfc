"""GRPO (Shao et al. 2024, arXiv 2402.03300) through TRL, with the trainer of `shared_prefix`.

In each step some problems are answered several times, each response is rewarded, and what earned more than the others of
its group becomes likelier. The responses of a group share their problem: it is read once, for writing and for learning.
"""

from pathlib import Path

from mipo_nb import models, rewards, training
from mipo_nb.settings import UserError, did_you_mean


def train(
    model_name,
    rows,
    conversations,
    *,
    reward,
    learning_rate,
    steps,
    batch_size,
    group,
    max_new_tokens,
    held_out=(),
    held_out_conversations=(),
    watch=0,
    accumulate=1,
    rank=16,
    beta=0.0,
    four_bit=False,
    seed=0,
    device="cpu",
    dtype="bfloat16",
    folder,
):
    """Train an adapter on problems by GRPO. Returns what `training.carry_through` returns.

    `rows` are problems, `conversations` how each is put. A step takes `batch_size` responses, `group` to a problem, sampled
    at temperature 1 and rewarded by `reward`, a name in `rewards.REWARDS`; `accumulate` such batches make one update.
    `beta` weighs the KL divergence from the untrained model. Every `watch` steps the `held_out` problems are answered
    once each; the share of right answers is `eval_rewards/accuracy/mean` in the log, that of the step's own responses
    `rewards/accuracy/mean`. Neither has a part in the training. Adapter, optimizer and schedule are as in `training.train`.

    Raises `UserError` for an unknown reward, or batches that are no whole number of groups.
    """
    if reward not in rewards.REWARDS:
        raise UserError(f"Unknown reward '{reward}'; {did_you_mean(reward, rewards.REWARDS)}")
    if group < 2 or batch_size % group:
        raise UserError(f"{batch_size} responses are no whole number of groups of {group}; a group has two at least.")
    from datasets import Dataset
    from trl import GRPOConfig

    from mipo_nb.shared_prefix import SharedPrefixGRPOTrainer

    model, tokenizer = models.load(model_name, device=device, dtype=dtype, four_bit=four_bit)
    common = training.trainer_arguments(
        Path(folder) / "checkpoints",
        learning_rate=learning_rate,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    watched = bool(watch and len(held_out))
    common["per_device_eval_batch_size"] = max(1, len(held_out))
    arguments = GRPOConfig(
        **common,
        max_steps=steps,
        num_generations=group,
        num_generations_eval=1,
        max_completion_length=max_new_tokens,
        temperature=1.0,
        beta=beta,
        reward_weights=[1.0, 0.0],
        eval_strategy="steps" if watched else "no",
        eval_steps=watch or None,
        eval_on_start=watched,
    )
    asked = {"train": (list(rows), list(conversations)), "held out": (list(held_out), list(held_out_conversations))}
    data = {
        part: Dataset.from_list([{"prompt": c, "part": part, "number": k} for k, c in enumerate(conversations)])
        for part, (_, conversations) in asked.items()
        if conversations
    }
    policy = []  # filled below: rewards need the model that the trainer wraps

    def given(name, part, number, completions):
        texts = [completion[-1]["content"] for completion in completions]
        some, all_conversations = asked[part[0]]
        responses = rewards.Responses(
            policy[0], tokenizer, [some[k] for k in number], [all_conversations[k] for k in number], texts
        )
        return rewards.REWARDS[name](responses)

    def earned(completions, part, number, **kwargs):
        if part[0] != "train":
            return [None] * len(completions)
        with policy[0].disable_adapter():
            return given(reward, part, number, completions)

    def accuracy(completions, part, number, **kwargs):
        return given("verifiable", part, number, completions)

    earned.__name__ = "reward"
    trainer = SharedPrefixGRPOTrainer(
        model=model,
        reward_funcs=[earned, accuracy],
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data.get("held out"),
        processing_class=tokenizer,
        peft_config=training.lora(rank),
    )
    policy.append(trainer.model)
    del model
    result = training.carry_through(trainer, Path(folder))
    policy.clear()
    return result
