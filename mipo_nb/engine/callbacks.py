"""What watches a training from step to step: when a checkpoint is written, and how far it is."""

import time

from mipo_nb.base.progress import bar, report_progress

EVERY, PATIENCE = 10.0, 15  # seconds at least from one checkpoint to the next; saving costs at most one part in so many


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


def reporting():
    """A callback that shows how far a training is: a bar where a person watches, a file for the runner when headless."""
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.bar = bar("training", total=state.max_steps, initial=state.global_step)

        def on_step_end(self, args, state, control, **kwargs):
            self.bar.update()
            report_progress("training", state.global_step, state.max_steps)

        def on_train_end(self, args, state, control, **kwargs):
            self.bar.close()

    return Reporting()
