"""An adapter made ready for use elsewhere: merged into its base, as a folder with a card, for Ollama, for vLLM."""

import copy
import json
import os
import re
import shlex
import shutil
from pathlib import Path

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.command import upload
from mipo_nb.command.card import card, facts_of, origin
from mipo_nb.engine import checkpoints
from mipo_nb.lab.settings import located

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank takes
TARGETS = ("merged", "adapter", "ollama", "vllm")
DTYPES = ("bfloat16", "float16", "float32")  # from the coarsest to the finest
PROBES = (
    "How do I get better at cooking?", "What should I do with a free afternoon?", "Give me a tip for a good night's sleep.",
)  # fmt: skip


def export(adapter, target, output, *, model=None, dtype="auto", facts=(), push_to=None):
    """Write what `target` needs to `output`, a folder that is new or empty. Returns lines to show: what lies there, what
    merging lost, the next command.

    "merged": base and adapter in one, loaded again and compared; in `dtype`, or for "auto" in the coarsest of `DTYPES` whose
    rounding moves log-probabilities at most half as far as training did. "adapter": the adapter with its card. "ollama":
    "merged" with a Modelfile. "vllm": "adapter" with the command that serves it. `model` names the base where the adapter
    does not, `facts` are lines for the card. `push_to`, an id on the hub, has the folder uploaded to a private repository.

    Raises `UserError` for a folder without an adapter or with half of one, an output that has something in it or cannot be
    written, a base that is not the adapter's, and as `models.load` does; nothing is left half-written.
    """
    require_known("target", target, TARGETS)
    require_known("dtype", dtype, ("auto", *DTYPES))
    adapter, output = Path(adapter).expanduser(), Path(output).expanduser().resolve()
    if (adapter / "adapter" / "adapter_config.json").is_file():  # the folder that `mipo-nb train` made around it
        adapter = adapter / "adapter"
    config, model = _config_of(adapter), located("MODEL", model, os.path.isdir)
    base = _base_of(adapter, config, model)
    _require_whole(adapter)
    if push_to is not None:
        upload.require_id(push_to)
    if target == "vllm" and base.startswith("embedded:"):
        raise UserError(f"vLLM cannot fetch {base}, which travels in a wheel; use --to merged, and serve that folder.")
    _require_room(output)
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write = _merged if target in ("merged", "ollama") else _adapter
        lines = write(adapter, unfinished, base, dtype)
        if not (unfinished / "README.md").exists():
            told = {"facts": facts or facts_of(adapter / "README.md"), "weights": checkpoints.trained_on(adapter)}
            (unfinished / "README.md").write_text(card(base, merged=write is _merged, **told), encoding="utf-8")
        lines += _for_a_server(target, unfinished, output, base, config)
        if output.is_dir():  # empty, and perhaps where a shell stands or a disk is mounted
            for file in sorted(unfinished.iterdir()):
                shutil.move(file, output / file.name)
        else:
            unfinished.rename(output)
    except OSError as e:  # a folder below a file, a full disk
        raise UserError(f"{output} could not be written ({e.strerror or e}); name another folder.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    uploaded = [upload.upload(output, push_to)] if push_to else []
    return [f"{target}: {output} ({_megabytes(output):.0f} MB)", *lines, *uploaded]


def _for_a_server(target, folder, output, base, config):
    """Write what Ollama or vLLM needs into `folder`, which will be `output`; the line that says how to serve it."""
    if target == "ollama":
        (folder / "Modelfile").write_text("FROM .\nPARAMETER temperature 0.7\nPARAMETER top_p 0.9\n")
        settings = json.loads(
            (folder / "tokenizer_config.json").read_text(encoding="utf-8")
        )  # where Ollama looks for it
        settings["chat_template"] = (folder / checkpoints.TEMPLATE).read_text(encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        return [f"To serve it: cd {shlex.quote(str(output))} && ollama create my-model && ollama run my-model"]
    if target == "vllm":
        folder_of_base = Path(base).expanduser()
        name, _, revision = (str(folder_of_base.resolve()), "", "") if folder_of_base.is_dir() else base.partition("@")
        if not revision and not folder_of_base.is_dir():  # what it was trained on, where that was a commit
            revision = next(iter(_COMMIT.findall(checkpoints.trained_on(folder))), "")
        rank = next((r for r in _RANKS if r >= config["r"]), config["r"])
        template = (
            ["--chat-template", str(output / checkpoints.TEMPLATE)] if (folder / checkpoints.TEMPLATE).is_file() else []
        )
        words = ["vllm", "serve", name, *(["--revision", revision] if revision else []), "--enable-lora"]
        command = shlex.join([*words, "--max-lora-rank", str(rank), "--lora-modules", f"mine={output}", *template])
        (folder / "serve.sh").write_text(f"#!/bin/sh\n{command}\n")
        return [f"To serve it: {command}"]
    return []


def _config_of(adapter):
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        if not isinstance(config["base_model_name_or_path"], str | None) or not isinstance(config["r"], int):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"There is no adapter in {adapter}; give the folder that training wrote.") from None
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UserError(f"The adapter in {adapter} has no adapter_model.safetensors; export a whole one.")
    return config


def _base_of(adapter, config, given):
    """The name of an adapter's base: the one given, else its own. Raises `UserError` where these are two models."""
    own = config["base_model_name_or_path"]
    if not (given or own):
        raise UserError(f"The adapter in {adapter} does not name its base; give it by --model.")
    if not given and not own.startswith("embedded:") and "/" not in own and not Path(own).is_dir():
        raise UserError(
            f"The adapter in {adapter} was trained from a folder called {own} and does not know where it lies; give it by --model."
        )
    checkpoints.require_base(adapter, given or own)
    embedded = given and (own or "").startswith("embedded:") and not Path(given).expanduser().is_dir()
    if embedded and given.partition("@")[0] not in (own, origin(own)[0]):
        raise UserError(f"The adapter in {adapter} was trained from {own}, not from {given}; leave --model out.")
    return given or own


def _require_room(output):
    """Raise `UserError` where a folder cannot be made, or has something in it."""
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} has something in it; name a folder that is new or empty.")
    except OSError as e:  # a name that is too long
        raise UserError(f"{output} could not be written ({e.strerror}); name another folder.") from None


