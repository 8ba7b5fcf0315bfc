"""Run notebooks headless through papermill: progress, errors in one sentence, a stamp, and a state that can be trusted."""

import difflib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path

from mipo_nb import state
from mipo_nb.runs import project_root
from mipo_nb.settings import UserError, did_you_mean

_POLL_SECONDS = 1.0
_PLAIN_SECONDS = 30.0  # between lines of progress where no terminal is


def notebook_paths():
    """All notebooks of the collection, {name: path}, in order."""
    return {p.stem: p for p in sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def read(path):
    import nbformat

    return nbformat.read(path, as_version=4)


def selected(numbers):
    """Paths for "11", "11_qlora_mipo" or a file name; without any, the main notebooks."""
    known = notebook_paths()
    if not numbers:
        return [p for p in known.values() if read(p).metadata.get("mipo_nb", {}).get("main")]
    chosen = []
    for wanted in numbers:
        name = Path(wanted).stem
        found = [p for stem, p in known.items() if stem == name or stem.split("_")[0] == name]
        if not found:
            raise UserError(f"There is no notebook '{wanted}'; {did_you_mean(wanted, known)}")
        chosen += found
    return chosen


def parameter_names(path):
    """Names that the notebook's `parameters` cell sets."""
    import papermill

    return list(papermill.inspect_notebook(str(path)))


def require_dry_run(paths):
    """Raise `UserError` for a notebook that has no dry run."""
    for path in paths:
        if "DRY_RUN" not in parameter_names(path):
            raise UserError(f"{path.stem} has no dry run; its parameters have no DRY_RUN.")


def check_parameters(paths, parameters):
    """Raise `UserError` for a parameter that none of the notebooks has."""
    known = {name for path in paths for name in parameter_names(path)}
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
            raise UserError(f"Unknown parameter '{name}'; {hint}")


def finished(path, *, profile, parameters, output_dir, inject=True):
    """What `execute` returned for this same notebook, package, data, profile and parameters, or None."""
    folder = state.profile_folder(output_dir, profile) / path.stem
    seconds = state.finished(folder, state.key(code_hash(read(path)), profile, parameters, inject))
    if seconds is None or not (folder / path.name).exists():
        return None
    return {"notebook": path.stem, "seconds": seconds, "error": None, "folder": folder, "interrupted": False}


def execute(path, *, profile, parameters, output_dir, console, inject=True, timeout=None):
    """Run one notebook in a kernel of its own. Returns {"notebook", "seconds", "error", "folder", "interrupted"}.

    `inject=False` leaves the notebook's own parameters as they are; `timeout` is in seconds for any one cell, the
    profile's where None. The executed copy lies in the run's folder. When a cell fails, the partial copy is kept beside
    it under the name `NAME.failed.ipynb`, and `error` is one sentence. With the parameter DRY_RUN there are
    "findings" too, and it is an error if one must be mended; the copy has no stamp, and never counts as finished.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from mipo_nb import dry_run, settings

    numbers = settings.profile_numbers(profile, path.stem)
    folder = state.profile_folder(output_dir, profile) / path.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"The output folder {folder} cannot be written ({e.strerror}); set --output-dir.") from None
    partial, final = folder / f"{path.stem}.failed.ipynb", folder / f"{path.stem}.ipynb"
    known = parameter_names(path)
    injected = {"PROFILE": profile, "OUTPUT_DIR": str(output_dir), **parameters} if inject else parameters
    injected = {name: value for name, value in injected.items() if name in known}
    key = state.key(code_hash(read(path)), profile, parameters, inject)
    dry = bool(parameters.get("DRY_RUN"))
    for old in ("state.json", "manifest.json", "results.json", dry_run.FILE):  # lest an earlier run's be found later
        (folder / old).unlink(missing_ok=True)
    for library in ("papermill", "asyncio"):  # they log once more, at length, what is told in one sentence here
        logging.getLogger(library).setLevel(logging.CRITICAL)
    begun, error, interrupted = time.time(), None, False
    with _shown_progress(folder / ".progress.json", path.stem, console):
        try:
            papermill.execute_notebook(
                str(path),
                str(partial),
                parameters=injected,
                kernel_name="python3",
                cwd=str(project_root()),
                progress_bar=False,
                log_output=False,
                start_timeout=180,
                execution_timeout=timeout or numbers["time_out"],
                extra_arguments=["--log-level=CRITICAL"],  # what goes wrong is in the cell, or told below
            )
        except PapermillExecutionError as e:
            first = (e.evalue.strip().splitlines() or [""])[0]
            error = (
                f"{path.stem}: {first}"
                if e.ename == "UserError"
                else f"{path.stem}, cell {e.exec_count}: {e.ename}: {first}"
            )
        except KeyboardInterrupt:
            error, interrupted = f"{path.stem}{_where(partial)}: interrupted.", True
        except Exception as e:  # a dead kernel or a time-out
            error = f"{path.stem}{_where(partial)}: {type(e).__name__}: {(str(e).strip().splitlines() or [''])[0]}"
    if error is None and not (folder / "manifest.json").exists():
        error = f"{path.stem} wrote its run to another folder than {folder}; leave PROFILE and OUTPUT_DIR to mipo-nb."
    seconds = time.time() - begun
    try:
        if error is None:
            if not dry:
                _stamp(partial, folder)
            os.replace(partial, final)
        if not dry:
            state.keep(folder, key, seconds, error)
    except (OSError, UserError) as e:  # a full disk
        error = error or f"{path.stem}: {e}"
    ended = {"notebook": path.stem, "seconds": seconds, "error": error, "folder": folder, "interrupted": interrupted}
    return {**ended, **dry_run.outcome(path.stem, folder, error)} if dry else ended


def _where(partial):
    """ ", cell N" of the cell that was running when the notebook ended, as far as its partial copy tells."""
    try:
        cells = [c for c in read(partial).cells if c.cell_type == "code"]
    except (OSError, ValueError):
        return ""
    begun = [k for k, c in enumerate(cells, 1) if c.metadata.get("papermill", {}).get("start_time")]
    return f", cell {begun[-1]}" if begun else ""


class _shown_progress:
    """Show what the kernel reports in its progress file: a live line in a terminal, else a line now and then."""

    def __init__(self, file, name, console):
        self.file, self.name, self.console = file, name, console

    def __enter__(self):
        self.file.unlink(missing_ok=True)
        os.environ["MIPO_NB_PROGRESS"] = str(self.file)
        self.begun, self.over = time.time(), threading.Event()
        self.status = self.console.status(self.name)
        self.status.start()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()
        self.status.stop()
        os.environ.pop("MIPO_NB_PROGRESS", None)
        self.file.unlink(missing_ok=True)

    def _watch(self):
        printed = time.time()
        while not self.over.wait(_POLL_SECONDS):
            line = f"{self.name}  {(time.time() - self.begun) / 60:4.1f} min"
            try:
                at = json.loads(self.file.read_text(encoding="utf-8"))
                line += f"  {at['step']} {at['done']}/{at['total']}"
            except (OSError, ValueError):
                pass  # nothing reported yet
            if self.console.is_terminal:
                self.status.update(line)
            elif time.time() - printed > _PLAIN_SECONDS:
                printed = time.time()
                print(line, flush=True)


def code_hash(notebook):
    """Hash of the sources of a notebook's code cells, the injected parameters left out."""
    sources = [
        c.source
        for c in notebook.cells
        if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
    ]
    return hashlib.sha256("\n\x00".join(sources).encode()).hexdigest()[:16]


def _stamp(file, folder):
    """Put manifest, results and the hash of the code into the executed notebook's metadata; drop papermill's own."""
    import nbformat

    notebook = read(file)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    kept = {"main": notebook.metadata.get("mipo_nb", {}).get("main", False)}
    notebook.metadata["mipo_nb"] = {**kept, "code": code_hash(notebook), "manifest": manifest, "results": results}
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    nbformat.write(notebook, file)


def publish(path, folder):
    """Copy an executed notebook and its figures from a run's folder into the collection.

    Raises `UserError` for a run that is not of the laptop profile, or was given other parameters.
    """
    executed = read(folder / path.name)
    if executed.metadata["mipo_nb"]["manifest"]["profile"] != "laptop":
        raise UserError("Committed outputs come from the laptop profile; run with --profile laptop to publish.")
    if any("injected-parameters" in c.metadata.get("tags", []) for c in executed.cells):
        raise UserError("Committed outputs come from the notebook's own parameters; publish without -p.")
    figures = project_root() / "figures"
    figures.mkdir(exist_ok=True)
    for file in sorted((folder / "figures").glob("*")):
        _copy(file, figures / f"{path.stem[:2]}_{file.name}")
    _copy(folder / path.name, path)


def _copy(file, target):
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(file, temporary)
    os.replace(temporary, target)
