"""DPO with LoRA or QLoRA, through TRL: arguments, reference log-probs, training, and the memory it takes."""

import gc
import math
import shutil
from pathlib import Path

from mipo_nb import checkpoints, models
from mipo_nb.runs import report_progress
from mipo_nb.settings import UserError

ROUTES = ("shared_prefix", "trl")


def lora(rank=16):
    """LoRA on all linear layers, scaled by alpha = 2 x rank (Hu et al. 2021; all layers as in QLoRA, 2305.14314)."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def trainer_arguments(folder, *, learning_rate, batch_size, accumulate=1, seed, device, dtype):
    """What every training tells its trainer; after the paper's code: cosine, Adam betas (0.9, 0.95), clip 1.0."""
    return {
        "output_dir": str(folder),
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "gradient_accumulation_steps": accumulate,
        "gradient_checkpointing": device == "cuda",
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",  # see `checkpoints`
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
    }


def dpo_arguments(folder, *, beta, epochs, max_length, loss="sigmoid", **common):
    """A `trl.DPOConfig` of `trainer_arguments(folder, **common)`. `loss` is a loss type of TRL: "sigmoid" is DPO's, on
    summed log-probs, without dropout."""
    from trl import DPOConfig

    return DPOConfig(
        **trainer_arguments(folder, **common),
        beta=beta,
        loss_type=loss,
        num_train_epochs=epochs,
        max_length=max_length,
        precompute_ref_log_probs=True,
    )


def reference_log_probabilities(
    model, tokenizer, pairs, *, batch_size=16, folder=None, description="reference log-probs"
):
    """Array [pairs, 2]: log pi_ref of chosen and rejected, summed over their tokens, in nats.

    `model` is the untrained model (or a PEFT model with its adapter off). Computed once: beta, learning rate and seed
    do not change it.
    """
    from mipo_nb.pairs import texts
    from mipo_nb.scoring import log_probabilities

    scored = log_probabilities(
        model,
        tokenizer,
        [*pairs["prompt"]] * 2,
        texts(pairs, "chosen") + texts(pairs, "rejected"),
        batch_size=2 * batch_size,
        folder=folder,
        description=description,
    )
    return scored.reshape(2, -1).T


def tokenize(pairs, tokenizer):
    """[(prompt ids, chosen ids, rejected ids)], the tokens TRL would use."""
    from mipo_nb import prompts

    return [
        (
            prompts.prompt_ids(tokenizer, x),
            *(prompts.completion_ids(tokenizer, x, y[-1]["content"]) for y in (plus, minus)),
        )
        for x, plus, minus in zip(pairs["prompt"], pairs["chosen"], pairs["rejected"], strict=True)
    ]


def train(
    model_name,
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
    loss="sigmoid",
    route="shared_prefix",
    folder,
):
    """Train an adapter on pairs. Returns what `carry_through` returns.

    `reference` is the array of `reference_log_probabilities`. `loss` is a loss type of TRL's `DPOConfig`: "sigmoid"
    (DPO), "ipo" (per token, see `objectives.ipo_loss`), "sft" (the chosen side only), and others. `route` is
    "shared_prefix" or "trl" (the same numbers on TRL's own forward, slower). Raises `UserError` for fewer pairs than a
    batch, or an unknown route.
    """
    require_a_batch(pairs, batch_size * accumulate)
    if route not in ROUTES:
        raise UserError(f"Unknown route '{route}'; use one of {', '.join(ROUTES)}.")
    model, tokenizer = models.load(model_name, device=device, dtype=dtype, four_bit=four_bit)
    arguments = dpo_arguments(
        Path(folder) / "checkpoints",
        learning_rate=learning_rate,
        beta=beta,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        max_length=max_length,
        seed=seed,
        device=device,
        dtype=dtype,
        loss=loss,
    )
    data = pairs.add_column("ref_chosen_logps", reference[:, 0].tolist())
    data = data.add_column("ref_rejected_logps", reference[:, 1].tolist())
    from mipo_nb import shared_prefix

    trainers = {"shared_prefix": shared_prefix.SharedPrefixDPOTrainer, "trl": shared_prefix.StoredReferenceDPOTrainer}
    trainer = trainers[route](
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, peft_config=lora(rank)
    )
    del model  # the trainer alone holds it
    return carry_through(trainer, Path(folder))


