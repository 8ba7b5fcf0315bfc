"""A run: its folder, seeds, manifest, steps whose result is stored and found again, and recorded results.

A run writes to OUTPUT_DIR/PROFILE/NOTEBOOK/. Steps lie beside, in OUTPUT_DIR/PROFILE/steps/, so that a notebook finds
what an earlier one computed, and can compute it itself when it is run alone.
"""

import contextlib
import json
import os
import platform
import random
import shutil
import sys
import textwrap
import time
from pathlib import Path

from mipo_nb import preferences, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash, project_root, write_atomically
from mipo_nb.engine.process import quieten
from mipo_nb.lab import grids, notebooks
from mipo_nb.lab import settings as settings_module
from mipo_nb.lab.provenance import git_state, library_versions
from mipo_nb.lab.store import Steps, make_folder, peak_memory


class Run:
    """One execution of one notebook. Made by `start`."""

    def __init__(self, settings, folder, cluster=None):
        self.settings, self.folder = settings, folder
        told = {"after": self.save, "manifest": self.manifest, "cluster": cluster}
        self.step = Steps(folder.parent / "steps", **told)  # step(name, function, ...)
        self.steps, self.results = self.step.taken, []
        self.facts = {}  # what else the manifest should say, such as the hash of an initial adapter
        self.started = time.time()
        # Looked up once: the code that runs is the code that was there at the start.
        self._origin = {
            "started": self.started,
            "adapter": _adapter_given(settings.adapter),
            "data": _data_given(settings.numbers.get("data")),
            "python": platform.python_version(),
            "libraries": library_versions(),
            "git": git_state(),
        }

    @property
    def seed(self):
        return self.settings.seed

    def map(self, name, function, grid, /, **common):
        """`function(**common, **each)` for each of `grid`, a list of keyword arguments: what a loop over `run.step` gives, as
        a list in that order, where no call needs another's result. A loop and a map find one another's steps.

        One after another, here; with `mipo-nb run --workers`, or the environment variable MIPO_NB_WORKERS, what is not found
        goes to a Ray cluster (`lab.grids`). Raises `UserError` as the function and `grids.Cluster.brought` do.
        """
        return self.step.map(name, function, grid, **common)

    def seconds(self, name):
        """Seconds that each step of this name took, in the order they were asked for, in whichever run, and on whichever
        machine, it was computed; with those of the steps that it took itself."""
        return [step["seconds"] for step in self.steps if step["name"] == name]

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

    def cut_share(self):
        """A sentence: how many responses were sampled in this run's steps so far, and the share that reached the limit of
        their tokens, in all and from sample to sample. The share is recorded."""
        samples = self.step.samples()
        if not (n := sum(drawn for drawn, _ in samples)):
            return "No response was sampled for this page."
        share = 100 * sum(cut for _, cut in samples) / n
        self.record("responses cut at the limit", share, unit="%", n=n)
        least, most = (f(100 * cut / drawn for drawn, cut in samples) for f in (min, max))
        apart = f": from {least:.0f} to {most:.0f}% of one of the {len(samples)} samples" * (len(samples) > 1)
        return f"Of {n:,} responses that were sampled for this page, {share:.0f}% were cut at the limit of their tokens{apart}."

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
        s, usual = self.settings, settings_module.profile_numbers("laptop", None)
        own = {
            name: value
            for name, value in _as_given(s.numbers).items()
            if usual.get(name) != value and name != "time_out"
        }
        numbers = ", ".join(f"{name}={textwrap.shorten(str(value), 60)}" for name, value in own.items())
        head = f"{s.notebook} | profile {s.profile} | model {_named(s.model)} | {s.device}, {s.dtype} | seed {s.seed}"
        rest = "all else as in the laptop profile's defaults, see run.settings.numbers"
        return f"{head}\n{numbers}{'; ' * bool(numbers)}{rest}"


def start(notebook, profile="auto", *, seed=0, model=None, output_dir="runs", **overrides):
    """Start a run: check the parameters, seed everything, make the folder, quieten the libraries. Its folder is this run's
    from now on: an earlier one of the same notebook that still goes on there stops at its next `save`.

    A relative `output_dir` is taken from the project's root. A number of the profile can also be given as a variable of the
    notebook in capitals, N_PAIRS for `n_pairs`, as papermill puts its parameters there. The run's frame of prompts and its
    rules for wishes hold from here on. Raises `UserError` as `settings.resolve`, `notebooks.require_read` (for what papermill
    put there), `grids.cluster_of`, `prompts.Frame` and `preferences.add_kinds` do, and for a folder that cannot be written.
    """
    names, variables = settings_module.in_capitals(profile, notebook), _variables()
    own = notebooks.collection().get(notebook)  # None for a copy that lies elsewhere
    if own and (put := notebooks.put_by_papermill(variables.get("In", ()))):
        notebooks.require_read([own], put, profile)
    given = {names[name]: variables[name] for name in names.keys() & variables.keys()}
    overrides = given | {name: value for name, value in overrides.items() if value is not None}
    settings = settings_module.resolve(profile, notebook, model=model, seed=seed, **overrides)
    cluster = grids.cluster_of(settings)
    frame = prompts.Frame(settings.system, settings.with_context)
    preferences.add_kinds(settings.rules_file)
    prompts.use(frame)
    folder = project_root() / Path(output_dir).expanduser() / settings.profile / notebook
    shutil.rmtree(folder / "figures", ignore_errors=True)
    make_folder(folder)
    for earlier in ("state.json", "manifest.json"):  # whatever was finished here is being written over
        (folder / earlier).unlink(missing_ok=True)
    quieten()
    seed_everything(seed)
    run = Run(settings, folder, cluster)
    run.save()
    return run


def _as_given(numbers):
    """A run's numbers with files of the project named from its root, and others by their last part: where they lie is
    nobody's business."""
    return {name: _named(value) if name in ("data", "rules_file") else value for name, value in numbers.items()}


def _named(path):
    root = f"{project_root()}{os.sep}"
    return path.removeprefix(root) if path.startswith(root) or not os.path.isabs(path) else Path(path).name


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


def _data_given(data):
    """{"name", "content"} of the file of rows that a run was given, as above; None without one."""
    file = Path(data or "")
    return {"name": file.name, "content": content_hash([file])} if file.is_file() else None


def seed_everything(seed):
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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
