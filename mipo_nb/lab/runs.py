"""A run: its folder, seeds, manifest, steps whose result is stored and found again, and recorded results.

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
from pathlib import Path

from mipo_nb import preferences, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash, locked, project_root, write_atomically
from mipo_nb.base.progress import report_progress
from mipo_nb.engine.process import quieten
from mipo_nb.lab import notebooks
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
        self._origin = {
            "started": self.started,
            "adapter": _adapter_given(settings.adapter),
            "python": platform.python_version(),
            "libraries": library_versions(),
            "git": git_state(),
        }

    @property
    def seed(self):
        return self.settings.seed

    def step(self, name, function, *args, **kwargs):
        """`function(*args, **kwargs)`, computed once and found again by a hash of its code and all its arguments.

        The name is for people: another name, or another notebook, finds the same result. Results are JSON values, numpy
        arrays, `datasets.Dataset`s and paths inside the step's folder. A function with a parameter `folder` gets that
        folder and may store partial work there. Processes that ask for one step at once share it: one computes, the others
        wait. Raises `TypeError` as `steps.key` does, and `UserError` as `save` does.
        """
        identity = key(function, args, kwargs)
        folder = self.folder.parent / "steps" / f"{function.__name__}-{identity}"
        entry = _stored(folder)
        already_computed = entry is not None
        if not already_computed:
            _make_folder(folder.parent)
            with locked(folder.with_name(f".{folder.name}.lock"), lambda: _say_waiting(name)):
                entry = _stored(folder)  # another run may have computed it meanwhile
                already_computed = entry is not None
                if not already_computed:
                    _compute(folder, function, args, kwargs)
                    # A new result is read back too, so that a resumed run sees exactly what the first one saw.
                    entry = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        measured = {"seconds": entry["seconds"], "peak_memory": entry.get("peak_memory")}
        step = {"name": name, "key": identity, "found": already_computed, **measured, "code": code_version(function)}
        self.steps.append(step)
        self.save()
        return decode(entry["value"], folder)

    def record(self, name, value, *, unit="", low=None, high=None, n=None):
        """Keep a result for tables and RESULTS.md. `value` is a number or a `statistics.Estimate`."""
        if hasattr(value, "low"):
            value, low, high, n = value.value, value.low, value.high, value.n
        entry = {"name": name, "value": float(value), "low": low, "high": high, "n": n, "unit": unit, "seed": self.seed}
        self.results = [r for r in self.results if r["name"] != name] + [entry]
        self.save()

    def record_all(self, results, *, unit=""):
        """`record` each of `results`, {name: a number or an estimate}, all in one unit."""
        for name, value in results.items():
            self.record(name, value, unit=unit)

    def manifest(self):
        """What is needed to know where this run's numbers come from; `seconds`, and `peak_memory` in bytes, so far."""
        fields = ("notebook", "profile", "seed", "model", "device", "dtype", "numbers")
        measured = {"seconds": round(time.time() - self.started, 1), "peak_memory": peak_memory()}
        settings = {name: getattr(self.settings, name) for name in fields}
        settings["numbers"] = _as_given(self.settings.numbers)
        if os.path.isabs(settings["model"]):  # a folder; where it lies is nobody's business
            settings["model"] = Path(settings["model"]).name
        return {**settings, **self._origin, **measured, "facts": self.facts, "steps": self.steps}

    def save(self):
        """Write manifest.json and results.json, each in one move. Raises `UserError` where another run of this notebook has
        begun since, to which the folder belongs now."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))["started"] > self.started:
                raise UserError(
                    f"Another run of {self.settings.notebook} has begun in {self.folder} and writes there now; run this "
                    "notebook again from its first cell, or with another OUTPUT_DIR: steps that are computed are found."
                )
        write_atomically(self.folder / "manifest.json", json.dumps(self.manifest(), indent=1))
        write_atomically(self.folder / "results.json", json.dumps(self.results, indent=1))

    def __repr__(self):
        s = self.settings
        numbers = ", ".join(f"{k}={v}" for k, v in _as_given(s.numbers).items())
        head = f"{s.notebook} | profile {s.profile} | model {s.model} | {s.device}, {s.dtype} | seed {s.seed}"
        return f"{head}\n{numbers}"


def start(notebook, profile="auto", *, seed=0, model=None, output_dir="runs", **overrides):
    """Start a run: check the parameters, seed everything, make the folder, quieten the libraries. Its folder is this run's
    from now on: an earlier one of the same notebook that still goes on there stops at its next `save`.

    A relative `output_dir` is taken from the project's root. A number of the profile can also be given as a variable of the
    notebook in capitals, N_PAIRS for `n_pairs`, as papermill puts its parameters there. The run's frame of prompts and its
    rules for wishes hold from here on. Raises `UserError` as `settings.resolve`, `notebooks.require_read` (for what papermill
    put there), `prompts.Frame` and `preferences.add_kinds` do, and for a folder that cannot be written.
    """
    names, variables = settings_module.in_capitals(profile, notebook), _variables()
    own = notebooks.collection().get(notebook)  # None for a copy that lies elsewhere
    if own and (put := notebooks.put_by_papermill(variables.get("In", ()))):
        notebooks.require_read([own], put, profile)
    given = {names[name]: variables[name] for name in names.keys() & variables.keys()}
    overrides = given | {name: value for name, value in overrides.items() if value is not None}
    settings = settings_module.resolve(profile, notebook, model=model, seed=seed, **overrides)
    frame = prompts.Frame(settings.system, settings.with_context)
    preferences.add_kinds(settings.rules_file)
    prompts.use(frame)
    folder = project_root() / Path(output_dir).expanduser() / settings.profile / notebook
    shutil.rmtree(folder / "figures", ignore_errors=True)
    _make_folder(folder)
    for earlier in ("state.json", "manifest.json"):  # whatever was finished here is being written over
        (folder / earlier).unlink(missing_ok=True)
    quieten()
    seed_everything(seed)
    run = Run(settings, folder)
    run.save()
    return run


def _as_given(numbers):
    """A run's numbers with files of the project named from its root: where it lies is nobody's business."""
    root = f"{project_root()}{os.sep}"
    return {name: value.removeprefix(root) if isinstance(value, str) else value for name, value in numbers.items()}


def _variables():
    """The variables of the notebook that this is called from, {} outside of one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.user_ns if shell else {}


