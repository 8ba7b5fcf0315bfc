"""What this machine has, what each profile would do on it, and what to mend."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.base.hardware import hardware, processor
from mipo_nb.engine.process import quieten
from mipo_nb.lab import settings

_GB = 1e9
_MEMORY = 8  # GB: the laptop profile's largest notebook takes six, the system the rest
_DISK = 4  # GB: both embedded models, their downloads, and a few runs


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `good` is False where something must be mended, None where it may stay as it is."""

    what: str
    found: str
    good: bool | None = True
    mend: str = ""


def judged(what, found, good, mend):
    """A `Finding` that says what to do only where it is not good."""
    return Finding(what, found, good, "" if good else mend)


def rows(findings):
    """Findings as rows of a table: its state, what was looked at, what was found, what to do."""
    marks = {True: "ok", None: "-", False: "MEND"}
    return [{"": marks[f.good], "what": f.what, "found": f.found, "what to do": f.mend} for f in findings]


def table(findings):
    """`rows` for the terminal, a `rich` table."""
    from rich.table import Table

    page = Table("", "what", "found", "what to do")
    for column in page.columns:
        column.overflow = "fold"  # a long path is to be read to its end
    for row in rows(findings):
        page.add_row(*row.values())
    return page


def examine(output_dir="runs"):
    """A list, each a `Finding`: Python, processor, memory, GPU, 4-bit weights, models, disk, networks."""
    return [_python(), *_processor(hardware()), _four_bit(), *_folders(Path(output_dir)), *_networks()]


def _python():
    version, good = ".".join(map(str, sys.version_info[:3])), sys.version_info >= (3, 11)
    return judged("Python", version, good, "Make the environment with Python 3.11 or newer.")


def _processor(machine):
    yield Finding("processor", f"{processor()}, {machine.cores} cores")
    gigabytes = machine.memory / _GB
    mend = f"The laptop profile wants {_MEMORY} GB; lower batch_size and raise accumulate, or use smoke."
    yield judged("memory", f"{gigabytes:.0f} GB", gigabytes >= _MEMORY or None, mend)
    yield Finding("weights are held in", machine.dtype)
    gpu = f"{machine.cuda}, {machine.cuda_memory / _GB:.0f} GB" if machine.cuda else "none that CUDA sees"
    mend = "None is needed for smoke and laptop; the gpu profile needs one."
    yield judged("GPU", gpu, bool(machine.cuda) or None, mend)


def _four_bit():
    quieten()
    try:
        import bitsandbytes
    except Exception as e:  # a library that is there and does not load says so in many ways
        return Finding("4-bit weights", f"bitsandbytes does not load ({e})", None, "Only four_bit = True needs it.")
    return Finding("4-bit weights", f"bitsandbytes {bitsandbytes.__version__}")


def _folders(output_dir):
    from mipo_nb.base.embedded import EMBEDDED, cache_folder, cache_path

    try:
        cache = cache_folder()
    except UserError as e:
        yield Finding("cache", "cannot be written", False, str(e))
        return
    missing = ", ".join(name for name in EMBEDDED if not cache_path(name).exists())
    state = f"not yet: {missing}" if missing else f"all in {_short(cache)}"
    mend = "They are fetched at the first run; without a network set MIPO_NB_CACHE to a copy of a filled cache."
    yield judged("embedded models", state, not missing or None, mend)
    for what, folder in (("disk at the cache", cache), ("disk at the runs", project_root() / output_dir.expanduser())):
        free = free_bytes(folder) / _GB
        yield judged(what, f"{free:.0f} GB free", free >= _DISK, f"Make {_DISK} GB free, or move it elsewhere.")


def free_bytes(folder):
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _short(path):
    """A path below the home folder as ~/..."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _networks():
    for what, answers, use in (
        ("package index", _index_answers, "Only the first fetch of the embedded models needs it."),
        ("model hub", _hub_answers, "Only models named by a hub id need it."),
    ):
        try:
            reached = answers()
            yield judged(what, "reached" if reached else "not reached", reached or None, use)
        except UserError as e:
            yield Finding(what, "cannot be asked", None, str(e))


def _index_answers():
    from mipo_nb.base.embedded import EMBEDDED, pip

    name = next(iter(EMBEDDED.values())).requirement.partition("==")[0]
    command = [*pip(), "index", "versions", name, "--disable-pip-version-check", "--retries", "0"]
    try:
        return subprocess.run([*command, "--timeout", "5"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _hub_answers():
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    try:
        return urllib.request.urlopen(ENDPOINT, timeout=5).status < 500
    except OSError:
        return False


def profiles():
    """[{"profile", "model", "weights", "here"}]: what each profile would do on this machine."""
    machine, uses = hardware(), []
    gigabytes = machine.cuda_memory / 1024**3
    for name in settings.profile_names():
        numbers = settings.profile_numbers(name, None)
        here = f"runs on {machine.cuda or 'the CPU'}"
        if gigabytes < 0.95 * numbers["needs_gb"]:
            here = f"needs a GPU of {numbers['needs_gb']} GB; there is {gigabytes:.0f}"
        weights = "NF4" if numbers["four_bit"] else machine.dtype
        uses.append({"profile": name, "model": numbers["model"].partition("@")[0], "weights": weights, "here": here})
    return uses
