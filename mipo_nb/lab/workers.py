"""What a worker of a Ray cluster does with a call: looks whether it is fit for it, finds its files, computes the step.

A worker that sees the run's folder of steps computes there, as another run would, and nothing is copied. One that does not,
or that is told by MIPO_NB_SCRATCH to use a folder of its own, computes in steps of its own and sends their files back.
"""

import contextlib
import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from mipo_nb import preferences, prompts
from mipo_nb.base.embedded import cache_folder
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash, digest, locked, project_root
from mipo_nb.engine.process import keep_to_quota, quieten
from mipo_nb.lab import names
from mipo_nb.lab.provenance import git_state, library_versions, package_version
from mipo_nb.lab.steps import fingerprint
from mipo_nb.lab.store import Steps, make_folder


@dataclass(frozen=True)
class Call:
    """One step for a worker: its `name` for people and its folder's name, the run's folder of steps with the name of a `mark`
    that lies there, the `versions` that made its key, and the function with its arguments as `names.pack` gives them."""

    name: str
    place: str
    folder: str
    mark: str
    versions: dict
    fresh: str
    threads: int
    packed: bytes
    named: tuple


class Board:
    """An actor that knows on which machine each step was begun last."""

    def __init__(self):
        self.hosts = {}

    def begin(self, place, host):
        self.hosts[place] = host

    def look(self):
        return self.hosts


@functools.cache
def versions():
    """{what makes numbers: its version}: the commit, a hash of code and data, and the libraries."""
    git = git_state() or {"commit": None, "dirty": False}
    commit = f"{str(git['commit'])[:12]}{' with changes' if git['dirty'] else ''}"
    data = content_hash(sorted((project_root() / "data").glob("*.jsonl")))
    return {"commit": commit, "code and data": digest([package_version(), data])[:12], **library_versions()}


def compute(call, board, files):
    """Compute one step. Returns {folder's name: its files} of all steps that it took, for a run that does not see them; or
    the list of files (`names.File`) that are not here, and lacking in `files`, {file: reference to its contents}.

    Raises `UserError` for other versions here than `call` has, and as the function does.
    """
    _require(call.versions)
    board.begin.remote(call.place, socket.gethostname())
    folder, is_shared = _folder(call)
    absent = [file for file in names.files_among(call.named) if not _is_here(file, folder)]
    if lacking := [file for file in absent if file not in files]:
        return lacking
    for file in absent:
        _keep(file, folder, files[file])
    import torch

    quieten()
    keep_to_quota()  # once, and now, lest loading a model does it later
    torch.set_num_threads(call.threads)  # another number sums in another order
    os.environ["MIPO_NB_FRESH"] = call.fresh
    steps = Steps(folder)
    asked = names.unpack(call.packed, call.named, steps, lambda file: _path(file, folder))
    preferences.add_kinds(asked["rules"])
    prompts.use(asked["frame"])
    steps.settled(call.name, folder / call.place, asked["function"], **asked["arguments"])
    return {} if is_shared else {place.name: names.contents(place) for place in steps.places}


def _require(wanted):
    found = versions()
    if differ := [name for name in wanted if found.get(name) != wanted[name]]:
        what = ", ".join(f"{name} {found.get(name)} in place of {wanted[name]}" for name in differ)
        raise UserError(
            f"The worker on {socket.gethostname()} has {what}; bring it to the commit and the versions of this run, as "
            "'git checkout' and 'make env' do, and start it again."
        )


def _folder(call):
    """(the folder of steps to compute in, whether the run sees it)."""
    own, shared = os.environ.get("MIPO_NB_SCRATCH"), Path(call.folder)
    if not own and (shared / call.mark).is_file():
        return shared, True
    folder = (Path(own).expanduser() if own else cache_folder()) / "steps"
    make_folder(folder)
    return folder, False


def _kept(file, folder):
    """Where a file that was sent lies on this machine."""
    return folder / "sent" / file.identity / Path(file.path).name


def _is_at_home(file):
    path = Path(file.path)
    return path.exists() and digest(fingerprint(path))[:16] == file.identity


def _is_here(file, folder):
    return _is_at_home(file) or _kept(file, folder).exists()


def _path(file, folder):
    return file.path if _is_at_home(file) else _kept(file, folder)


def _keep(file, folder, reference):
    """Write a file that was sent, once on this machine."""
    import ray

    path = _kept(file, folder)
    make_folder(path.parent)
    with locked(path.parent / ".lock", lambda: None), contextlib.suppress(FileExistsError):
        if not _is_here(file, folder):
            names.put(ray.get(reference), path)
