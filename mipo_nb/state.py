"""What runs leave behind: one writer at a time, notebooks that are finished and why that can be trusted, and clearing up."""

import contextlib
import fcntl
import hashlib
import json
import shutil
from pathlib import Path

from mipo_nb.provenance import digest, package_version
from mipo_nb.runs import project_root, write_atomically
from mipo_nb.settings import UserError, profile_file


def profile_folder(output_dir, profile):
    """Where the runs of a profile lie; a relative `output_dir` is taken from the project's root."""
    return project_root() / Path(output_dir).expanduser() / Path(profile).stem


@contextlib.contextmanager
def alone(folder):
    """Hold a folder for this process. Raises `UserError` while another one holds it, or where it cannot be written.

    The system lets go of it whenever and however the process ends.
    """
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


def key(code, profile, parameters, inject=True):
    """Hash of what a finished notebook stands on: its code's hash, the package, the data, profile and parameters.

    None where a parameter names a folder, whose content is not looked at: such a notebook is never taken as finished.
    """
    files = [*sorted((project_root() / "data").glob("*.jsonl")), profile_file(profile)]
    for value in parameters.values():
        given = project_root() / Path(value).expanduser() if isinstance(value, str) and value else None
        if given and given.is_dir():
            return None
        files += [given] if given and given.is_file() else []
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return digest([code, package_version(), profile, parameters, inject, hashes])


def keep(folder, key, seconds, error=None):
    """Write down how the notebook of this folder ended: after how many seconds, and with which error, if any."""
    write_atomically(folder / "state.json", json.dumps({"key": key, "seconds": seconds, "error": error}))


def ended(folder):
    """What `keep` wrote, or None where a notebook has not ended: it runs, or was killed."""
    try:
        return json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finished(folder, key):
    """The seconds of a notebook that finished with this key and no error, or None."""
    found = ended(folder)
    ok = found and not found["error"] and key is not None and found["key"] == key
    return found["seconds"] if ok else None


def clean(folder, notebooks):
    """Remove a profile's folder. Returns the bytes freed.

    Raises `UserError` when it holds anything but runs of these notebooks, or a run is going on in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; nothing was removed.")
    strange = sorted({p.name for p in folder.iterdir()} - {"steps", ".lock", "report.html", *notebooks})
    if strange:
        raise UserError(f"{folder} holds '{strange[0]}', which no run made; move it away first.")
    for ratings in sorted(folder.rglob("blind_ratings.csv")):
        raise UserError(f"{ratings} holds a person's ratings, which no run can make again; move it away first.")
    with alone(folder):
        freed = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        shutil.rmtree(folder)
    return freed