def carry_through(trainer, folder):
    """Train to the end, on from the last checkpoint in `folder` if there is one, and save the adapter there.

    Returns {"adapter": path, "log": one dictionary of metrics per step, "held_out": one per evaluation, "initial_adapter":
    hash before training}. Empties `trainer`, whatever `transformers.Trainer` it is.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress_callback())
    trainer.add_callback(checkpoints.saving())
    initial = models.fingerprint(trainer.model)[-1]
    trainer.train(resume_from_checkpoint=checkpoints.last(folder / "checkpoints"))
    trainer.model.save_pretrained(folder / "adapter")
    history = trainer.state.log_history
    log, held_out = ([entry for entry in history if key in entry] for key in ("loss", "eval_runtime"))
    trainer.accelerator.free_memory()
    # Trainer and model hold one another: without a collection every training would leave its memory behind.
    vars(trainer).clear()
    gc.collect()
    return {"adapter": folder / "adapter", "log": log, "held_out": held_out, "initial_adapter": initial}


def require_a_batch(pairs, size):
    """Raise `UserError` for fewer pairs than one batch."""
    if len(pairs) < size:
        raise UserError(f"{len(pairs)} pairs are fewer than one batch of {size}; add pairs or lower batch_size.")


def _progress_callback():
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            report_progress("training", state.global_step, state.max_steps)

    return Progress()


def keep_adapter(adapter, folder, manifest, pairs):
    """Copy an adapter to `folder` with a model card that says what it is and where its numbers come from."""
    folder = Path(folder)
    made = folder.with_name(f".{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(adapter, made)
    numbers = manifest["numbers"]
    facts = {
        k: numbers[k] for k in ("negative", "learning_rate", "beta", "epochs", "batch_size", "lora_rank", "four_bit")
    }
    lines = "\n".join(
        f"- {k.replace('_', ' ')}: {v}" for k, v in {"pairs": pairs, "seed": manifest["seed"], **facts}.items()
    )
    card = (
        f"---\nlibrary_name: peft\ntags: [mipo, dpo, lora]\n---\n\n# MIPO adapter for {manifest['model']}\n\n"
        f"Trained by Mutual Information Preference Optimization (arXiv 2603.19294) on responses of the base model itself: "
        f"no labels, no judge.\n\n{lines}\n\n"
        "For study. It follows the style of invented users and keeps every fault of its base model; text health has to be "
        "measured beside any gain.\n"
    )
    (made / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    made.replace(folder)


def memory_budget(config, *, four_bit, dtype, rank, pairs_per_batch, prompt_tokens, completion_tokens, device="cuda"):
    """Bytes by part that one training step needs at its peak: a table worked out before anything is loaded.

    `completion_tokens` is the length of one response; a pair has two after one prompt.
    """
    from mipo_nb.packing import HeadLogProbabilities

    h, layers, ff, vocab = config.hidden_size, config.num_hidden_layers, config.intermediate_size, config.vocab_size
    heads, kv = config.num_attention_heads, config.num_key_value_heads * (h // config.num_attention_heads)
    size = 2 if dtype in ("bfloat16", "float16") else 4
    linear = layers * (2 * h * h + 2 * h * kv + 3 * h * ff)
    adapter = layers * rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + ff))
    tokens = pairs_per_batch * (prompt_tokens + 2 * completion_tokens)
    # Kept for the backward pass per token and layer: two norms with their float32 middle, the inputs of each product,
    # query, keys and values, both feed-forward branches, and what every head looks at.
    kept = 16 * h + 4 * kv + 4 * ff + heads * (prompt_tokens + completion_tokens)
    # Logits exist for a few tokens at a time, in the model's type and in float32; kept is one gradient per scored token.
    logits = HeadLogProbabilities.piece * vocab * 2 * (size + 4) + 2 * pairs_per_batch * completion_tokens * h * size
    tied = getattr(config, "tie_word_embeddings", True)
    budget = {
        "weights": math.ceil(linear * (0.56 if four_bit else size)) + (1 if tied else 2) * vocab * h * size,
        "adapter, gradient, Adam": adapter * 4 * 4,
        "activations": layers * tokens * kept * size,
        "logits": logits,
    }
    if device == "cpu" and not four_bit:  # see `linear`: once for the way forward, once for the way back
        budget["weights, laid out twice"] = 2 * (linear + vocab * h) * size
    return budget
