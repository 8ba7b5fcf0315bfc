"""Self-distillation with context (SDFT, Shenfeld et al. 2026, arXiv 2601.19897) through TRL: no label, no wrong answer.

The teacher is the untrained model, told about the user once more, right behind the question. The student answers without
that help; at each token of its answer its distribution is drawn to the teacher's. On prompts with a context this is
on-policy context distillation (arXiv 2602.12275).
"""

from pathlib import Path

from mipo_nb import generation, models, pairs, training
from mipo_nb.mipo import call

TEMPLATE = "{prompt}\n\nAbout the user who asks: {privileged_context}"


def told_twice(conversation, context):
    """The conversation with the context behind its last message too: what the teacher reads."""
    *before, last = conversation
    return [*before, {**last, "content": TEMPLATE.format(prompt=last["content"], privileged_context=context)}]


def asked(arm, model, tokenizer, rows, s):
    """What `arms.answers` is to call, for an arm that trains nothing: the untrained model reads what the teacher reads."""
    conversations = zip(pairs.positive_conversations(rows), rows["context"], strict=True)
    put = [told_twice(conversation, context) for conversation, context in conversations]
    return generation.sample_draws, model, tokenizer, put, generation.Sampling.of(s)


def prefer(start, reference_model, tokenizer, preferred, recipe, *, scoring_batch=16, step=call):
    """`mipo.train` for self-distillation: what `train` returns. Of the pairs it takes the prompts and contexts alone."""
    longest = max(map(len, preferred["chosen_ids"]))
    data = preferred.select_columns(["prompt", "context"])
    return step("training", train, start, data, max_new_tokens=longest, **vars(recipe))


def train(model_name, prompts, *, max_new_tokens, folder, **numbers: training.Recipe):
    """Train an adapter on rows with `prompt` (messages) and `context` (text). Returns what `training.carry_through` returns.

    `numbers` are those of a `training.Recipe`; its `beta` and `loss` have no part in it. A step takes as many prompts as a
    step of DPO takes pairs, and a response of at most `max_new_tokens` to each, sampled at temperature 1. Adapter,
    optimizer and schedule are as in `training.train`. Raises `UserError` as `Recipe` does, and for fewer rows than a batch.
    """
    from mipo_nb.engine import self_distillation as engine

    recipe, folder = training.Recipe(**numbers), Path(folder)
    training.require_a_batch(prompts, recipe.pairs_per_step)
    model, tokenizer = models.load_frozen(model_name, **recipe.weights)
    common = training.trainer_arguments(folder / "checkpoints", recipe)
    written = {"max_completion_length": max_new_tokens, "teacher_prompt_template": TEMPLATE}
    trainer = engine.SelfDistillation(
        model=model,
        args=engine.arguments(common, num_train_epochs=recipe.epochs, **written),
        train_dataset=prompts.rename_column("context", "privileged_context"),
        processing_class=tokenizer,
        peft_config=training.lora(recipe.rank, recipe.lora_target),
    )
    del model  # the trainer alone holds it
    return training.carry_through(trainer, folder)
