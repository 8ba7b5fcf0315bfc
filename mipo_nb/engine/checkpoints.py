"""How a training is carried through (checkpoints, from which a killed one goes on), and what identifies the
weights and adapters that a model holds."""

import copy
import gc
import hashlib
import json
import math
import shutil
from pathlib import Path

from mipo_nb.base.embedded import EMBEDDED, cache_path
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash, digest, tensors_hash, write_atomically
from mipo_nb.engine import callbacks

THINKING = "completions/thinking"  # in a log: how many responses of a step think aloud
BASE = "base_revision.txt"  # of an adapter: the commit or the hash of the weights that it was trained on
TEMPLATE = "chat_template.jinja"  # where transformers too keeps it
FEW = 20  # steps: where there are no more, none is given to a warm-up, whose rate begins at 0
_PACKED = {}  # {hash of 4-bit weights as they were loaded: as they lie after their first use}


def last(folder):
    """The newest whole checkpoint in a folder, as text, or None; removes those that are not whole: the trainer's state
    is the last file of a checkpoint to be written, and older checkpoints are removed after it."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1])):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return None


def carry_through(trainer, folder):
    """Train to the end, on from the last checkpoint in `folder` if there is one, and save what was trained there.

    Returns {"adapter": path of the adapter, or of the whole model where there is none, "log": one dictionary of metrics
    per step, "held_out": one per evaluation, "initial_adapter" and "final_adapter": hashes before and after training}, and
    "thinking" where the trainer samples: how many responses it left out since they think aloud. Empties `trainer`, whatever `transformers.Trainer` it is.
    """
    from transformers import PrinterCallback

    hold_in_float32(trainer.model)
    if _planned_steps(trainer) <= FEW:
        trainer.args.warmup_steps = 0
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callbacks.reporting())
    trainer.add_callback(callbacks.saving())
    initial = adapter_hash(trainer.model)
    trainer.train(resume_from_checkpoint=last(folder / "checkpoints"))
    final = adapter_hash(trainer.model)
    trained = folder / ("adapter" if hasattr(trainer.model, "peft_config") else "model")
    save(trainer.model, trained, trainer.processing_class)
    for checkpoint in folder.glob("checkpoints/checkpoint-*"):
        name_base(checkpoint)
    history = trainer.state.log_history
    log, held_out = ([entry for entry in history if key in entry] for key in ("loss", "eval_runtime"))
    trainer.accelerator.free_memory()
    # Trainer and model hold one another: without a collection every training would leave its memory behind.
    vars(trainer).clear()
    gc.collect()
    hashes = {"initial_adapter": initial, "final_adapter": final}
    return {"adapter": trained, "log": log, "held_out": held_out, **hashes, **_thinking(log)}


def _thinking(log):
    """{"thinking": responses that were left out in all steps of a log}, in one line too; {} where none were sampled."""
    counts = [entry[THINKING] for entry in log if THINKING in entry]
    if total := round(sum(counts)):
        print(f"Responses that think aloud, from which nothing was learned: {total}.", flush=True)
    return {"thinking": total} if counts else {}


def save(policy, folder, tokenizer):
    """Save what was trained, an adapter or a whole model, and the chat template that it was trained with: options that a
    run gave are in it (`templates.settle`), and not in the base's own."""
    policy.save_pretrained(folder)
    name_base(folder)
    if template := getattr(tokenizer, "chat_template", None):
        write_atomically(folder / TEMPLATE, template)