def _require_whole(adapter):
    """Raise `UserError` where the weights of an adapter cannot be read to their end."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / "adapter_model.safetensors", "numpy") as weights:
            if not weights.keys():
                raise SafetensorError("it holds no weights")
    except (SafetensorError, OSError) as e:
        raise UserError(
            f"The adapter in {adapter} has no whole adapter_model.safetensors ({e}); train it again."
        ) from None


def _megabytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _adapter(adapter, folder, base, dtype):
    """Copy the adapter; loaded again it is the same file."""
    shutil.copytree(adapter, folder)
    return []


def _merged(adapter, folder, base, dtype):
    """Save base and adapter as one model in `dtype`, load it again, and say what of the adapter's effect is left, here and
    in the other types. An adapter that was trained on 4-bit weights is added to the base's own, not to the rounded ones."""
    import torch

    from mipo_nb import models

    if getattr(models.load_config(base), "quantization_config", None):
        raise UserError(
            f"{base} holds quantized weights, to which nothing can be added; give the base before it was quantized by --model."
        )
    exact, tokenizer = models.load(base, dtype="float32", adapter=adapter)
    if (trained_with := adapter / checkpoints.TEMPLATE).is_file():  # with the options that its training was given
        tokenizer.chat_template = trained_with.read_text(encoding="utf-8")
    before, after = _log_probabilities(exact, tokenizer, adapter_off=True), _log_probabilities(exact, tokenizer)
    merged = exact.merge_and_unload()
    effect = (before - after).abs().mean().item()
    lost = {kind: _log_probabilities(_rounded(merged, getattr(torch, kind)), tokenizer) for kind in DTYPES}
    if dtype == "auto":
        kept = (kind for kind in DTYPES if (lost[kind] - after).abs().mean().item() <= effect / 2)
        dtype = next(kept, "float32")
    merged.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del merged, exact
    lost[dtype] = _log_probabilities(models.load(str(folder), dtype=dtype)[0], tokenizer)
    gone = (lost[dtype] - after).abs().mean().item()
    told = ""
    if gone > effect / 2 > 0:
        told = f" Rounding moved it {gone / effect:.0%} as far as training did: take --dtype float32, or serve the adapter as it is."
    away = {kind: f"{(found - after).abs().mean().item():.3f}" for kind, found in lost.items()}
    others = " and ".join(f"{away[kind]} in {kind}" for kind in DTYPES if kind != dtype)
    return [
        f"The adapter moves a token's log-probability by {effect:.3f} nats on average; the "
        f"merged {dtype} model, loaded again, is {away[dtype]} nats away from the adapter on float32 weights ({others})."
        + told
    ]


def _rounded(model, dtype):
    """A copy of a float32 model in another type, without a second one in float32 on the way; itself where that is its own."""
    import torch

    if dtype == model.dtype:
        return model
    weights = {id(one): torch.nn.Parameter(one.detach().to(dtype), requires_grad=False) for one in model.parameters()}
    buffers = {id(one): one.to(dtype) for one in model.buffers() if one.is_floating_point()}
    return copy.deepcopy(model, weights | buffers)


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
