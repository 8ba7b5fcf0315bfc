"""Run notebooks headless through papermill: progress, errors in one sentence, a stamp, and a reliable state."""

import contextlib
import hashlib
import json
import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import digest, project_root
from mipo_nb.command import state
from mipo_nb.lab import settings
from mipo_nb.lab.notebooks import Notebook, put_stamp
from mipo_nb.lab.provenance import library_versions, package_version

_POLL_SECONDS = 1.0
_PLAIN_SECONDS = 30.0  # between lines of progress where no terminal is
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Call:
    """One notebook, and what it is run with.

    `inject=False` leaves the notebook's own parameters as they are; `timeout` is in seconds for any one cell (0: the
    profile's). Raises `UserError` for a profile that does not serve the notebook, and for a value that it does not take.
    """

    notebook: Notebook
    profile: str
    parameters: dict = field(default_factory=dict)
    output_dir: Path = Path("runs")
    inject: bool = True
    timeout: int = 0

    def __post_init__(self):
        numbers = settings.profile_numbers(self.profile, self.notebook.name)
        known = {"seed", "adapter", *numbers}
        if values := {n.lower(): value for n, value in self.injected.items() if n.lower() in known}:
            settings.resolve(self.profile, self.notebook.name, **values)  # as the notebook will

    @property
    def folder(self):
        return state.profile_folder(self.output_dir, self.profile) / self.notebook.name

    @property
    def executed(self):
        """Where the executed copy lies once the call has ended well."""
        return self.folder / self.notebook.path.name

    @property
    def partial(self):
        """Where it lies until then, and stays when a cell fails."""
        return self.folder / f"{self.notebook.name}.failed.ipynb"

    @property
    def injected(self):
        """The parameters that papermill is to put into the notebook, those that it has."""
        values = {"PROFILE": self.profile, "OUTPUT_DIR": str(self.output_dir)} if self.inject else {}
        values |= self.parameters
        names = {*self.notebook.parameters, *settings.in_capitals(self.profile, self.notebook.name)}
        return {name: value for name, value in values.items() if name in names}

    @cached_property
    def key(self):
        """Hash of what a finished notebook depends on: code, package, libraries, data, profile, parameters, and of the kept
        results those that it names.

        None where a parameter names a folder, whose content is not read: this notebook never counts as finished.
        """
        sources = "".join(cell.source for cell in self.notebook.code_cells)
        kept = [f for f in sorted((project_root() / "results").glob("*.jsonl")) if f'"{f.stem}"' in sources]
        files = [*sorted((project_root() / "data").glob("*.jsonl")), *kept, settings.profile_file(self.profile)]
        numbers = settings.profile_numbers(self.profile, self.notebook.name)
        named = [*self.parameters.values(), numbers.get("data"), numbers.get("rules_file")]
        for text in (value for value in named if isinstance(value, str) and value):
            path = project_root() / Path(text).expanduser()
            if path.is_dir():
                return None
            files += [path] if path.is_file() else []
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        versions = [package_version(), library_versions()]
        return digest([self.notebook.code, versions, self.profile, self.parameters, self.inject, hashes])


@dataclass(frozen=True)
class Ended:
    """How a call ended: after how many seconds, with which error (one sentence), if any, and by which signal, if any."""

    call: Call
    seconds: float
    error: str | None = None
    signal: int | None = None


def finished(call):
    """The `Ended` of an earlier, successful execution of this same call, or None."""
    seconds = state.finished(call.folder, call.key)
    return None if seconds is None or not call.executed.exists() else Ended(call, seconds)


def execute(call, console):
    """Run one notebook in a kernel of its own, stamp the executed copy, store how it ended. Returns an `Ended`. Raises
    `UserError` as `run_through` does."""
    key, modules, begun = call.key, call.notebook.modules, time.time()
    error, ended_by = run_through(call, console)
    seconds = time.time() - begun
    try:
        if error is None:
            put_stamp(call.partial, call.folder, modules)
            os.replace(call.partial, call.executed)
        state.keep(call.folder, key, seconds, error)
    except (OSError, UserError) as e:  # a full disk
        error = error or f"{call.notebook.name}: {e}"
    return Ended(call, seconds, error, ended_by)


