"""How far a long step is: a bar where a person watches, a small file for the runner when headless."""

import json
import os
import sys
import time
from pathlib import Path

from mipo_nb.base.files import write_atomically


def progress(rows, description):
    """Iterate with a progress bar: live where a person watches, a small file for the runner when headless."""
    rows = list(rows)
    if report := os.environ.get("MIPO_NB_PROGRESS"):
        return _reported(rows, description, Path(report))
    return bar(description, iterable=rows)


def bar(description, **options):
    """A bar of tqdm, now and then a line where nobody watches; hidden when headless, where `report_progress` tells."""
    watched = "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ or sys.stderr.isatty()
    if watched:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    options = {"mininterval": 0.1 if watched else 30, "disable": "MIPO_NB_PROGRESS" in os.environ, **options}
    return tqdm(desc=description, leave=False, **options)


def _reported(rows, description, file):
    last = 0.0
    for done, row in enumerate(rows):
        if time.time() - last > 1:
            last = time.time()
            report_progress(description, done, len(rows), file)
        yield row


def report_progress(description, done, total, file=None):
    """Tell the runner how far a step is. Does nothing outside a headless run."""
    if file := file or os.environ.get("MIPO_NB_PROGRESS"):
        write_atomically(file, json.dumps({"step": description, "done": done, "total": total}))
