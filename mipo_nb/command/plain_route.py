"""What the benchmarks time: training steps, scores and the whole pipeline by either route, and the work there is."""

import tempfile

import numpy as np
import torch

from mipo_nb import generation, mipo, models, pairs, prompts, scoring, sources, training
from mipo_nb.engine import packing

MODEL = "embedded:smollm2-135m"
ROUTES = {"ours": "shared_prefix", "trl": "trl"}  # as `training.Recipe` calls them
PROMPT, CHOSEN, REJECTED = 84, 68, 76  # tokens, as in the trial that set the targets


def operations(model, tokens, scored, *, backward=False):
    """Arithmetic of `tokens` through the layers and `scored` through the head; attention's own products left out. With
    frozen weights the backward pass costs as much as the forward pass."""
    base = packing.without_adapter_shell(model)
    head = base.get_output_embeddings().weight.numel()
    matrices = {name: weights for name, weights in base.named_parameters() if weights.ndim == 2}
    layers = sum(w.numel() for name, w in matrices.items() if "embed" not in name and "lm_head" not in name)
    return (2 if backward else 1) * 2 * (tokens * layers + scored * head)


def texts(tokenizer, lengths):
    """Texts of about these `lengths` in tokens, cut from the project's own users."""
    tokens = tokenizer(" ".join(user["context"] for user in sources.own_users("train")))["input_ids"]
    starts = [(997 * k) % (len(tokens) - max(lengths)) for k in range(len(lengths))]
    return [tokenizer.decode(tokens[start : start + n]) for start, n in zip(starts, lengths, strict=True)]


def some_pairs(tokenizer, n, *, prompt=PROMPT, chosen=CHOSEN, rejected=REJECTED):
    """`n` pairs of the given lengths in tokens, the chat template's own included."""
    from datasets import Dataset

    parts = texts(tokenizer, [max(prompt - 44, 1), chosen - 2, rejected - 2] * n)
    conversations = [prompts.messages("What shall I do with a free evening?", text) for text in parts[::3]]
    chosen, rejected = ([[{"role": "assistant", "content": text}] for text in parts[k::3]] for k in (1, 2))
    return Dataset.from_dict({"prompt": conversations, "chosen": chosen, "rejected": rejected})


def training_step(route, data, dtype, device, four_bit=False, **changes):
    """A function that runs one step (forward and backward) of a route on all pairs of `data`, and returns the loss."""
    from trl import DPOTrainer

    from mipo_nb.engine.linear import packed_weights
    from mipo_nb.engine.trainers import SharedPrefixDPOTrainer, on_one_gpu

    model, tokenizer = models.load(MODEL, device=device, dtype=dtype, four_bit=four_bit)
    if route == "ours":
        data = pairs.with_reference(data, np.zeros((len(data), 2)))
    arguments = training.dpo_arguments(
        tempfile.gettempdir(), learning_rate=1e-4, beta=0.1, epochs=1, batch_size=len(data), max_length=None, seed=0,
        device=device, dtype=dtype,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(arguments, name, value)
    trainer = {"ours": SharedPrefixDPOTrainer, "trl": DPOTrainer}[route](
        model=model,
        args=on_one_gpu(arguments),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=training.lora(),
    )
    if arguments.gradient_checkpointing:
        trainer.model.activation_checkpointing_enable({"use_reentrant": False})
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()

    def step():
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        trainer.model.zero_grad()
        return loss.item()

    if route == "ours":  # as training does once, for as long as the step is kept
        step.packed = packed_weights(trainer.model)
        step.packed.__enter__()
    return step


def one_by_one(model, ids):
    """Array of log-probs in nats, one per (prompt, response) of token ids in `ids`: an independent pass for each."""
    sums = []
    with torch.inference_mode():
        for start, end in ids:
            tokens = torch.tensor([start + end], device=model.device)
            logits = model(tokens).logits[0, len(start) - 1 : -1].float().log_softmax(-1)
            sums.append(logits.gather(-1, tokens[0, len(start) :, None]).sum().item())
    return np.array(sums)


def pipeline(route, rows, dtype, device):
    """From personal prompts to a measured adapter: sample both sides, train one epoch, score the tuned responses.

    `route` is "ours" (`mipo.mipo`) or "trl" (`generate`, TRL's trainer, independent passes). Returns the mean PMI of
    the responses in nats.
    """
    weights = {"device": device, "dtype": dtype}
    recipe = mipo.Recipe(learning_rate=4e-4, batch_size=min(8, len(rows)), route=ROUTES[route], **weights)
    sampling = generation.Sampling(batch_size=len(rows))
    personal, bare = pairs.positive_conversations(rows), pairs.negative_conversations(rows, "missing_context")
    with tempfile.TemporaryDirectory() as folder:
        trained = {"ours": mipo.mipo, "trl": plain_mipo}[route](MODEL, rows, recipe, folder=folder, sampling=sampling)
        tuned, tokenizer = models.load(MODEL, adapter=trained["adapter"], **weights)
    model, _ = models.load(MODEL, **weights)
    if route == "ours":
        responses = list(generation.sample(tuned, tokenizer, personal, sampling, seed=0)["text"])
    else:
        responses = plain_responses(tuned, tokenizer, personal, sampling)
    score = {"ours": scoring.log_probabilities, "trl": plain_scores}[route]
    with_context, without = (score(model, tokenizer, conversations, responses) for conversations in (personal, bare))
    return float(np.mean(with_context - without))


def plain_mipo(name, rows, recipe, *, folder, sampling):
    """`mipo.mipo` as one would write it with transformers and TRL alone."""
    model, tokenizer = models.load(name, **recipe.weights)
    negative = "random_context"
    conversations = pairs.positive_conversations(rows), pairs.negative_conversations(rows, negative)
    chosen, rejected = (plain_responses(model, tokenizer, prompted, sampling) for prompted in conversations)
    preferences, _ = pairs.build(rows, chosen, rejected, tokenizer, negative=negative, max_length=recipe.max_length)
    sides = (pairs.texts(preferences, side) for side in ("chosen", "rejected"))
    reference = np.stack([plain_scores(model, tokenizer, preferences["prompt"], side) for side in sides], 1)
    return training.train(name, preferences, reference, folder=folder, **vars(recipe))


def plain_responses(model, tokenizer, conversations, sampling):
    """Texts by transformers' `generate`, all conversations in one padded batch."""
    ids = [prompts.prompt_ids(tokenizer, conversation) for conversation in conversations]
    drawn = generation.generate(model, ids, sampling, {tokenizer.eos_token_id})
    return [generation.cut_to_sentence(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens, _ in drawn]


def plain_scores(model, tokenizer, conversations, texts):
    """`scoring.log_probabilities`, one sequence after another."""
    rows = zip(conversations, texts, strict=True)
    ids = [(prompts.prompt_ids(tokenizer, c), prompts.completion_ids(tokenizer, c, text)) for c, text in rows]
    return one_by_one(model, ids)
