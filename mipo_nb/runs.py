"""A run: its folder, seeds, manifest, steps whose result is kept and found again, and recorded results.

A run writes to OUTPUT_DIR/PROFILE/NOTEBOOK/. Steps lie beside, in OUTPUT_DIR/PROFILE/steps/, so that a notebook finds
what an earlier one computed, and can compute it itself when it is run alone.
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
import warnings
from importlib import metadata
from logging import ERROR
from logging import getLogger as getlogger
from pathlib import Path

from mipo_nb import settings as settings_module
from mipo_nb.settings import UserError

_LIBRARIES = "torch transformers trl peft bitsandbytes accelerate datasets numpy scipy papermill".split()


def write_atomically(path, text):
    """Write text to a temporary sibling and move it into place, so that no reader ever sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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


def fingerprint(value):
    """A JSON-able description of everything about `value` that can change a step's result."""
    import numpy as np

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [fingerprint(v) for v in value]
    if isinstance(value, dict):
        return {str(k): fingerprint(v) for k, v in sorted(value.items())}
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value)).hexdigest()]
    if isinstance(value, Path):
        return str(value)
    kind = type(value).__module__
    if kind.startswith("datasets."):
        return _digest([value.column_names, value.to_dict()])
    if hasattr(value, "apply_chat_template"):
        return ["tokenizer", len(value), hashlib.sha256((value.chat_template or "").encode()).hexdigest()]
    if hasattr(value, "named_parameters"):
        from mipo_nb import models

        return models.fingerprint(value)
    if hasattr(value, "__dataclass_fields__"):
        return [type(value).__name__, fingerprint(vars(value))]
    if inspect.isfunction(value):
        return code_version(value)
    raise TypeError(f"A step cannot be keyed by a {type(value).__name__}.")


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


# Seeds, folders and progress do not change numbers; an edit there leaves old steps valid.
_NOT_NUMBERS = {"mipo_nb", "mipo_nb.runs", "mipo_nb.settings"}


def code_version(function):
    """Hash of what determines a function's numbers: its module and every mipo_nb module that one imports.

    Comments, docstrings and layout do not count.
    """
    start = inspect.getmodule(function)
    if not start.__name__.startswith("mipo_nb"):
        return _digest(inspect.getsource(function))[:16]
    seen, queue = {}, [start.__name__]
    while queue:
        name = queue.pop()
        if name in seen or name in _NOT_NUMBERS:
            continue
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mipo_nb"):
                queue += [node.module] if node.module != "mipo_nb" else [f"mipo_nb.{a.name}" for a in node.names]
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body[0].value.value = None  # a docstring
        seen[name] = ast.dump(tree)
    return _digest(seen)[:16]


def _encode(value):
    import numpy as np
    from datasets import Dataset

    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, Dataset):
        return {"__rows__": value.to_list(), "columns": value.column_names}
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(v) for v in value]
    if isinstance(value, Path):
        return {"__path__": str(value)}
    return value.item() if isinstance(value, np.generic) else value


def _decode(value):
    import numpy as np
    from datasets import Dataset

    if isinstance(value, dict):
        if "__array__" in value:
            return np.array(value["__array__"], dtype=value["dtype"])
        if "__rows__" in value:
            rows = value["__rows__"]
            return Dataset.from_list(rows) if rows else Dataset.from_dict({c: [] for c in value["columns"]})
        if "__path__" in value:
            return Path(value["__path__"])
        return {k: _decode(v) for k, v in value.items()}
    return [_decode(v) for v in value] if isinstance(value, list) else value


class Run:
    """One execution of one notebook. Made by `start`."""

    def __init__(self, settings, folder):
        self.settings, self.folder, self.steps, self.results, self.figures = settings, folder, [], [], {}
        self.started = time.time()

    @property
    def seed(self):
        return self.settings.seed

    def step(self, name, function, *args, **kwargs):
        """`function(*args, **kwargs)`, computed once and found again by a hash of its code and all its arguments.

        Results are JSON values, numpy arrays, `datasets.Dataset`s and paths inside the step's folder. A function with
        a parameter `folder` gets the step's own folder and may keep partial work there.
        """
        key = _digest([name, code_version(function), fingerprint(list(args)), fingerprint(kwargs)])[:16]
        folder = self.folder.parent / "steps" / f"{name.replace(' ', '_')}-{key}"
        file = folder / "result.json"
        found = file.exists()
        if not found:
            _make_folder(folder)
            if "folder" in inspect.signature(function).parameters:
                kwargs["folder"] = folder
            begun = time.time()
            value = function(*args, **kwargs)
            entry = {"seconds": round(time.time() - begun, 2), "value": _encode(value)}
            write_atomically(file, json.dumps(entry))
        # Read back also what was just made, so that a resumed run sees exactly what the first one saw.
        entry = json.loads(file.read_text(encoding="utf-8"))
        self.steps.append(
            {"name": name, "key": key, "seconds": entry["seconds"], "found": found, "peak_memory": peak_memory()}
        )
        self.save()
        return _decode(entry["value"])

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
            "libraries": {name: _version(name) for name in ("mipo_nb", *_LIBRARIES)},
            "git": _git_state(),
            "seconds": round(time.time() - self.started, 1),
            "peak_memory": peak_memory(),
            "steps": self.steps,
        }

    def save(self):
        """Write manifest.json and results.json, each in one move."""
        write_atomically(self.folder / "manifest.json", json.dumps(self.manifest(), indent=1))
        write_atomically(self.folder / "results.json", json.dumps(self.results, indent=1))

    def __repr__(self):
        s = self.settings
        numbers = ", ".join(f"{k}={v}" for k, v in s.numbers.items())
        return f"{s.notebook} | profile {s.profile} | model {s.model} | {s.device}, {s.dtype} | seed {s.seed}\n{numbers}"


def start(notebook, profile="auto", *, seed=0, model=None, output_dir="runs", **overrides):
    """Start a run: check the parameters, seed everything, make the folder, quieten the libraries.

    A relative `output_dir` is taken from the project's root. Raises `UserError` for anything `settings.resolve`
    refuses and for a folder that cannot be written.
    """
    settings = settings_module.resolve(profile, notebook, model=model, seed=seed, **overrides)
    folder = project_root() / Path(output_dir).expanduser() / settings.profile / notebook
    shutil.rmtree(folder / "figures", ignore_errors=True)
    _make_folder(folder)
    quieten()
    seed_everything(seed)
    run = Run(settings, folder)
    run.save()
    return run


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as e:
        raise UserError(f"The output folder {folder} cannot be written ({e.strerror}); set OUTPUT_DIR to one that can.") from None


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


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state():
    """Commit and whether tracked files differ from it, or None outside a checkout."""
    call = {"cwd": project_root(), "capture_output": True, "text": True}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **call)
        if commit.returncode:
            return None
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **call).stdout.strip()
    except OSError:
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(dirty)}
