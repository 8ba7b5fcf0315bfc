"""Before a long run: whether its data, model, memory, disk and judge are there, and how long it will take.

Nothing is trained and no weights are loaded. All findings are shown in one table, and a notebook whose DRY_RUN is set
ends there.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from mipo_nb import models, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.base.hardware import hardware
from mipo_nb.command import doctor, runner, state
from mipo_nb.command.doctor import Finding, judged
from mipo_nb.lab import costs

FILE = "dry_run.json"  # in the run's folder: what `mipo-nb run --dry-run` reads
_GB = 1e9


def check(settings, *, data, work, judge=None, output_dir="runs"):
    """A list, each a `Finding`: every data set, tokenizer, model, memory, disk, judge, minutes. None stops the others.

    `data` is {name: (function without arguments that returns rows, names of the columns they must have)}; a `UserError`
    of the function becomes a finding. `settings` are a run's: `lora_rank` (0: all weights), `four_bit`, `batch_size`.
    `work` is a `costs.Work`; minutes are its arithmetic over the rate of this machine's matrix products, measured for a
    second, times `costs.EFFICIENCY`. `judge` is a `generation.Server`, the name of a local model, or None for no judge.
    """
    findings = [_data(name, load, columns) for name, (load, columns) in data.items()]
    model = _model(settings, work, project_root() / Path(output_dir).expanduser())
    return [*findings, _tokenizer(settings), *model, _judge(judge, settings)]


def failed(findings):
    """The names of what must be mended, as text; empty where nothing must."""
    return ", ".join(finding.what for finding in findings if finding.good is False)


def show(findings, folder=None, *, stop=False):
    """Display the findings as a table. `stop` ends the notebook here, as a success to papermill and `mipo-nb`, and
    stores them in `folder` (a run's), where `mipo-nb run --dry-run` reads whether anything must be mended."""
    from IPython.display import Markdown, display

    from mipo_nb.lab.plots import markdown_table

    rows = doctor.rows(findings)
    faults = failed(findings)
    summary = f"To be mended: {faults}." if faults else "Nothing stands in the way."
    display(Markdown(f"{markdown_table(rows)}\n\n{summary}"))
    if stop:
        if folder is not None:
            write_atomically(Path(folder) / FILE, json.dumps([asdict(finding) for finding in findings]))
        raise _End("")


def run(calls, console):
    """Execute calls with the parameter DRY_RUN set, up to where `show` ends them. Returns whether all could run here.

    The findings are printed, and a sentence for each notebook that failed or in which something must be mended. Raises
    `UserError` for a notebook without a dry run, before any is begun, and for one that is interrupted.
    """
    for call in calls:
        if "DRY_RUN" not in call.notebook.parameters:
            raise UserError(f"{call.notebook.name} has no dry run; its parameters have no DRY_RUN.")
    with state.alone(calls[0].folder.parent):
        outcomes = [_runs_here(call, console) for call in calls]  # all of them, whatever the first says
    return all(outcomes)


def _runs_here(call, console):
    (call.folder / FILE).unlink(missing_ok=True)
    console.print(f"{call.notebook.name} ...", highlight=False)
    error, ended_by = runner.run_through(call, console)
    if ended_by:
        raise UserError(error)
    if error is None:
        os.replace(call.partial, call.executed)
    findings, error = outcome(call, error)
    if findings:
        console.print(doctor.table(findings))
    if error:
        print(error, file=sys.stderr)
    return not error


def outcome(call, error):
    """(findings, error as one sentence or None) of a call that `show` was to end: what it stored in its folder, and
    whether anything must be mended, or it ended otherwise (with an `error`, or in full)."""
    name = call.notebook.name
    try:
        findings = [Finding(**row) for row in json.loads((call.folder / FILE).read_text(encoding="utf-8"))]
    except OSError:
        return [], error or f"{name} did not end in its dry run; it went on with the work."
    faults = failed(findings)
    return findings, error or (f"{name} would not run here. To be mended: {faults}." if faults else None)


# Papermill takes an error for a success if it is called SystemExit and says nothing. Python's own SystemExit leaves a
# warning and a notice about tracebacks in the notebook; this class leaves a sentence.
_End = type("SystemExit", (Exception,), {"_render_traceback_": lambda self: ["The dry run ends here: DRY_RUN is set."]})


def _data(name, load, columns):
    try:
        rows = load()
    except UserError as e:
        return Finding(name, "cannot be had", False, str(e))
    if not len(rows):
        return Finding(name, "no rows", False, "Choose another part of the data, or look at what was filtered out.")
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        return Finding(name, f"column '{missing[0]}' is missing", False, f"Give data with {', '.join(columns)}.")
    return Finding(name, f"{len(rows)} rows with {', '.join(columns)}")


def _tokenizer(settings):
    try:
        tokenizer = models.load_tokenizer(settings.model, settings.template_options)
        prompts.completion_ids(tokenizer, prompts.messages("What now?", "Ana keeps bees."), "Look at the hives.")
    except UserError as e:
        return Finding("tokenizer and chat template", "not usable", False, str(e))
    return Finding("tokenizer and chat template", f"{type(tokenizer).__name__}, {len(tokenizer)} tokens")


def _model(settings, work, output_dir):
    try:
        config = models.load_config(settings.model)
        layers, head, total = costs.count_weights(config)
    except UserError as e:
        yield Finding("model", "cannot be had", False, str(e))
        for what in ("memory", "disk", "minutes"):
            yield Finding(what, "not known without the model", None, "Mend the model first.")
        return
    yield Finding("model", f"{type(config).__name__}, {total / 1e6:,.0f} million weights, {settings.model}")
    yield _memory(settings, work, config)
    yield _disk(settings, work, total, output_dir)
    yield _minutes(settings, work, layers, head)


def _memory(settings, work, config):
    budget = costs.memory_budget(
        config, four_bit=settings.four_bit, dtype=settings.dtype, rank=settings.lora_rank, device=settings.device,
        pairs_per_batch=settings.batch_size, prompt_tokens=work.prompt_tokens, completion_tokens=work.response_tokens,
        checkpointing=settings.checkpointing,
    )  # fmt: skip
    machine, cuda = hardware(), settings.device == "cuda"
    available, owner = (machine.cuda_memory, machine.cuda) if cuda else (machine.memory, "this machine")
    needed = sum(budget.values())
    parts = ", ".join(f"{part} {size / _GB:.1f}" for part, size in budget.items())
    share = f"{needed / _GB:.1f} GB ({parts}) of the {available / _GB:.0f} GB of {owner}"
    mend = f"Take a machine with {1.1 * needed / _GB:.0f} GB, a smaller MODEL, or a smaller batch_size."
    if not settings.lora_rank:
        mend = f"Take a GPU of {1.1 * needed / _GB:.0f} GB, a smaller MODEL, or several GPUs (`several_gpus.write`)."
    return judged("memory", share, needed < 0.9 * available, mend)


def _disk(settings, work, weights, folder):
    """Full fine-tuning: every model in float32, and two checkpoints with Adam while it trains. An adapter is small."""
    needed = 1e9 + (work.trainings * 4 + 2 * 12) * weights * (not settings.lora_rank)
    if not Path(models.resolve(settings.model)[0]).is_dir():
        needed += 2 * weights  # the download, usually in bf16
    free = doctor.free_bytes(folder)
    mend = f"Make {needed / _GB:.0f} GB free, or set OUTPUT_DIR to another disk."
    return judged("disk", f"{needed / _GB:.0f} GB of {free / _GB:.0f} GB free", needed < free, mend)


def _judge(judge, settings):
    if judge is None:
        return Finding("judge", "not asked for", None)
    try:
        if hasattr(judge, "reply"):
            judge.reply([{"role": "user", "content": "Reply with the digit 3."}], max_tokens=4)
            return Finding("judge", f"{judge.model} answers")
        models.load_tokenizer(judge, settings.template_options)
        weights = costs.count_weights(models.load_config(judge))[2]
    except UserError as e:
        return Finding("judge", "not reachable", False, str(e))
    size = 2 if settings.dtype in ("bfloat16", "float16") else 4
    return Finding("judge", f"{judge}, {weights * size / _GB:.1f} GB in this process")


def _minutes(settings, work, layers, head):
    rate = costs.product_rate(settings.device, settings.dtype)
    parts = costs.minutes(work, layers, head, rate, device=settings.device, full=not settings.lora_rank)
    detail = ", ".join(f"{part} {value:.1f}" for part, value in parts.items())
    speed = f"{rate / 1e12:.2g} TFLOP/s and an efficiency that was "
    speed += "measured on a CPU" if settings.device == "cpu" else "assumed, not measured"
    return Finding("minutes", f"about {sum(parts.values()):.0f} ({detail}), at {speed}")
