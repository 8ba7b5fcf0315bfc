"""When a training writes a checkpoint, and which one a killed training goes on from."""

import json
import math
import shutil
import time

from transformers import TrainerCallback


def last(folder):
    """The newest checkpoint in a folder that is whole, as text, or None; removes those that are not.

    The trainer's state is the last file of a checkpoint to be written, and older checkpoints are removed after it.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1])):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return None


class Saving(TrainerCallback):
    """A checkpoint whenever the steps since the last one took `patience` times as long as writing it did.

    With 15, a killed training loses one step on a laptop and seconds on a GPU, and saving costs at most a sixteenth.
    """

    def __init__(self, patience=15):
        self.patience, self.began, self.cost = patience, -math.inf, 0.0

    def on_step_end(self, args, state, control, **kwargs):
        self.ended = time.monotonic()
        control.should_save = self.ended - self.began >= self.patience * self.cost

    def on_save(self, args, state, control, **kwargs):
        self.began = time.monotonic()
        self.cost = self.began - self.ended