def run_through(call, console):
    """Run one notebook up to its end, or to the first cell that fails; the copy is `call.partial`. Returns (error as
    one sentence or None, the signal that ended it or None). Raises `UserError` for a folder that cannot be written."""
    folder, name = call.folder, call.notebook.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"The output folder {folder} cannot be written ({e.strerror}); set --output-dir.") from None
    for earlier in ("state.json", "manifest.json", "results.json"):  # lest an earlier run's be found later
        (folder / earlier).unlink(missing_ok=True)
    with _shown_progress(folder / ".progress.json", name, console):
        error, ended_by = _through_papermill(call)
    if error is None and not (folder / "manifest.json").exists():
        error = f"{name} wrote its run to another folder than {folder}; leave PROFILE and OUTPUT_DIR to mipo-nb."
    return error, ended_by


def _through_papermill(call):
    """(error as one sentence or None, the signal that ended it or None) of an execution."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    for library in ("papermill", "asyncio"):  # they log at length what is one sentence here
        logging.getLogger(library).setLevel(logging.CRITICAL)
    name = call.notebook.name
    try:
        with _signals_end_the_kernel_too():
            papermill.execute_notebook(
                str(call.notebook.path), str(call.partial), parameters=call.injected, kernel_name="python3",
                kernel_manager_class=_kernel_of_this_python(), cwd=str(project_root()), progress_bar=False,
                log_output=False, start_timeout=180,
                execution_timeout=call.timeout or settings.profile_numbers(call.profile, name)["time_out"],
                extra_arguments=["--log-level=CRITICAL"],  # errors are shown in the cell, or returned below
            )  # fmt: skip
    except PapermillExecutionError as e:
        where = name if e.ename == "UserError" else f"{name}, cell {e.exec_count}: {e.ename}"
        return f"{where}: {_first_line(e.evalue)}", None
    except KeyboardInterrupt as e:
        [number] = e.args or [signal.SIGINT]
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        return f"{name}{_where(call.partial)}: {how}.", number
    except Exception as e:  # a dead kernel or a time-out
        return f"{name}{_where(call.partial)}: {type(e).__name__}: {_first_line(str(e))}", None
    return None, None


def _kernel_of_this_python():
    """The class of a kernel's manager that starts this very Python, whatever `python3` stands for on Jupyter's path."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    here = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
    return type("Manager", (AsyncKernelManager,), {"kernel_spec": here})


@contextlib.contextmanager
def _signals_end_the_kernel_too():
    """Have signals end the kernel as well, through papermill: one that is left ends by itself, but not in a long call
    that holds Python's lock. A signal that is ignored, as SIGHUP is under `nohup`, stays so."""

    def end(number, frame):
        for each in _ENDING:  # a second one would cut the shutdown short
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before = {each: signal.signal(each, end) for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _first_line(text):
    return next(iter(text.strip().splitlines()), "")


def _where(partial):
    """ ", cell N" of the cell that was running when the notebook ended, as far as its partial copy shows."""
    try:
        cells = Notebook(partial).code_cells
    except (OSError, ValueError):
        return ""
    started = [k for k, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    return f", cell {started[-1]}" if started else ""


@contextlib.contextmanager
def _shown_progress(file, name, console):
    """Show what the kernel reports in its progress `file`: a live line in a terminal, else a line now and then."""
    file.unlink(missing_ok=True)
    os.environ["MIPO_NB_PROGRESS"] = str(file)
    over = threading.Event()
    with console.status(name) as status:
        thread = threading.Thread(target=_watch, args=(file, name, console, status, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            os.environ.pop("MIPO_NB_PROGRESS", None)
            file.unlink(missing_ok=True)


def _watch(file, name, console, status, over):
    begun = printed = time.time()
    while not over.wait(_POLL_SECONDS):
        line = f"{name}  {(time.time() - begun) / 60:4.1f} min"
        try:
            progress = json.loads(file.read_text(encoding="utf-8"))
            line += f"  {progress['step']} {progress['done']}/{progress['total']}"
        except (OSError, ValueError):
            pass  # nothing reported yet
        if console.is_terminal:
            status.update(line)
        elif time.time() - printed > _PLAIN_SECONDS:
            printed = time.time()
            print(line, flush=True)
