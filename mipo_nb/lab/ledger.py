"""Results that took hours, kept in the project itself: a line of `results/NAME.jsonl` for each training.

A run's folder is for one machine; a ledger is committed. A line says what was computed (`key`), from which commit and
where, and what came out. The `evidence` profile adds the lines that are missing; every profile shows those that are there.
"""

import json
import time

from mipo_nb.base import jsonl
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.lab.provenance import git_state, library_versions


class Ledger:
    """The file `results/NAME.jsonl` of the checkout; made when the first line is added."""

    def __init__(self, name):
        self.file = project_root() / "results" / f"{name}.jsonl"
        self._state = git_state()  # the code that runs is the code that was there at the start
        self.lines = [line for _, line in jsonl.objects(self.file)] if self.file.exists() else []

    def find(self, key):
        """What was kept under `key`, a dictionary of plain values; None where nothing was."""
        return next((line["value"] for line in self.lines if line["key"] == key), None)

    def add(self, key, value):
        """Keep `value`, which JSON can hold, under `key`, and return it. Raises `UserError` for code or data that is not
        committed: nobody could tell later where the numbers are from."""
        if self._state is None or self._state["dirty"]:
            raise UserError("Commit the code first: a ledger says from which commit each of its numbers comes.")
        libraries = {
            name: v for name, v in library_versions().items() if name in ("torch", "transformers", "trl", "peft")
        }
        origin = {"commit": self._state["commit"][:12], "day": time.strftime("%Y-%m-%d"), "libraries": libraries}
        self.lines.append({"key": key, **origin, "value": value})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)
        self.file.parent.mkdir(exist_ok=True)
        write_atomically(self.file, text)
        return value
