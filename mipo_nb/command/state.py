"""What runs leave behind: one writer at a time, which notebooks are finished for sure, and clearing up."""

import contextlib
import fcntl
import json
import shutil
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically


def profile_folder(output_dir, profile):
    """Where the runs of a profile lie; a relative `output_dir` is taken from the project's root."""
    return project_root() / Path(output_dir).expanduser() / Path(profile).stem


@contextlib.contextmanager
def alone(folder):
    """Lock a folder for this process; the system releases it however the process ends. Raises `UserError` while another
    process holds it, or where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as e:
        raise UserError(f"The output folder {folder} cannot be written ({e.strerror}); set --output-dir.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another run is writing to {folder}; wait for it, or set --output-dir.") from None
        yield


def keep(folder, key, seconds, error=None):
    """Store how the notebook of this folder ended: after how many seconds, and with which error, if any."""
    write_atomically(folder / "state.json", json.dumps({"key": key, "seconds": seconds, "error": error}))


def ended(folder):
    """The dictionary that `keep` wrote, or None where a notebook has not ended: it runs, or was killed."""
    try:
        return json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finished(folder, key):
    """The seconds of a notebook that finished with this key and no error, or None."""
    last = ended(folder)
    return last["seconds"] if last and not last["error"] and key is not None and last["key"] == key else None


def clean(folder, notebooks):
    """Remove a profile's folder. Returns the bytes freed.

    Raises `UserError` where there is none, when it holds a person's ratings or anything but runs of these notebooks, or
    while a run is going on in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; nothing was removed.")
    strange = sorted({p.name for p in folder.iterdir()} - {"steps", ".lock", "report.html", "train", *notebooks})
    if strange:
        raise UserError(f"{folder} holds '{strange[0]}', which no run made; move it away first.")
    for ratings in sorted(folder.rglob("blind_ratings.csv")):
        raise UserError(f"{ratings} holds a person's ratings, which no run can make again; move it away first.")
    with alone(folder):
        freed = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        shutil.rmtree(folder)
    return freed
