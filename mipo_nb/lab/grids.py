"""Independent calls at once: those of a grid that are not found go to the workers of a Ray cluster.

A step is keyed by all that determines its result, so it does not matter who computes it. `Cluster.brought` sends each call
that is not found to a worker (`lab.workers`), by name where it holds a model or a file (`lab.names`), and waits until the
step lies in the run's own folder, where the run then finds it as ever. Nothing else is kept of a cluster: whatever is lost,
the same command goes on from the steps that are there.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections import Counter

from mipo_nb import prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import locked
from mipo_nb.base.progress import bar, report_progress
from mipo_nb.lab import names, workers
from mipo_nb.lab.store import make_folder, result_in

TRIES = 4  # of one call, each on a worker of its own
_LOOK = 1.0  # seconds from one look at the calls to the next
_MISSED = 3  # looks in turn at which the head does not answer, after which it is lost
_SEEN = 90  # seconds until a file that another machine wrote is seen through a network's file system


def checked(address):
    """What --workers may be: "ray", the cluster that this machine belongs to, or ray://HEAD:10001, one that it does not.
    Raises `UserError` for another address, and where Ray, or what it needs for that, is not installed."""
    if address != "ray" and not re.fullmatch(r"ray://[^\s/]+:\d+", address):
        raise UserError(f"--workers takes ray, or an address like ray://HEAD:10001, not '{address}'.")
    needs = ("ray", "grpc") if address.startswith("ray://") else ("ray",)
    if lacking := [name for name in needs if importlib.util.find_spec(name) is None]:
        raise UserError(f"--workers {address} needs {lacking[0]}, which is not installed: pip install -e '.[cluster]'.")
    return address


def cluster_of(settings):
    """The `Cluster` that the environment variable MIPO_NB_WORKERS asks a run with these settings to use; None for none. Raises
    `UserError` as `checked` and `Cluster` do, and for calls that need a GPU and do not ask for one."""
    address = os.environ.get("MIPO_NB_WORKERS")
    if address and settings.device == "cuda" and not settings.gpus_per_training:
        raise UserError("This run is on a GPU, and its workers are to have none; set gpus_per_training to 1.")
    return Cluster(checked(address), settings) if address else None


class Cluster:
    """A Ray cluster at an address that `checked` lets pass, and the needs of a run with `settings`: each call takes one of a
    worker's CPUs, which so are calls at once, and `gpus_per_training` GPUs. Raises `UserError` where none answers."""

    def __init__(self, address, settings):
        import ray

        self.settings, self.ray, self.head = settings, ray, _connected(ray, address)
        needs = {"num_cpus": 1, "num_gpus": settings.gpus_per_training, "max_retries": TRIES - 1}
        self._compute, self._missed, self._told = ray.remote(**needs)(workers.compute), 0, ""
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(workers.Board).remote()

    def brought(self, steps, name, function, calls):
        """Yield the number of each of `calls`, dictionaries of arguments, once its result lies among the `steps`: first of
        those that are found, then as workers are done.

        A call whose worker dies is tried again, `TRIES` times in all. Raises `UserError` where that was in vain, where the
        head is lost, for a worker with other versions, and as `names.pack` and the function do; what runs is stopped then.
        """
        lacking = {}
        for number, call in enumerate(calls):
            place = steps.place(function, **call)
            if result_in(place):
                yield number
            else:
                lacking.setdefault(place, []).append(number)
        if lacking:
            found = len(calls) - sum(map(len, lacking.values()))
            with _marked(steps.folder) as mark:
                packed = {at: self._packed(name, at, mark, function, calls[asked[0]]) for at, asked in lacking.items()}
                for place in self._done(name, packed, found):
                    yield from lacking[place]

    def _packed(self, name, place, mark, function, arguments):
        import torch

        also = {"frame": prompts.frame(), "rules": self.settings.rules_file or None}
        packed, named = names.pack({"function": function, "arguments": arguments, **also})
        fresh, threads = os.environ.get("MIPO_NB_FRESH", "0"), torch.get_num_threads()
        versions, folder = workers.versions(), str(place.parent)
        return workers.Call(name, place.name, folder, mark, versions, fresh, threads, packed, named)

    def _done(self, name, travelling, found):
        """Yield the folder of each step of `travelling`, {folder: `workers.Call`}, when it is there, beside those that were
        `found` before."""
        pending, sent = {self._send(call, {}): place for place, call in travelling.items()}, {}
        try:
            with bar(name, total=found + len(travelling)) as shown:
                while pending:
                    shown.n = shown.total - len(pending)
                    self._show(name, pending.values(), shown)
                    for reference in self._ended(list(pending)):
                        place = pending.pop(reference)
                        if isinstance(answer := self._answer(reference, name), dict):
                            _bring(answer, place)
                            yield place
                        else:  # files that this worker does not have
                            for file in (file for file in answer if file not in sent):
                                names.require_sendable(file.path)
                                sent[file] = self.ray.put(names.contents(file.path))
                            pending[self._send(travelling[place], sent)] = place
        finally:
            for reference in pending if self._missed < _MISSED else ():
                with contextlib.suppress(Exception):  # it may end in between, and Ray's errors are many
                    self.ray.cancel(reference, force=True)

    def _send(self, call, files):
        return self._compute.remote(call, self._board, files)

    def _ended(self, references):
        """Those of `references` that have ended, after some time. Raises `UserError` where the head is lost."""
        try:
            ended, _ = self.ray.wait(references, num_returns=len(references), timeout=_LOOK)
        except ConnectionError:
            raise self._lost() from None
        try:  # Ray itself would look for it for a minute, and then end this process
            _reach(self.head)
            self._missed = 0
        except OSError:
            self._missed += 1
        if self._missed >= _MISSED:
            raise self._lost()
        return ended

    def _lost(self):
        self._missed = _MISSED
        with contextlib.suppress(Exception):
            self.ray.shutdown()
        return UserError(
            f"The head of the cluster at {self.head} does not answer any more; start it and its workers again, then run this "
            "again: the steps that came back are found."
        )

    def _answer(self, reference, name):
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as e:
            if isinstance(e.cause, UserError):
                raise UserError(str(e.cause)) from None
            if "failed to import on the worker" in str(e):
                commit = workers.versions()["commit"]
                raise UserError(
                    f"A worker has no mipo_nb, or one without {workers.__name__}; install the commit {commit} there."
                ) from None
            raise
        except ConnectionError:
            raise self._lost() from None
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError) as e:
            reason = " ".join(str(e).split())[:200]
            raise UserError(
                f"The worker of '{name}' died at each of {TRIES} tries; look for its memory, or give it fewer at once: {reason}"
            ) from None

    def _show(self, name, places, shown):
        """Tell how many calls are done, and how many run or wait, and where."""
        hosts, unmet = {}, ""
        with contextlib.suppress(self.ray.exceptions.RayError, ConnectionError):  # only what is told
            hosts = self.ray.get(self._board.look.remote(), timeout=_LOOK)
            unmet = "" if hosts else self._unmet()
        running = Counter(hosts[place.name] for place in places if place.name in hosts)
        where = "".join(f", {n} on {host}" for host, n in sorted(running.items()))
        line = f"{running.total()} running{where}; {len(places) - running.total()} waiting{unmet}"
        if line != self._told:
            self._told = line
            shown.set_postfix_str(line)
        report_progress(f"{name}: {line}; done", shown.n, shown.total)

    def _unmet(self):
        there, gpus = self.ray.cluster_resources(), self.settings.gpus_per_training
        enough = there.get("CPU", 0) >= 1 and there.get("GPU", 0) >= gpus
        return "" if enough else f", as no machine offers a CPU and {gpus} GPUs"


