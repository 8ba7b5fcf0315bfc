"""What `gpu_check` leaves: a table for programs, and a page of plain text to paste into an issue."""

import platform

import mipo_nb
from mipo_nb.base.files import write_atomically
from mipo_nb.base.hardware import processor
from mipo_nb.lab.provenance import git_state, library_versions, package_version

COLUMNS = (
    "size", "part", "weights", "checkpointing", "route", "pairs_s", "tokens_s", "times", "peak_gb", "budget_gb", "share",
    "loss", "n", "note", "device", "torch",
)  # fmt: skip
TABLES = {
    "train": ("size", "weights", "checkpointing", "route", "pairs_s", "times", "peak_gb", "budget_gb", "share", "loss", "n"),
    "sample": ("size", "weights", "route", "tokens_s", "times", "peak_gb", "share", "n"),
}  # fmt: skip
CASE = ("size", "part", "weights", "checkpointing")  # rows that agree in these are compared
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "vllm")


def versions():
    """{library: version} of those that compute, None for one that is not installed."""
    return library_versions(_LIBRARIES)


def name_of(machine):
    """What a row calls a machine: its GPU or processor, and the type that weights are held in."""
    return f"{machine.cuda or f'{machine.cores} cores, {processor()}'}, {machine.dtype}"


def facts(machine, rate):
    """Lines that say what was measured on, and with what; `rate` is that of matrix products, in FLOP/s."""
    import torch

    state = git_state() or {"commit": "no checkout", "dirty": False}
    commit = state["commit"][:11] + (", changed" if state["dirty"] else "")
    gpu = f"{machine.cuda}, {machine.cuda_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}" if machine.cuda else "none"
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    return [
        "mipo-nb gpu-check",
        f"GPU: {gpu}",
        f"processor: {processor()}, {machine.cores} cores, {machine.memory / 1e9:.0f} GB; {machine.system}",
        f"Python {platform.python_version()}, {libraries}",
        f"mipo-nb {mipo_nb.__version__}, commit {commit}, code {package_version()}",
        f"matrix product in {machine.dtype}: {rate / 1e12:.3g} TFLOP/s",
    ]


def with_times(rows):
    """The rows with `times`: their rate over that of TRL or of `generate` in the same case, None where one is missing."""
    case = lambda row: tuple(row.get(name) for name in CASE)  # noqa: E731
    plain = {case(row): row.get("tokens_s") for row in rows if row["route"] in ("TRL", "generate")}
    both = [(row.get("tokens_s"), plain.get(case(row))) for row in rows]
    return [{**row, "times": a / b if a and b else None} for row, (a, b) in zip(rows, both, strict=True)]


def page(rows, tests, about, words):
    """Everything as plain text: lines about the machine, of the tests, and in `words` what was done, then the tables."""
    import pandas as pd

    rows, lines = with_times(rows), [*about, "", *tests, "", words]
    for part, names in TABLES.items():
        there = [row for row in rows if row["part"] == part and not row.get("note")]
        if there:
            table = pd.DataFrame(there, columns=names).rename(columns={"times": "x libraries"})
            text = table.to_string(index=False, na_rep="", float_format=_rounded)
            lines += ["", part, *text.splitlines()]
    if missing := [row for row in rows if row.get("note")]:
        lines += ["", "not measured"]
        for row in missing:
            lines.append(" ".join(filter(None, (row.get(name) for name in (*CASE, "route")))) + f": {row['note']}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _rounded(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def write(folder, rows, text):
    """Write both files to a folder. Rows of other machines, versions of torch and measurements stay in the table."""
    import pandas as pd

    def of(row):
        return tuple(str(row.get(name) or "") for name in ("device", "torch", *CASE, "route"))

    file, mine = folder / "bench_cuda.csv", set(map(of, rows))
    old = pd.read_csv(file, keep_default_na=False).to_dict("records") if file.exists() else []
    others = [row for row in old if of(row) not in mine]
    if rows:
        table = pd.DataFrame([*others, *with_times(rows)], columns=COLUMNS)
        write_atomically(file, table.to_csv(index=False, float_format="%.4g"))
    write_atomically(folder / "bench_cuda.txt", text)
