"""A folder of steps: each is computed once, by whoever asks first, and found again by a hash of what determines it."""

import inspect
import json
import os
import resource
import shutil
import sys
import time

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import locked, write_atomically
from mipo_nb.base.progress import report_progress
from mipo_nb.lab.steps import code_version, decode, encode, key


class Steps:
    """The steps in a `folder`, for a run (`run.step`) or for a worker of a cluster.

    `taken` lists those that were asked for: {"name", "key", "found", "seconds", "peak_memory", "code"}; `after()` is called
    when one is added. `places` are their folders, and those of the steps that they took themselves. `cluster` computes what
    a grid lacks (`lab.grids.Cluster`); None: it is computed here. `manifest()` is what a run says of itself.
    """

    def __init__(self, folder, *, after=lambda: None, manifest=lambda: None, cluster=None):
        self.folder, self.taken, self.places = folder, [], []
        self._spared = 0.0  # seconds that steps which were found took when they were computed
        self._after, self._manifest, self._cluster = after, manifest, cluster

    def __call__(self, name, function, /, *args, **kwargs):
        """`function(*args, **kwargs)`, computed once and found again by a hash of its code and all its arguments.

        The name is for people: another name, or another notebook, finds the same result. Results are JSON values, numpy
        arrays, rows (`datasets.Dataset`) and paths inside the step's folder. A function with a parameter `folder` gets that
        folder and may store partial work there, one with `manifest` the run's manifest so far; one with `step` may be given
        these steps, for its own.
        Processes that ask for one step at once share it: one computes, the others wait. Raises `TypeError` as `steps.key`
        does, and `UserError` as `Run.save` does.
        """
        place = self.place(function, *args, **kwargs)
        entry, found = self.settled(name, place, function, *args, **kwargs)
        measured = {"seconds": entry["seconds"], "peak_memory": entry.get("peak_memory")}
        identity = place.name.rpartition("-")[2]
        self.taken.append({"name": name, "key": identity, "found": found, **measured, "code": code_version(function)})
        self._after()
        return decode(entry["value"], place)

    def map(self, name, function, grid, /, **common):
        """[`function(**common, **each)` for each of `grid`]: what a loop over steps gives, of calls that do not need one
        another. `grid` is a list of keyword arguments; with a cluster its workers compute what is not found. `taken` is in the
        order of the grid too, whichever came first."""
        begun, results, spans = len(self.taken), {}, {}
        for number, result in self.arrivals(name, function, grid, **common):
            spans[number] = (max((end for _, end in spans.values()), default=begun), len(self.taken))
            results[number] = result
        self.taken[begun:] = [entry for number in sorted(spans) for entry in self.taken[slice(*spans[number])]]
        self._after()
        return [results[number] for number in sorted(results)]

    def arrivals(self, name, function, grid, /, **common):
        """(number in the grid, result) of each call of `map`, as soon as it is there."""
        calls = [{**common, **each} for each in grid]
        numbers = self._cluster.brought(self, name, function, calls) if self._cluster else range(len(calls))
        for number in numbers:
            yield number, self(name, function, **calls[number])

    def place(self, function, /, *args, **kwargs):
        """The folder of a step, whether it is there or not."""
        return self.folder / f"{function.__name__}-{key(function, args, kwargs)}"

    def settled(self, name, place, function, /, *args, **kwargs):
        """(what `result_in` finds in the step's folder, whether it was there before): computed here where it was not."""
        self.places.append(place)
        if (entry := result_in(place)) is None:
            make_folder(place.parent)
            with locked(place.with_name(f".{place.name}.lock"), lambda: _say_waiting(name)):
                entry = result_in(place)  # another process may have computed it meanwhile
                if entry is None:
                    # A new result is read back too, so that a resumed run sees exactly what the first one saw.
                    return self._computed(place, function, args, kwargs), False
        self.places += [place.with_name(inner) for inner in entry.get("steps", ())]
        self._spared += entry["seconds"]
        return entry, True

    def samples(self):
        """[(how many responses, how many of them were cut at the limit of their tokens)] of each sample among `places`. A
        step that took others is left out: what it returns was sampled in these."""
        entries = filter(None, map(result_in, dict.fromkeys(self.places)))
        drawn = [rows for e in entries if "steps" not in e for rows in _rows_in(e["value"]) if "finished" in rows[0]]
        return [(len(rows), sum(not row["finished"] for row in rows)) for rows in drawn]

    def _computed(self, place, function, args, kwargs):
        """Compute a step, whose lock is held, and write its result.json. What is from before `_moment` is removed first."""
        file, removed = place / "result.json", place.with_name(f".{place.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if place.exists() and (file if file.exists() else place).stat().st_mtime < _moment():
            place.rename(removed)  # in one move: nobody finds a result of which a part is gone
            shutil.rmtree(removed)
        make_folder(place)
        given, wanted = {"folder": lambda: place, "manifest": self._manifest}, inspect.signature(function).parameters
        kwargs = {**kwargs, **{name: value() for name, value in given.items() if name in wanted}}
        begun, before, spared = time.time(), len(self.places), self._spared
        value = function(*args, **kwargs)
        seconds = time.time() - begun + self._spared - spared  # as if it had not found what an earlier run left
        entry = {"seconds": round(seconds, 2), "peak_memory": peak_memory()}
        if inner := [taken.name for taken in self.places[before:]]:
            entry["steps"] = inner
        write_atomically(file, json.dumps({**entry, "value": encode(value, place)}))
        return json.loads(file.read_text(encoding="utf-8"))


def result_in(place):
    """What a step left in its folder, {"seconds", "peak_memory", "value"} and, where it took some itself, "steps"; None where
    there is no whole result that counts."""
    file = place / "result.json"
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        counts = {"seconds", "value"} <= entry.keys() and file.stat().st_mtime >= _moment()
    except (OSError, ValueError, AttributeError):  # none, half of one, or something else
        return None
    return entry if counts else None


def _rows_in(value):
    """Each list of rows in what `steps.encode` made of a result; empty ones are left out."""
    if isinstance(value, dict) and "__rows__" in value:
        return [value["__rows__"]] if value["__rows__"] else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [rows for one in inner for rows in _rows_in(one)]


def _moment():
    """Since when a step must have been computed to count, as a run says that was asked to compute all anew."""
    return float(os.environ.get("MIPO_NB_FRESH", 0))


def _say_waiting(name):
    line = f"waiting for another run that computes {name}"
    print(f"{line} ...", flush=True)
    report_progress(line, 0, 1)


def make_folder(folder):
    """Make a folder, with those above it. Raises `UserError` where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as e:
        message = f"The output folder {folder} cannot be written ({e.strerror}); set OUTPUT_DIR to one that can."
        raise UserError(message) from None


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