def _connected(ray, address):
    """HOST:PORT of the head of the cluster at an address, to which this process is connected then."""
    try:
        head = address.removeprefix("ray://")
        if address == "ray":  # found as Ray finds it
            from ray._private.services import canonicalize_bootstrap_address_or_die

            head = canonicalize_bootstrap_address_or_die("auto")
        _reach(head)  # Ray would try for a quarter of an hour
        if not ray.is_initialized():
            ray.init("auto" if address == "ray" else address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"No cluster answers to --workers {address} ({reason}); start one by 'ray start --head', see docs/clusters.md."
        ) from None
    return head


def _reach(head):
    """Raise `OSError` where nobody listens at HOST:PORT."""
    host, _, port = head.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=5 * _LOOK).close()


@contextlib.contextmanager
def _marked(folder):
    """The name of a file that lies in a folder meanwhile: who sees it sees the folder."""
    make_folder(folder)
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


def _bring(sent, place):
    """Put the files of steps into the run's folder, those that are not there; see that what was computed is there."""
    for name, files in sent.items():
        target = place.with_name(name)
        with locked(target.with_name(f".{name}.lock"), lambda: None):
            if result_in(target) is None:
                shutil.rmtree(target, ignore_errors=True)
                names.put(files, target)
                os.utime(target / "result.json")  # by this machine's clock
    until = time.monotonic() + _SEEN
    while result_in(place) is None:
        if time.monotonic() > until:
            raise UserError(f"A worker wrote {place.name}, which is not seen here; look at the folder {place.parent}.")
        time.sleep(_LOOK)
