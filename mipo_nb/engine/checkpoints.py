"""What a training writes on its way: checkpoints, from which a killed one goes on, adapters at some steps, progress."""

import json
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