def hold_in_float32(policy):
    """Cast the weights that learn to float32, whatever the others are held in.

    TRL holds an adapter on 4-bit weights in bf16: a small step is then lost, and on cards with fp16 the first one fails.
    """
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _planned_steps(trainer):
    args, batches = trainer.args, len(trainer.get_train_dataloader())
    steps = math.ceil(args.num_train_epochs * -(-batches // args.gradient_accumulation_steps))
    return args.max_steps if args.max_steps > 0 else steps


def full_steps(log, learning_rate):
    """How many steps at the full `learning_rate` a training's log amounts to: the dose in steps."""
    return sum(entry["learning_rate"] for entry in log) / learning_rate


def base_name(name):
    """What an adapter calls the model `name` (or path) that it was trained from: as `models.load` takes it, a folder by its
    own name, without where it lies."""
    path = Path(name).expanduser()
    if embedded := [key for key in EMBEDDED if cache_path(key).name == path.name]:
        return f"embedded:{embedded[0]}"
    is_folder = name and (path.is_absolute() or name.startswith(".") or path.is_dir())
    return path.resolve().name if is_folder else name.partition("@")[0]


def name_base(folder):
    """Have the adapter in a folder record its base by `base_name`: PEFT wrote where it lay, and that in an empty card too."""
    file = folder / "adapter_config.json"
    if file.exists():
        config = json.loads(file.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base_name(config["base_model_name_or_path"] or "") or None
        write_atomically(file, json.dumps(config, indent=2, sort_keys=True))
        (folder / "README.md").unlink(missing_ok=True)


def require_base(adapter, name):
    """Raise `UserError` for the folder of an adapter that was trained from another model than `name`, as far as names tell
    it: those of two hub ids or two embedded models. A folder may have another name by now."""
    config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    base, given = base_name(config.get("base_model_name_or_path") or ""), base_name(name)
    comparable = ("/" in base and "/" in given) or (base.startswith("embedded:") and given.startswith("embedded:"))
    if comparable and base.casefold() != given.casefold():
        raise UserError(f"The adapter in {adapter} was trained from {base}, not from {given}; set MODEL to its base.")


def trained_on(adapter):
    """What identifies the base's weights that an adapter was trained on, as `revision_of`; "" where it does not say."""
    file = Path(adapter) / BASE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def revision_of(model):
    """What identifies the weights that were loaded: the commit on the hub, or a hash of a folder's safetensors."""
    return getattr(model.config, "_commit_hash", None) or content_hash(weight_files(model))


def weight_files(model):
    """The files of weights in the folder that a model was loaded from."""
    return sorted(Path(model.config._name_or_path).glob("*.safetensors"))


def require_weights(adapter, name, model):
    """Raise `UserError` for the folder of an adapter that was trained on other weights than those that `model` was loaded
    with as `name`. A commit and a hash of files cannot be compared, and an embedded model is the hub's, rounded: an adapter
    may go onto either."""
    config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    embedded = str(config.get("base_model_name_or_path")).startswith("embedded:")
    known = trained_on(adapter)
    if known and not embedded and len(revision := revision_of(model)) == len(known) and known != revision:
        raise UserError(
            f"The adapter in {adapter} was trained from another model, or another revision, than {name}; give its own, or remove "
            f"{BASE} from it if you know that the weights are the same."
        )


def attach(model, adapter, name):
    """`model`, loaded as `name`, with the LoRA adapter of a folder. Raises `UserError` where that does not belong or fit."""
    from peft import PeftModel

    try:
        require_base(adapter, name)
        require_weights(adapter, name, model)
        return PeftModel.from_pretrained(model, adapter)
    except (AttributeError, TypeError, ValueError, RuntimeError) as e:
        raise UserError(f"The adapter in {adapter} does not fit '{name}'; set MODEL to its own base.") from e


def weights_hash(model):
    """Hash of a model's weights as they are in memory, LoRA's left out: an adapter that is attached or taken off leaves it
    as it was, one that is added to the weights does not."""
    found = tensors_hash(_weights(model))
    if found not in _PACKED and any(map(_is_to_be_packed, model.modules())):  # slow, so done once
        _PACKED[found] = tensors_hash(_weights(model, packed=True))
    return _PACKED.get(found, found)


def _weights(model, packed=False):
    """(name, tensor) of each weight. Not by `state_dict`: that takes packed weights apart, and rounds them in doing so."""
    met = set()
    for place, layer in model.named_modules():
        for name, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            path = f"{place}.{name}".lstrip(".").removeprefix("base_model.model.").replace(".base_layer.", ".")
            kept = tensor is not None and name not in layer._non_persistent_buffers_set and "lora_" not in path
            if kept and id(tensor) not in met:
                met.add(id(tensor))
                yield from ((path, part) for part in _parts(tensor, packed and _is_to_be_packed(layer)))


def _parts(weight, pack):
    """A weight, and where it has 4 bits its scales; `pack`ed as bitsandbytes does."""
    codes, state = weight.data, getattr(weight, "quant_state", None)
    if state is None:
        return [codes]
    if pack:
        from bitsandbytes.functional import _convert_weight_packed_for_cpu

        codes, state = _convert_weight_packed_for_cpu(codes, copy.copy(state))
    return [codes, state.absmax, *([state.state2.absmax, state.offset] if state.nested else [])]


def _is_to_be_packed(layer):
    """Whether bitsandbytes will lay a layer's 4-bit weights out anew, for AVX-512, when they are first used."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    able = getattr(layer, "support_avx512bf16_for_cpu", False) and layer.weight.device.type == "cpu"
    return state is not None and able and not getattr(state, "packing_format_for_cpu", False)


def adapter_hash(model):
    """SHA-256 of the LoRA weights that a model uses: not those of an inactive adapter, or one added to the weights."""
    used, weights = {name: adapters for name, _, adapters in _adapted(model)}, hashlib.sha256()
    for name, parameter in model.named_parameters():
        place, _, rest = name.partition(".lora_")
        if "lora_" in name and (place not in used or rest.split(".")[1] in used[place]):
            weights.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return weights.hexdigest()


def adapter_use(model):
    """How a model uses its adapters beyond their weights: [] where it has none in use, or LoRA at the scale 2 of
    `training.lora`; else [a hash of which are added to the weights, which are of another kind, and the scales]."""
    unusual = []
    for name, layer, adapters in _adapted(model):
        scales = {adapter: getattr(layer, "scaling", {}).get(adapter) for adapter in adapters}
        if layer.merged_adapters or set(scales.values()) - {2.0}:
            unusual.append([name, layer.merged_adapters, layer.disable_adapters, scales])
    return [digest(unusual)] if unusual else []


def _adapted(model):
    """(name, layer, adapters that it uses) of all that PEFT has wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer as Layer
    from peft.utils.other import AuxiliaryTrainingWrapper as Whole

    for name, layer in model.named_modules():
        if isinstance(layer, (Layer, Whole)):
            yield name, layer, [] if layer.disable_adapters or layer.merged_adapters else layer.active_adapters
