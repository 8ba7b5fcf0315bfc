"""A run: its folder, seeds, manifest, steps whose result is kept and found again, and recorded results.

A run writes to OUTPUT_DIR/PROFILE/NOTEBOOK/. Steps lie beside, in OUTPUT_DIR/PROFILE/steps/, so that a notebook finds
what an earlier one computed, and can compute it itself when it is run alone.
"""

import contextlib
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

from mipo_nb import settings as settings_module
from mipo_nb.provenance import code_version, decode, digest, encode, fingerprint, git_state, versions
from mipo_nb.settings import UserError

# Arguments that cannot change a step's result: where it is kept, what its progress bar says.
_NOT_KEYED = {"folder", "description"}


def write_atomically(path, content):
    """Write text or bytes to a temporary sibling and move it into place, so that no reader ever sees half a file.

    Raises `UserError` where that cannot be done.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    except OSError as e:  # a full disk, a folder that became read-only
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} could not be written ({e.strerror}); what was there before is as it was.") from e


def kept(file, compute):
    """`compute()`, a JSON value, written to `file` and read back from it the next time. Not kept where `file` is None."""
    if file is None:
        return compute()
    if not file.exists():
        write_atomically(file, json.dumps(compute(), ensure_ascii=False))
    return json.loads(file.read_text(encoding="utf-8"))


def project_root():
    """The checkout the package lies in; the working folder when it is installed elsewhere."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks").is_dir() else Path.cwd()


def progress(rows, description):
    """Iterate with a progress bar: live where a person watches, a small file for the runner when headless."""
    rows = list(rows)
    report = os.environ.get("MIPO_NB_PROGRESS")
    if report:
        return _reported(rows, description, Path(report))
    watched = "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ or sys.stderr.isatty()
    if watched:
        from tqdm.auto import tqdm

        return tqdm(rows, desc=description, leave=False)
    from tqdm import tqdm

    return tqdm(rows, desc=description, mininterval=30, leave=False)


def _reported(rows, description, file):
    last = 0.0
    for done, row in enumerate(rows):
        if time.time() - last > 1:
            last = time.time()
            report_progress(description, done, len(rows), file)
        yield row


def report_progress(description, done, total, file=None):
    """Tell the runner how far a step is. Does nothing outside a headless run."""
    file = file or os.environ.get("MIPO_NB_PROGRESS")
    if file:
        write_atomically(file, json.dumps({"step": description, "done": done, "total": total}))


class Run:
    """One execution of one notebook. Made by `start`."""

    def __init__(self, settings, folder):
        self.settings, self.folder = settings, folder
        self.steps, self.results = [], []
        self.facts = {}  # what else the manifest should say, such as the hash of an initial adapter
        self.started = time.time()

    @property
    def seed(self):
        return self.settings.seed

    def step(self, name, function, *args, **kwargs):
        """`function(*args, **kwargs)`, computed once and found again by a hash of its code and all its arguments.

        The name is for people; the same call under another name, or in another notebook, finds the same result.
        Results are JSON values, numpy arrays, `datasets.Dataset`s and paths inside the step's folder. A function with
        a parameter `folder` gets the step's own folder and may keep partial work there.
        """
        if function.__closure__ or function.__name__ == "<lambda>":
            raise TypeError("A step takes a named function whose numbers are all among its arguments.")
        signature = inspect.signature(function)
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        arguments = {k: v for k, v in bound.arguments.items() if k not in _NOT_KEYED}
        key = digest([function.__qualname__, code_version(function), fingerprint(arguments)])[:16]
        folder = self.folder.parent / "steps" / f"{function.__name__}-{key}"
        file = folder / "result.json"
        if folder.exists() and folder.stat().st_mtime < float(os.environ.get("MIPO_NB_FRESH", 0)):
            shutil.rmtree(folder)  # from before a run that was asked to compute everything anew
        found = file.exists()
        if not found:
            _make_folder(folder)
            if "folder" in signature.parameters:
                kwargs["folder"] = folder
            begun = time.time()
            value = function(*args, **kwargs)
            entry = {
                "seconds": round(time.time() - begun, 2),
                "peak_memory": peak_memory(),
                "value": encode(value, folder),
            }
            write_atomically(file, json.dumps(entry))
        # Read back also what was just made, so that a resumed run sees exactly what the first one saw.
        entry = json.loads(file.read_text(encoding="utf-8"))
        measured = {"seconds": entry["seconds"], "peak_memory": entry.get("peak_memory")}
        self.steps.append({"name": name, "key": key, "found": found, **measured})
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
            "python": platform.python_version(),
            "libraries": versions(),
            "git": git_state(project_root()),
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
