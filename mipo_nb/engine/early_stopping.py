"""A training that ends where its margin on held-out pairs no longer rises."""

import json

from transformers import TrainerCallback

from mipo_nb.base.files import write_atomically
from mipo_nb.engine.checkpoints import save

_MARGIN = "eval_rewards/margins"  # as TRL calls it: beta times the nats


class EarlyStopping(TrainerCallback):
    """Saves the adapter in FOLDER/best whenever held-out pairs have a larger margin than ever, and stops the training after
    `patience` looks without that. What it knows lies in FOLDER/best.json, so that a killed training goes on with it."""

    def __init__(self, folder, patience):
        self.folder, self.file, self.patience = folder / "best", folder / "best.json", patience

    def on_train_begin(self, args, state, control, **kwargs):
        control.should_training_stop |= self.over()

    def on_evaluate(self, args, state, control, metrics=None, model=None, processing_class=None, **kwargs):
        if _MARGIN not in metrics or self.over():  # the trainer makes one step more before it stops again
            return
        seen = self.seen()
        if seen is None or metrics[_MARGIN] > seen["margin"]:
            save(model, self.folder, processing_class)
            seen = {"step": state.global_step, "margin": metrics[_MARGIN], "worse": []}
        elif state.global_step > seen["step"]:  # a look that a killed training had is had again
            seen["worse"] = sorted({*seen["worse"], state.global_step})
        write_atomically(self.file, json.dumps(seen))
        control.should_training_stop |= self.over()

    def over(self):
        """Whether there were enough looks without a larger margin, perhaps before the training was killed."""
        seen = self.seen()
        return seen is not None and len(seen["worse"]) >= self.patience

    def seen(self):
        """{"step", "margin" (beta times nats), "worse": steps of the looks since}; None before the first look."""
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else None

    def found(self):
        """What `training.train` returns of it: {"adapter", "best"}; {} where there was no look."""
        seen = self.seen()
        return {} if seen is None else {"adapter": self.folder, "best": {n: seen[n] for n in ("step", "margin")}}
