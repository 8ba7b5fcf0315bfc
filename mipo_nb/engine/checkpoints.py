"""How a training is carried through: checkpoints, from which a killed one goes on, adapters at some steps, progress."""

import gc
import hashlib
import json
import math
import shutil
import time

from mipo_nb.base.progress import report_progress

EVERY = 10.0  # seconds at least from one checkpoint to the next: a training that is over by then needs none
PATIENCE = 15  # saving costs at most one part in so many


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


def saving():
    """A callback for transformers' trainers: a checkpoint when the steps since the last one took `EVERY` seconds and
    `PATIENCE` times as long as writing it did. A killed training loses at most that, or one step that takes longer."""
    from transformers import TrainerCallback

    class Saving(TrainerCallback):
        cost = 0.0

        def on_train_begin(self, args, state, control, **kwargs):
            self.began = time.monotonic()

        def on_step_end(self, args, state, control, **kwargs):
            self.ended = time.monotonic()
            control.should_save = self.ended - self.began >= max(EVERY, PATIENCE * self.cost)

        def on_save(self, args, state, control, **kwargs):
            self.began = time.monotonic()
            self.cost = self.began - self.ended

    return Saving()


def kept_at(folder, step):
    """The folder of the adapter that `keeping` saved after a step."""
    return folder / f"adapter-{step:05d}"


def keeping(folder, steps):
    """A callback that saves the adapter after each of `steps`, before the step's checkpoint, so that none is missed."""
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step in steps:
                model.save_pretrained(kept_at(folder, state.global_step))

    return Keeping()


def reporting():
    """A callback that tells the runner how far a training is."""
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            report_progress("training", state.global_step, state.max_steps)

    return Reporting()


def carry_through(trainer, folder):
    """Train to the end, on from the last checkpoint in `folder` if there is one, and save what was trained there.

    Returns {"adapter": path of the adapter, or of the whole model where there is none, "log": one dictionary of metrics
    per step, "held_out": one per evaluation, "initial_adapter": hash before training}. Empties `trainer`, whatever
    `transformers.Trainer` it is.
    """
    from transformers import PrinterCallback

    hold_in_float32(trainer.model)
    if _planned_steps(trainer) <= 20:  # the rate begins at 0: of a few steps the first would do nothing
        trainer.args.warmup_steps = 0
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporting())
    trainer.add_callback(saving())
    initial = adapter_hash(trainer.model)
    trainer.train(resume_from_checkpoint=last(folder / "checkpoints"))
    trained = folder / ("adapter" if hasattr(trainer.model, "peft_config") else "model")
    trainer.model.save_pretrained(trained)
    history = trainer.state.log_history
    log, held_out = ([entry for entry in history if key in entry] for key in ("loss", "eval_runtime"))
    trainer.accelerator.free_memory()
    # Trainer and model hold one another: without a collection every training would leave its memory behind.
    vars(trainer).clear()
    gc.collect()
    return {"adapter": trained, "log": log, "held_out": held_out, "initial_adapter": initial}


def hold_in_float32(policy):
    """Cast the weights that learn to float32, whatever the others are held in.

    TRL holds an adapter on 4-bit weights in bf16: a small step is then lost, and on cards with fp16 the first one fails.
    """
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _planned_steps(trainer):
    args, batches = trainer.args, len(trainer.get_train_dataloader())
    return (
        args.max_steps
        if args.max_steps > 0
        else math.ceil(args.num_train_epochs * -(-batches // args.gradient_accumulation_steps))
    )


def full_steps(log, learning_rate):
    """How many steps at the full `learning_rate` a training's log amounts to: the dose in steps."""
    return sum(entry["learning_rate"] for entry in log) / learning_rate


def adapter_hash(model):
    """SHA-256 of a model's LoRA weights, as hexadecimal digits."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            weights.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return weights.hexdigest()
