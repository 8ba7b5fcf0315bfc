"""A run: its folder, seeds, manifest, steps whose result is kept and found again, and recorded results.

A run writes to OUTPUT_DIR/PROFILE/NOTEBOOK/. Steps lie beside, in OUTPUT_DIR/PROFILE/steps/, so that a notebook finds
what an earlier one computed, and can compute it itself when it is run alone.
"""

import inspect
import json
import os
import platform
import random
import resource
import shutil
import sys
import time
import warnings
from logging import ERROR
from logging import getLogger as getlogger
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.lab import settings as settings_module
from mipo_nb.lab.provenance import git_state, library_versions
from mipo_nb.lab.steps import code_version, decode, encode, key


class Run:
    """One execution of one notebook. Made by `start`."""

    def __init__(self, settings, folder):
        self.settings, self.folder = settings, folder
        self.steps, self.results = [], []
        self.facts = {}  # what else the manifest should say, such as the hash of an initial adapter
        self.started = time.time()
        # Looked up once: the code that runs is the code that was there at the start.
        self._origin = {"python": platform.python_version(), "libraries": library_versions(), "git": git_state()}

    @property
    def seed(self):
        return self.settings.seed

    def step(self, name, function, *args, **kwargs):
        """`function(*args, **kwargs)`, computed once and found again by a hash of its code and all its arguments.

        The name is for people; the same call under another name, or in another notebook, finds the same result.
        Results are JSON values, numpy arrays, `datasets.Dataset`s and paths inside the step's folder. A function with
        a parameter `folder` gets the step's own folder and may keep partial work there. Raises `TypeError` as
        `steps.key` does.
        """
        signature = inspect.signature(function)
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        identity = key(function, bound.arguments)
        folder = self.folder.parent / "steps" / f"{function.__name__}-{identity}"
        file = folder / "result.json"
        if folder.exists() and folder.stat().st_mtime < float(os.environ.get("MIPO_NB_FRESH", 0)):
            shutil.rmtree(folder)  # from before a run that was asked to compute everything anew
        found = file.exists()
        if not found:
            _make_folder(folder)
            if "folder" in signature.parameters:
                kwargs["folder"] = folder
            _compute(file, function, args, kwargs)
        # Read back also what was just made, so that a resumed run sees exactly what the first one saw.
        entry = json.loads(file.read_text(encoding="utf-8"))
        measured = {
            "seconds": entry["seconds"],
            "peak_memory": entry.get("peak_memory"),
            "code": code_version(function),
        }
        self.steps.append({"name": name, "key": identity, "found": found, **measured})
        self.save()
        return decode(entry["value"], folder)

    def record(self, name, value, *, unit="", low=None, high=None, n=None):
        """Keep a result for tables and RESULTS.md. `value` is a number or a `statistics.Estimate`."""
        if hasattr(value, "low"):
            value, low, high, n = value.value, value.low, value.high, value.n
        entry = {"name": name, "value": float(value), "low": low, "high": high, "n": n, "unit": unit, "seed": self.seed}
        self.results = [r for r in self.results if r["name"] != name] + [entry]
        self.save()

    def manifest(self):
        """What is needed to know where this run's numbers come from."""
        s = self.settings
        return {
            "notebook": s.notebook,
            "profile": s.profile,
            "seed": s.seed,
            "model": s.model,
            "device": s.device,
            "dtype": s.dtype,
            "numbers": s.numbers,
            **self._origin,
            "seconds": round(time.time() - self.started, 1),
            "peak_memory": peak_memory(),
            "facts": self.facts,
            "steps": self.steps,
        }

    def save(self):
        """Write manifest.json and results.json, each in one move."""
        write_atomically(self.folder / "manifest.json", json.dumps(self.manifest(), indent=1))
        write_atomically(self.folder / "results.json", json.dumps(self.results, indent=1))

    def __repr__(self):
        s = self.settings
        numbers = ", ".join(f"{k}={v}" for k, v in s.numbers.items())
        return (
            f"{s.notebook} | profile {s.profile} | model {s.model} | {s.device}, {s.dtype} | seed {s.seed}\n{numbers}"
        )


def _compute(file, function, args, kwargs):
    """Call a step's function and keep what it gives, with its seconds and peak of memory, in `file`."""
    begun = time.time()
    value = function(*args, **kwargs)
    entry = {
        "seconds": round(time.time() - begun, 2),
        "peak_memory": peak_memory(),
        "value": encode(value, file.parent),
    }
    write_atomically(file, json.dumps(entry))


def start(notebook, profile="auto", *, seed=0, model=None, output_dir="runs", **overrides):
    """Start a run: check the parameters, seed everything, make the folder, quieten the libraries.

    A relative `output_dir` is taken from the project's root. Raises `UserError` for anything `settings.resolve`
    refuses and for a folder that cannot be written.
    """
    settings = settings_module.resolve(profile, notebook, model=model, seed=seed, **overrides)
    folder = project_root() / Path(output_dir).expanduser() / settings.profile / notebook
    shutil.rmtree(folder / "figures", ignore_errors=True)
    _make_folder(folder)
    (folder / "state.json").unlink(missing_ok=True)  # whatever was finished here is being written over
    quieten()
    seed_everything(seed)
    run = Run(settings, folder)
    run.save()
    return run


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as e:
        raise UserError(
            f"The output folder {folder} cannot be written ({e.strerror}); set OUTPUT_DIR to one that can."
        ) from None


def seed_everything(seed):
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def quieten():
    """Keep the libraries' own progress bars and notices out of the notebooks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    getlogger("bitsandbytes").setLevel(ERROR)  # it announces an optional package
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated")


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def results_of(folder):
    """The recorded results of a run, from its folder; none where there is none."""
    file = folder / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def formatted(result):
    """A recorded result as text: value, interval, unit, n. A tiny value that stands alone is given as a power of ten."""
    digits = ".0f" if abs(result["value"]) >= 1000 else ".1f" if abs(result["value"]) >= 10 else ".2f"
    if result["low"] is None and 0 < abs(result["value"]) < 0.005:
        digits = ".1e"
    text = f"{result['value']:{digits}}"
    if result["low"] is not None:
        text += f" [{result['low']:{digits}}, {result['high']:{digits}}]"
    text += f" {result['unit']}" if result["unit"] else ""
    return text + (f" (n = {result['n']})" if result["n"] else "")