def _adapter_given(adapter):
    """{"name", "weights"} of the adapter that a run was given, the last part of its path and a hash; None without one."""
    if adapter is None:
        return None
    weights = sorted(Path(adapter).glob("*.safetensors"))
    return {"name": Path(adapter).name, "weights": content_hash(weights) if weights else None}


def _moment():
    """Since when a step must have been computed to count, as a run says that was asked to compute all anew."""
    return float(os.environ.get("MIPO_NB_FRESH", 0))


def _stored(folder):
    """What a step left in its folder, {"seconds", "peak_memory", "value"}; None where there is no whole result that counts."""
    file = folder / "result.json"
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        counts = {"seconds", "value"} <= entry.keys() and file.stat().st_mtime >= _moment()
    except (OSError, ValueError, AttributeError):  # none, half of one, or something else
        return None
    return entry if counts else None


def _compute(folder, function, args, kwargs):
    """Compute a step, whose lock is held, and write its result.json. What is from before `_moment` is removed first."""
    file, removed = folder / "result.json", folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists() and (file if file.exists() else folder).stat().st_mtime < _moment():
        folder.rename(removed)  # in one move: nobody finds a result of which a part is gone
        shutil.rmtree(removed)
    _make_folder(folder)
    if "folder" in inspect.signature(function).parameters:
        kwargs = {**kwargs, "folder": folder}
    begun = time.time()
    value = function(*args, **kwargs)
    entry = {"seconds": round(time.time() - begun, 2), "peak_memory": peak_memory()}
    write_atomically(file, json.dumps({**entry, "value": encode(value, folder)}))


def _say_waiting(name):
    line = f"waiting for another run that computes {name}"
    print(f"{line} ...", flush=True)
    report_progress(line, 0, 1)


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as e:
        message = f"The output folder {folder} cannot be written ({e.strerror}); set OUTPUT_DIR to one that can."
        raise UserError(message) from None


def seed_everything(seed):
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def results_of(folder):
    """The recorded results of a run, from its folder; an empty list where it recorded none."""
    file = folder / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def formatted(result):
    """A recorded result as text: value, interval, unit, n. A tiny value without an interval is a power of ten."""
    size, alone = abs(result["value"]), result["low"] is None
    digits = ".1e" if alone and 0 < size < 0.005 else ".0f" if size >= 1000 else ".1f" if size >= 10 else ".2f"
    interval = "" if alone else f" [{result['low']:{digits}}, {result['high']:{digits}}]"
    unit = f" {result['unit']}" if result["unit"] else ""
    return f"{result['value']:{digits}}{interval}{unit}" + (f" (n = {result['n']})" if result["n"] else "")
