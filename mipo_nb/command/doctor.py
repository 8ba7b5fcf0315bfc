"""What this machine has, what each profile would do on it, and what to mend."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import hardware, processor
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


def rows(findings):
    """Findings as a table's rows: how each stands, what was looked at, what was found, what to do."""
    marks = {True: "ok", None: "-", False: "MEND"}
    return [{"": marks[f.good], "what": f.what, "found": f.found, "what to do": f.mend} for f in findings]


def table(findings):
    """`rows` for the terminal, a `rich` table."""
    from rich.table import Table

    made = Table("", "what", "found", "what to do")
    for row in rows(findings):
        made.add_row(*row.values())
    return made


def examine(output_dir="runs"):
    """A list, each a `Finding`: Python, processor, memory, GPU, 4-bit weights, models, disk, networks."""
    machine = hardware()
    return [
        _python(),
        *_processor(machine),
        _four_bit(),
        *_places(Path(output_dir)),
        *_networks(),
    ]


def _python():
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("Python", version, good, "" if good else "Make the environment with Python 3.11 or newer.")


def _processor(machine):
    gigabytes = machine.memory / _GB
    yield Finding("processor", f"{processor()}, {machine.cores} cores", True)
    enough = gigabytes >= _MEMORY
    yield Finding(
        "memory",
        f"{gigabytes:.0f} GB",
        True if enough else None,
        ""
        if enough
        else f"The laptop profile wants {_MEMORY} GB; lower batch_size and raise accumulate, or use smoke.",
    )
    yield Finding("weights are held in", machine.dtype, True)
    if machine.cuda:
        yield Finding("GPU", f"{machine.cuda}, {machine.cuda_memory / _GB:.0f} GB", True)
    else:
        yield Finding(
            "GPU", "none that CUDA sees", None, "None is needed for smoke and laptop; the gpu profile needs one."
        )


def _four_bit():
    try:
        import bitsandbytes
    except Exception as e:  # a library that is there and does not load says so in many ways
        return Finding("4-bit weights", f"bitsandbytes does not load ({e})", None, "Only four_bit = True needs it.")
    return Finding("4-bit weights", f"bitsandbytes {bitsandbytes.__version__}", True)


def _places(output_dir):
    from mipo_nb.base.embedded import EMBEDDED, cache_folder, cache_path
    from mipo_nb.base.files import project_root

    try:
        cache = cache_folder()
    except UserError as e:
        yield Finding("cache", "cannot be written", False, str(e))
        return
    missing = [name for name in EMBEDDED if not cache_path(name).exists()]
    yield Finding(
        "embedded models",
        f"not yet: {', '.join(missing)}" if missing else f"all in {_short(cache)}",
        None if missing else True,
        "They are fetched at the first run; without a network set MIPO_NB_CACHE to a copy of a filled cache."
        if missing
        else "",
    )
    for what, place in (("disk at the cache", cache), ("disk at the runs", project_root() / output_dir.expanduser())):
        there = next(p for p in (place, *place.parents) if p.exists())
        free = shutil.disk_usage(there).free / _GB
        good = free >= _DISK
        yield Finding(what, f"{free:.0f} GB free", good, "" if good else f"Make {_DISK} GB free, or move it elsewhere.")


def _short(path):
    """A path below the home folder as ~/..."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _networks():
    from mipo_nb.base.embedded import EMBEDDED

    name = next(iter(EMBEDDED.values())).requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--disable-pip-version-check", "--retries", "0"]
    try:
        reached = subprocess.run([*command, "--timeout", "5"], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        reached = False
    yield Finding("package index", *_reach(reached, "Only the first fetch of the embedded models needs it."))
    yield Finding("model hub", *_reach(_hub_answers(), "Only models named by a hub id need it."))


def _hub_answers():
    import urllib.request

    from huggingface_hub.constants import ENDPOINT

    try:
        return urllib.request.urlopen(ENDPOINT, timeout=5).status < 500
    except OSError:
        return False


def _reach(reached, why):
    return ("reached", True, "") if reached else ("not reached", None, why)


def profiles():
    """[{"profile", "model", "weights", "here"}]: what each profile would do on this machine."""
    machine, found = hardware(), []
    for name in settings.profile_names():
        numbers = settings.profile_numbers(name, None)
        needed, has = numbers["needs_gb"], machine.cuda_memory / 1024**3
        can = has >= 0.95 * needed
        found.append(
            {
                "profile": name,
                "model": numbers["model"].partition("@")[0],
                "weights": "NF4" if numbers["four_bit"] else machine.dtype,
                "here": f"runs on {machine.cuda or 'the CPU'}"
                if can
                else f"needs a GPU of {needed} GB; there is {has:.0f}",
            }
        )
    return found
