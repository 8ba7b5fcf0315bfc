"""An adapter made ready for use elsewhere: merged into its base, as a folder with a card, for Ollama, for vLLM."""

import json
import shutil
from pathlib import Path

from mipo_nb.base.errors import UserError, require_known

TARGETS = ("merged", "adapter", "ollama", "vllm")
DTYPES = ("bfloat16", "float16", "float32")
PROBES = (
    "How do I get better at cooking?", "What should I do with a free afternoon?", "Give me a tip for a good night's sleep.",
)  # fmt: skip


def export(adapter, target, output, *, model=None, dtype="bfloat16"):
    """Write what `target` needs to `output`, a folder that is new or empty. Returns lines to show: what lies there, what
    merging lost, the next command.

    "merged": base and adapter in one, in `dtype`, loaded again and compared. "adapter": the adapter with its card.
    "ollama": "merged" with a Modelfile. "vllm": "adapter" with the command that serves it. `model` names the base where
    the adapter does not. Raises `UserError` for a folder without an adapter, one that has something in it, a base that
    is not the adapter's, and as `models.load` does; nothing is left half-written.
    """
    require_known("target", target, TARGETS)
    require_known("dtype", dtype, DTYPES)
    adapter, output = Path(adapter).expanduser(), Path(output).expanduser()
    config = _config_of(adapter)
    base = model or config.get("base_model_name_or_path")
    if not base:
        raise UserError(f"The adapter in {adapter} does not name its base; give it by --model.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} has something in it; name a folder that is new or empty.")
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write = _merged if target in ("merged", "ollama") else _adapter
        lines = write(adapter, unfinished, base, dtype)
        if target == "ollama":
            (unfinished / "Modelfile").write_text("FROM .\nPARAMETER temperature 0.7\nPARAMETER top_p 0.9\n")
            lines.append(f"To serve it: cd {output} && ollama create my-model && ollama run my-model")
        if target == "vllm":
            command = f"vllm serve {base} --enable-lora --max-lora-rank {config['r']} --lora-modules mine={output}"
            (unfinished / "serve.sh").write_text(f"#!/bin/sh\n{command}\n")
            lines.append(f"To serve it: {command}")
        shutil.rmtree(output, ignore_errors=True)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [f"{target}: {output} ({_megabytes(output):.0f} MB)", *lines]


def _config_of(adapter):
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"There is no adapter in {adapter}; give the folder that training wrote.") from None
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UserError(f"The adapter in {adapter} has no adapter_model.safetensors; export a whole one.")
    return config


def _megabytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _adapter(adapter, folder, base, dtype):
    """Copy the adapter with a card that names its base; loaded again it is the same file."""
    shutil.copytree(adapter, folder)
    card = folder / "README.md"
    if not card.exists():
        card.write_text(
            f"---\nlibrary_name: peft\nbase_model: {base}\ntags: [mipo, dpo, lora]\n---\n\n# LoRA adapter for {base}\n"
        )
    return []


def _merged(adapter, folder, base, dtype):
    """Save base and adapter as one model in `dtype`, load it again, and say what of the adapter's effect is left."""
    import torch

    from mipo_nb import models

    exact, tokenizer = models.load(base, dtype="float32", adapter=adapter)
    before, after = _log_probabilities(exact, tokenizer, adapter_off=True), _log_probabilities(exact, tokenizer)
    merged = exact.merge_and_unload().to(getattr(torch, dtype))
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del merged, exact
    again, _ = models.load(str(folder), dtype=dtype)
    found = _log_probabilities(again, tokenizer)
    moved, lost = (after - before).abs().mean().item(), (found - after).abs().mean().item()
    return [
        f"The adapter moves a token's log-probability by {moved:.3f} nats on average; the merged {dtype} model, loaded "
        f"again, is {lost:.3f} nats away from the adapter on float32 weights."
    ]


def _log_probabilities(model, tokenizer, adapter_off=False):
    """Log-probs [tokens] of fixed texts, float32: what is compared before and after merging."""
    import contextlib

    import torch

    scores = []
    with torch.inference_mode(), model.disable_adapter() if adapter_off else contextlib.nullcontext():
        for text in PROBES:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            logits = model(ids).logits[0, :-1].float().log_softmax(-1)
            scores.append(logits.gather(-1, ids[0, 1:, None])[:, 0])
    return torch.cat(scores)
