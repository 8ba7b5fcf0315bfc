"""What the numbers of a `training.Recipe` are called by TRL, transformers, PEFT and bitsandbytes."""

from mipo_nb.base.errors import UserError, did_you_mean

ALL = "all-linear"  # PEFT's name for all linear layers but the head


def lora(rank=16, target=ALL):
    """LoRA scaled by alpha = 2 x rank (Hu et al. 2021), on all linear layers as in QLoRA (2305.14314), or on those whose
    names `target` lists, as in "q_proj,v_proj"."""
    from peft import LoraConfig

    return LoraConfig(**lora_numbers(rank, target))


def lora_numbers(rank, target):
    """What PEFT calls the numbers of `lora`."""
    names = ALL if target == ALL else [name.strip() for name in target.split(",")]
    numbers = {"r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0}
    return {**numbers, "target_modules": names, "task_type": "CAUSAL_LM"}


def nf4(dtype="bfloat16"):
    """The quantization of QLoRA (Dettmers et al. 2023): 4-bit NormalFloat weights, doubly quantized constants."""
    import torch
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except Exception as e:
        raise UserError(f"4-bit weights need bitsandbytes, which does not load here ({e}); set four_bit=False.") from e
    compute = getattr(torch, dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def outline(config):
    """The model of a configuration with all its layers, none of whose weights are allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def without_dropout(model):
    """`model`, none of whose layers drops or jitters anything in training: a policy must be what was sampled from, and what
    its reference is. TRL switches off layers of the class Dropout alone; many models call the function, by a number of
    their own or of their configuration."""
    import torch

    for holder in (*model.modules(), model.config):
        if isinstance(holder, torch.nn.Dropout):
            holder.p = 0.0
        for name, value in vars(holder).items():
            if ("drop" in name or "jitter" in name) and isinstance(value, float):
                setattr(holder, name, 0.0)
    return model


def require_layers(recipe, model):
    """Raise `UserError` where a recipe wants an adapter on a layer that a model, or the model of a configuration, has not, or
    on its head."""
    if not recipe.rank or recipe.lora_target == ALL:
        return
    model = model if hasattr(model, "named_modules") else outline(model)
    head = model.get_output_embeddings()
    able = [name for name, layer in model.named_modules() if getattr(getattr(layer, "weight", None), "ndim", 0) == 2]
    for target in lora_numbers(recipe.rank, recipe.lora_target)["target_modules"]:
        if any(layer is head and f".{name}".endswith(f".{target}") for name, layer in model.named_modules()):
            raise UserError(
                f"'{target}' is the head, whose weights the losses read as they are; put adapters on other layers."
            )
        if not any(f".{name}".endswith(f".{target}") for name in able):
            known = {name.rpartition(".")[2] for name in able}
            raise UserError(f"This model has no layer '{target}' to put an adapter on; {did_you_mean(target, known)}")


def trainer_arguments(folder, recipe):
    """What every training tells its trainer; after the paper's code: cosine, Adam betas (0.9, 0.95), clip 1.0."""
    return {
        "output_dir": str(folder),
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulate,
        "gradient_checkpointing": recipe.device == "cuda" if recipe.checkpointing is None else recipe.checkpointing,
        "lr_scheduler_type": "cosine_with_min_lr" if recipe.final_rate else "cosine",
        "lr_scheduler_kwargs": {"min_lr_rate": recipe.final_rate} if recipe.final_rate else None,
        "warmup_steps": recipe.warmup,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": recipe.dtype == "bfloat16",
        "fp16": recipe.dtype == "float16",
        "use_cpu": recipe.device == "cpu",
        "dataloader_pin_memory": recipe.device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",  # see `checkpoints`
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }


def dpo_numbers(recipe):
    """What DPO adds to `trainer_arguments`. The reference is scored before training, and not held beside the policy. Nothing
    is added to the loss for how a mixture of experts is used, as TRL would."""
    return {
        "beta": recipe.beta,
        "loss_type": recipe.loss,
        "num_train_epochs": recipe.epochs,
        "max_length": recipe.max_length,
        "precompute_ref_log_probs": True,
        "router_aux_loss_coef": 0.0,
        "eval_strategy": "steps" if recipe.evaluate_every else "no",
        "eval_steps": recipe.evaluate_every or None,
    }


def reports(to):
    """`to` as transformers' `report_to` takes it. Raises `UserError` for what it does not know or what is not installed."""
    from transformers.integrations import get_available_reporting_integrations as available

    if to != "none" and to not in available():
        ready = ", ".join(sorted({"none", *available()}))
        raise UserError(f"A training cannot report to '{to}' here; install it, or use one of {ready}.")
    return [] if to == "none" else [to]
