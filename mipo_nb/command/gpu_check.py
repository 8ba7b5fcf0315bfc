"""`make gpu-check`: ten minutes on a machine with CUDA that say whether this project is right there, how fast, how large.

First the tests of tests/test_cuda.py. Then training steps and sampled tokens of random models in the shapes of known
ones, by this project and by the libraries. It needs no network, no hub and no model. After every measurement it writes
`bench_cuda.csv`, and `bench_cuda.txt` to paste into an issue, so that whoever stops it keeps what there is.

    python -m mipo_nb.command.gpu_check --wheels folder  # wheels of what is not installed, such as trl and bitsandbytes
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.files import project_root
from mipo_nb.command import random_models

SIZES = ("Qwen2.5-0.5B", "Llama-3.2-1B", "Qwen2.5-1.5B", "Qwen2.5-7B")
PARTS = ("tests", "train", "sample")
_NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "pandas", "xxhash")
_OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}  # as pytest's report calls them


class Clock:
    """The time that is left. Nothing is begun when less is left than the longest measurement so far took."""

    def __init__(self, minutes):
        self.begun, self.longest = time.monotonic(), 0.0
        self.end = self.begun + 60 * minutes

    def left(self):
        """Seconds until the time is up."""
        return self.end - time.monotonic()

    def minutes(self):
        """Minutes since the beginning."""
        return (time.monotonic() - self.begun) / 60

    def attempt(self, function):
        """The dictionary that `function()` returns, or {"note": why there is none}."""
        if self.left() <= self.longest:
            return {"note": "skipped: the time was up."}
        begun = time.monotonic()
        try:
            return function()
        except Exception as e:  # what fails on a machine that nobody has seen is a result too
            return {"note": brief(e)}
        finally:
            self.longest = max(self.longest, time.monotonic() - begun)


def brief(error):
    """An error in one line, without names of anybody's folders."""
    first = next(iter(str(error).strip().splitlines()), "")
    text = first if isinstance(error, UserError) else f"failed: {type(error).__name__}: {first}"
    return text.replace(tempfile.gettempdir(), "").replace(str(Path.home()), "~")[:200]


def use_wheels(folder):
    """Put the packages in a folder's wheels before whatever is installed, here and in processes that are started here.
    Raises `UserError` where there are none."""
    wheels = sorted(Path(folder).expanduser().glob("*.whl"))
    if not wheels:
        raise UserError(f"There are no wheels in {folder}; name another folder, or leave --wheels out.")
    unpacked = tempfile.mkdtemp(prefix="gpu_check-")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    sys.path.insert(0, unpacked)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [unpacked, os.environ.get("PYTHONPATH")]))
    importlib.invalidate_caches()


def run_tests(seconds, file=None):
    """(lines that say what the tests of a file found, whether none failed); by default tests/test_cuda.py, in a process of
    its own that has so many seconds."""
    file = Path(file or project_root() / "tests" / "test_cuda.py")
    if importlib.util.find_spec("pytest") is None or not file.exists():
        return ["tests: skipped, for want of pytest or of a whole checkout"], True
    if seconds <= 0:
        return ["tests: skipped, the time was up"], True
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-W", "ignore", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", str(file), *options]
        try:
            done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return [f"tests: stopped after {seconds:.0f} s, when the time was up"], False
        if not report.exists():
            return ["tests: did not run", *(done.stdout + done.stderr).strip().splitlines()[-8:]], False
        cases = list(ElementTree.parse(report).iter("testcase"))
    found = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        said = [(_OUTCOMES[e.tag], e.get("message") or "") for e in case if e.tag in _OUTCOMES] or [("passed", "")]
        found[said[0][0]].append(f"  {said[0][0]}: {case.get('name')}: {brief(UserError(said[0][1]))}")
    counts = ", ".join(f"{len(lines)} {outcome}" for outcome, lines in found.items())
    return [f"tests: {counts}", *found["failed"], *found["skipped"]], not found["failed"]


def measured(sizes, parts, clock, machine, rate):
    """Rows of the table, one after the other; they lie in `gpu_page.COLUMNS`."""
    from mipo_nb.command import gpu_measures, gpu_page

    here = {"device": gpu_page.name_of(machine), "torch": gpu_page.versions()["torch"]}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:

            def write(folder=folder, size=size):
                random_models.write(folder, size, dtype=machine.dtype, device=machine.device)
                return {}

            obstacle = clock.attempt(write)
            load = gpu_measures.load_of(size)
            case = gpu_measures.Case(folder, load, machine.device, machine.dtype, rate)
            for labels, measure in gpu_measures.measurements(case, parts, vllm=size == sizes[0]):
                yield {"size": size, **labels, **here, **(obstacle or clock.attempt(measure))}


def check(sizes=SIZES, parts=PARTS, minutes=9.0, output=None):
    """Run the parts in order and write what they find to the folder `output`, by default figures/. Returns whether no test
    failed."""
    from mipo_nb.base.hardware import hardware
    from mipo_nb.command import gpu_measures, gpu_page
    from mipo_nb.engine.process import quieten
    from mipo_nb.lab.costs import product_rate

    quieten()
    clock, machine, rows = Clock(minutes), hardware(), []
    output = Path(output or project_root() / "figures")
    tests, good = run_tests(clock.left()) if "tests" in parts else (["tests: not asked for"], True)
    print("\n".join(tests), flush=True)
    rate, words = product_rate(machine.device, machine.dtype), gpu_measures.words(gpu_measures.load_of(sizes[0]))
    about = gpu_page.facts(machine, rate)

    def write():
        text = gpu_page.page(rows, tests, [*about, f"minutes: {clock.minutes():.1f}"], words)
        gpu_page.write(output, rows, text)
        return text

    for row in measured(sizes, parts, clock, machine, rate) if set(parts) - {"tests"} else ():
        rows.append(row)
        name = " ".join(filter(None, (row.get(label) for label in (*gpu_page.CASE, "route"))))
        print(f"{name}: {row.get('note') or format(row['tokens_s'], '.3g') + ' tokens/s'}", flush=True)
        write()
    print(f"\n{write()}\nThe page is {output / 'bench_cuda.txt'}; paste it into an issue.")
    return good


def _parser():
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of {', '.join(random_models.SHAPES)}; with commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="of tests, train, sample; with commas")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing more is begun (9)")
    parser.add_argument("--output", type=Path, help="a folder for the two files (figures/)")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels that go before what is installed")
    return parser


def main(arguments=None):
    """Entry point: returns the exit code, 1 where a test failed, 2 after a mistake that one sentence explains."""
    given = _parser().parse_args(arguments)
    try:
        sizes, parts = given.sizes.split(","), given.parts.split(",")
        for what, names, known in (("size", sizes, random_models.SHAPES), ("part", parts, PARTS)):
            for name in names:
                require_known(what, name, known)
        if given.wheels:
            use_wheels(given.wheels)
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise UserError(f"Not installed: {', '.join(missing)}; install them, or put their wheels into --wheels.")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # whatever is not here is not asked for anywhere
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return 0 if check(sizes, parts, given.minutes, given.output) else 1
    except UserError as e:
        print(e, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
