"""DPO through TRL, of an adapter (LoRA, QLoRA) or of all weights: arguments, reference log-probs, training."""

import gc
import shutil
from pathlib import Path

from mipo_nb import checkpoints, models
from mipo_nb.costs import memory_budget as memory_budget  # where notebooks look for it
from mipo_nb.runs import report_progress
from mipo_nb.settings import UserError

ROUTES = ("shared_prefix", "trl")


def lora(rank=16):
    """LoRA on all linear layers, scaled by alpha = 2 x rank (Hu et al. 2021; all layers as in QLoRA, 2305.14314)."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def trainer_arguments(
    folder, *, learning_rate, batch_size, accumulate=1, seed, device, dtype, warmup=0.1, final_rate=0.0
):
    """What every training tells its trainer; after the paper's code: cosine, Adam betas (0.9, 0.95), clip 1.0.

    `warmup` is the share of the steps in which the learning rate rises, `final_rate` the share of it that is left at the
    end; the paper's code has 0.03 and 0.1.
    """
    return {
        "output_dir": str(folder),
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "gradient_accumulation_steps": accumulate,
        "gradient_checkpointing": device == "cuda",
        "lr_scheduler_type": "cosine_with_min_lr" if final_rate else "cosine",
        "lr_scheduler_kwargs": {"min_lr_rate": final_rate} if final_rate else None,
        "warmup_steps": warmup,
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

    return DPOConfig(**trainer_arguments(folder, **common), **dpo_numbers(beta, epochs, max_length, loss))


def dpo_numbers(beta, epochs, max_length, loss="sigmoid"):
    """What DPO adds to `trainer_arguments`. The reference is scored before training, and not held beside the policy."""
    return {
        "beta": beta,
        "loss_type": loss,
        "num_train_epochs": epochs,
        "max_length": max_length,
        "precompute_ref_log_probs": True,
    }


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
    warmup=0.1,
    final_rate=0.0,
    folder,
):
    """Train an adapter, or all weights, on pairs. Returns what `carry_through` returns.

    `reference` is the array of `reference_log_probabilities`; where None, the trainer computes it at the beginning.
    `loss` is a loss type of TRL's `DPOConfig`: "sigmoid" (DPO), "ipo" (per token, see `objectives.ipo_loss`), "sft" (the
    chosen side only), and others. `route` is "shared_prefix" or "trl" (the same numbers on TRL's own forward, slower).
    `warmup` and `final_rate` are those of `trainer_arguments`.

    `rank=0` trains all weights, as the paper's code does. Weights, gradient and Adam are then float32 and `dtype` is that
    of the products: a step of 5e-7 is lost in a bfloat16 weight, whose neighbours are half a per cent of it away. Leave
    `reference` None, so that it comes from the same forward. `models.load(name, adapter=...)` takes the whole model that
    is saved.

    Raises `UserError` for fewer pairs than a batch, an unknown route, or all weights in 4 bits.
    """
    require_a_batch(pairs, batch_size * accumulate)
    if route not in ROUTES:
        raise UserError(f"Unknown route '{route}'; use one of {', '.join(ROUTES)}.")
    if four_bit and not rank:
        raise UserError("4-bit weights cannot be trained themselves; set four_bit = false, or a lora_rank above 0.")
    held = dtype if rank else "float32"
    model, tokenizer = models.load(model_name, device=device, dtype=held, four_bit=four_bit)
    arguments = dpo_arguments(
        Path(folder) / "checkpoints", learning_rate=learning_rate, beta=beta, epochs=epochs, batch_size=batch_size,
        accumulate=accumulate, max_length=max_length, seed=seed, device=device, dtype=dtype, loss=loss, warmup=warmup,
        final_rate=final_rate,
    )  # fmt: skip
    if reference is not None:
        pairs = pairs.add_column("ref_chosen_logps", reference[:, 0].tolist())
        pairs = pairs.add_column("ref_rejected_logps", reference[:, 1].tolist())
    from mipo_nb import shared_prefix

    trainers = {"shared_prefix": shared_prefix.SharedPrefixDPOTrainer, "trl": shared_prefix.StoredReferenceDPOTrainer}
    trainer = trainers[route](
        model=model,
        args=arguments,
        train_dataset=pairs,
        processing_class=tokenizer,
        peft_config=lora(rank) if rank else None,
    )
    del model  # the trainer alone holds it
    result = carry_through(trainer, Path(folder))
    if not rank:
        tokenizer.save_pretrained(result["adapter"])  # a folder that stands alone
        shutil.rmtree(Path(folder) / "checkpoints", ignore_errors=True)  # three times as large as the model
    return result


def carry_through(trainer, folder):
    """Train to the end, on from the last checkpoint in `folder` if there is one, and save what was trained there.

    Returns {"adapter": path of the adapter, or of the whole model where there is none, "log": one dictionary of metrics
    per step, "held_out": one per evaluation, "initial_adapter": hash before training}. Empties `trainer`, whatever `transformers.Trainer` it is.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress_callback())
    trainer.add_callback(checkpoints.saving())
    initial = models.fingerprint(trainer.model)[-1]
    trainer.train(resume_from_checkpoint=checkpoints.last(folder / "checkpoints"))
    made = folder / ("adapter" if hasattr(trainer.model, "peft_config") else "model")
    trainer.model.save_pretrained(made)
    history = trainer.state.log_history
    log, held_out = ([entry for entry in history if key in entry] for key in ("loss", "eval_runtime"))
    trainer.accelerator.free_memory()
    # Trainer and model hold one another: without a collection every training would leave its memory behind.
    vars(trainer).clear()
    gc.collect()
    return {"adapter": made, "log": log, "held_out": held_out, "initial_adapter": initial}


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
