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
    """Arithmetic of `tokens` through the layers and `scored` through the head; attention's own products left out.

    With frozen weights the backward pass costs as much as the forward one.
    """
    base = packing.without_adapter_shell(model)
    head = base.get_output_embeddings().weight.numel()
    layers = sum(
        p.numel() for n, p in base.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
    )
    return (2 if backward else 1) * 2 * (tokens * layers + scored * head)


def texts(tokenizer, lengths):
    """Texts of about so many tokens each, cut from the project's own users."""
    words = tokenizer(" ".join(u["context"] for u in sources.own_users("train")))["input_ids"]
    starts = [(997 * k) % (len(words) - max(lengths)) for k in range(len(lengths))]
    return [tokenizer.decode(words[a : a + n]) for a, n in zip(starts, lengths, strict=True)]


def some_pairs(tokenizer, n, *, prompt=PROMPT, chosen=CHOSEN, rejected=REJECTED):
    """`n` pairs of the given lengths in tokens, the chat template's own included."""
    from datasets import Dataset

    written = texts(tokenizer, [max(prompt - 44, 1), chosen - 2, rejected - 2] * n)
    sides = [{"role": "assistant", "content": t} for t in written]
    asked = [prompts.messages("What shall I do with a free evening?", t) for t in written[::3]]
    return Dataset.from_dict(
        {
            "prompt": asked,
            "chosen": [[s] for s in sides[1::3]],
            "rejected": [[s] for s in sides[2::3]],
        }
    )


def training_step(route, data, dtype, device, four_bit=False, **changes):
    """A function that runs one step (forward and backward) of a route on all pairs of `data`, and returns the loss."""
    from trl import DPOTrainer

    from mipo_nb.engine.linear import packed_weights
    from mipo_nb.engine.trainers import SharedPrefixDPOTrainer

    model, tokenizer = models.load(MODEL, device=device, dtype=dtype, four_bit=four_bit)
    if route == "ours":
        data = pairs.with_reference(data, np.zeros((len(data), 2)))
    else:
        model.set_attn_implementation("sdpa")  # what transformers takes by itself
    arguments = training.dpo_arguments(
        tempfile.gettempdir(), learning_rate=1e-4, beta=0.1, epochs=1, batch_size=len(data), max_length=None, seed=0,
        device=device, dtype=dtype,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(arguments, name, value)
    trainer = {"ours": SharedPrefixDPOTrainer, "trl": DPOTrainer}[route](
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=training.lora()
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
    """Array of log-probs by independent passes, the straightforward way: all logits of each sequence, one after another."""
    found = []
    with torch.inference_mode():
        for start, end in ids:
            tokens = torch.tensor([start + end], device=model.device)
            logits = model(tokens).logits[0, len(start) - 1 : -1].float().log_softmax(-1)
            found.append(logits.gather(-1, tokens[0, len(start) :, None]).sum().item())
    return np.array(found)


def pipeline(route, rows, dtype, device):
    """From personal prompts to a measured adapter: both sides sampled, one epoch, the tuned model's responses scored.

    `route` is "ours" (`mipo.mipo`) or "trl" (`generate`, TRL's trainer, independent passes). Returns the responses' mean
    PMI in nats.
    """
    where = {"device": device, "dtype": dtype}
    recipe = mipo.Recipe(learning_rate=4e-4, batch_size=min(8, len(rows)), route=ROUTES[route], **where)
    sampling = generation.Sampling(batch_size=len(rows))
    asked, bare = pairs.positive_conversations(rows), pairs.negative_conversations(rows, "missing_context")
    with tempfile.TemporaryDirectory() as folder:
        trained = {"ours": mipo.mipo, "trl": plain_mipo}[route](MODEL, rows, recipe, folder=folder, sampling=sampling)
        tuned, tokenizer = models.load(MODEL, adapter=trained["adapter"], **where)
    model, _ = models.load(MODEL, **where)
    if route == "ours":
        responses = list(generation.sample(tuned, tokenizer, asked, sampling, seed=0)["text"])
        scores = [scoring.log_probabilities(model, tokenizer, put, responses) for put in (asked, bare)]
    else:
        responses = plain_responses(tuned, tokenizer, asked, sampling)
        scores = [plain_scores(model, tokenizer, put, responses) for put in (asked, bare)]
    return float(np.mean(scores[0] - scores[1]))


def plain_mipo(name, rows, recipe, *, folder, sampling):
    """`mipo.mipo` as one would write it with transformers and TRL alone."""
    model, tokenizer = models.load(name, **recipe.weights)
    chosen, rejected = (
        plain_responses(model, tokenizer, asked, sampling)
        for asked in (pairs.positive_conversations(rows), pairs.negative_conversations(rows, "random_context"))
    )
    preferred, _ = pairs.build(
        rows, chosen, rejected, tokenizer, negative="random_context", max_length=recipe.max_length
    )
    sides = (pairs.texts(preferred, side) for side in ("chosen", "rejected"))
    reference = np.stack([plain_scores(model, tokenizer, preferred["prompt"], side) for side in sides], 1)
    return training.train(name, preferred, reference, folder=folder, **vars(recipe))


def plain_responses(model, tokenizer, conversations, sampling):
    """Texts by transformers' `generate`, all conversations in one padded batch."""
    model.get_decoder().config._attn_implementation = "sdpa"  # what transformers takes by itself
    ids = [prompts.prompt_ids(tokenizer, conversation) for conversation in conversations]
    written = generation.generate(model, ids, sampling, {tokenizer.eos_token_id})
    return [generation.cut_to_sentence(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens, _ in written]


def plain_scores(model, tokenizer, conversations, texts):
    """`scoring.log_probabilities`, one sequence after another."""
    both = list(zip(conversations, texts, strict=True))
    return one_by_one(
        model, [(prompts.prompt_ids(tokenizer, c), prompts.completion_ids(tokenizer, c, t)) for c, t in both]
    )
