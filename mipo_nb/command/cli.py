"""The command line `mipo-nb`: its commands and their options, and how a mistake ends."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

# Only what starts at once: torch and the like are imported by the commands that need them.
from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.command import batch, doctor, report, runner, state
from mipo_nb.command.parameters import check_parameters, from_here, given
from mipo_nb.lab import grids, runs, settings, tables
from mipo_nb.lab import notebooks as collection

app = typer.Typer(add_completion=False, help="Run the MIPO notebooks headless.")
OutputDir = Annotated[Path, typer.Option(help="Where runs are kept; a relative folder is one of the project.")]
RunsProfile = Annotated[str, typer.Option(help="Which profile's runs.")]


@app.callback(invoke_without_command=True)
def _help(context: typer.Context):
    if not context.invoked_subcommand:
        typer.echo(context.get_help())


def _checked_profile(profile):
    """The name of a profile, with "auto" resolved for this machine, or the whole path of a user's own file. Raises
    `UserError` where there is no such profile."""
    if profile == "auto":
        return settings.resolve("auto", None).profile
    file = settings.profile_file(profile)
    return profile if profile in settings.profile_names() else str(file)


def _console():
    return Console(width=None if sys.stdout.isatty() else 120)  # a log has no width of its own


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Numbers or names; none: the main notebooks.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, laptop, gpu, evidence, paper, auto, or a .toml file.")] = "auto",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, as often as needed.")] = None,
    output_dir: OutputDir = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Take what is there, or compute all anew.")] = True,
    timeout: Annotated[int, typer.Option(min=0, help="Minutes for any one cell; 0: the profile's.")] = 0,
    keep_going: Annotated[bool, typer.Option(help="Go on with the next notebook after a failure.")] = False,
    publish: Annotated[bool, typer.Option(help="Copy outputs into notebooks/ and figures/ (laptop only).")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only look whether they could run here (30 to 32).")] = False,
    workers: Annotated[str | None, typer.Option(help="A Ray cluster: ray, or ray://HEAD:10001.")] = None,
):
    """Execute notebooks one after the other and write a report."""
    selection, parameters = collection.selected(notebooks or []), from_here(given(parameter or []))
    check_parameters(selection, parameters, profile)
    dry_run = parameters.pop("DRY_RUN", False) or dry_run
    if publish and (profile != "laptop" or parameters or dry_run or output_dir != Path("runs")):
        own = "Committed outputs come from the laptop profile and the notebook's own parameters"
        raise UserError(f"{own}; use --publish with --profile laptop, no -p and no --output-dir.")
    if not resume:
        os.environ["MIPO_NB_FRESH"] = str(time.time())
    if workers is not None:
        os.environ["MIPO_NB_WORKERS"] = grids.checked(workers)
    if dry_run:  # beside the real runs, which stay as they are
        parameters, output_dir = {**parameters, "DRY_RUN": True}, output_dir / "dry_run"
    profile, console = _checked_profile(profile), _console()
    # Published notebooks keep their own parameters cell and get none injected.
    calls = [runner.Call(book, profile, parameters, output_dir, not publish, 60 * timeout) for book in selection]
    if dry_run:
        from mipo_nb.command.dry_run import run as run_dry

        raise typer.Exit(0 if run_dry(calls, console) else 1)
    with state.alone(state.profile_folder(output_dir, profile)):
        endings = batch.execute(calls, console, resume=resume, keep_going=keep_going, publish=publish)
        batch.tell(endings, output_dir, profile, console)
    if any(ended.error for ended in endings):
        again = shlex.join(["mipo-nb", *(word for word in sys.argv[1:] if word != "--fresh")])
        typer.echo(f"What was computed is kept. To go on: {again}", err=True)
        raise typer.Exit(128 + endings[-1].signal if endings[-1].signal else 1)  # as a shell tells of a signal


@app.command("report")
def write_report(profile: RunsProfile = "auto", output_dir: OutputDir = Path("runs")):
    """Write one page about the runs of a profile: how each ended, minutes, results, links."""
    typer.echo(report.write(output_dir, _checked_profile(profile)))


@app.command("list")
def list_notebooks():
    """The notebooks: measured minutes and memory, needs, and which of them `mipo-nb run` executes."""
    page = Table("notebook", "main", "minutes", "memory", "needs")
    page.columns[0].no_wrap = True
    for row in tables.overview():
        page.add_row(row["name"], "yes" if row["main"] else "", row["minutes"], row["memory"], row["needs"])
    _console().print(page)


@app.command("doctor")
def examine(output_dir: OutputDir = Path("runs")):
    """Look at this machine: what is there, what each profile would do, and what to mend."""
    console, uses, findings = _console(), Table("profile", "model", "weights", "here"), doctor.examine(output_dir)
    for row in doctor.profiles():
        uses.add_row(*row.values())
    console.print(doctor.table(findings), uses)
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def student(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    nbgrader: Annotated[bool, typer.Option("--nbgrader", help="The exercises as a course for nbgrader.")] = False,
):
    """Copy the notebooks for a class, without solutions and outputs."""
    from mipo_nb.course import classroom

    written = classroom.nbgrader_course(out) if nbgrader else classroom.student_copy(out)
    typer.echo(f"{len(written)} notebooks in {out}")


@app.command()
def clean(
    profile: RunsProfile,
    output_dir: OutputDir = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
):
    """Remove what the runs of a profile left, their steps included."""
    folder = state.profile_folder(output_dir, _checked_profile(profile))
    if not yes:
        typer.confirm(f"Remove {folder}?", abort=True)
    typer.echo(f"{state.clean(folder, collection.collection()) / 1e6:.0f} MB freed")


@app.command("demo")
def show_demo(seed: Annotated[int, typer.Option(min=0, help="Draws other people and answers.")] = 0):
    """A first result in a minute: people answered before and after training, by a small adapter that is kept here."""
    from mipo_nb.command.demo import demo

    runs.quieten()
    demo(seed=seed, say=typer.echo)


@app.command("export")
def export_adapter(
    adapter: Annotated[Path, typer.Argument(help="The folder of an adapter.")],
    output: Annotated[Path, typer.Option(help="A folder that is new or empty, from where you are.")],
    to: Annotated[str, typer.Option(help="merged, adapter, ollama or vllm.")] = "merged",
    model: Annotated[str | None, typer.Option(help="The base; None: the one that the adapter names.")] = None,
    dtype: Annotated[
        str, typer.Option(help="Of merged weights: bfloat16, float16, float32; auto: as coarse as training allows.")
    ] = "auto",
    push_to: Annotated[str | None, typer.Option(help="Upload it there too: an id on the hub, as in you/name.")] = None,
):
    """Make an adapter ready for use elsewhere: merged, with its card, for Ollama or vLLM."""
    from mipo_nb.command.export import export

    runs.quieten()
    for line in export(adapter, to, output, model=model, dtype=dtype, push_to=push_to):
        typer.echo(line)


@app.command("train")
def train_adapter(
    data: Annotated[str, typer.Argument(help="A JSONL file with prompt, context, user_id; or own.")],
    model: Annotated[str | None, typer.Option(help="A name on the hub, a folder; none: the profile's.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, laptop, gpu, auto, or a .toml file.")] = "auto",
    output_dir: OutputDir = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, help="Of the samples, the adapter, the order.")] = 0,
    rules: Annotated[str | None, typer.Option(help="A Python file with rules for wishes of your own.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE: a number of the profile.")] = None,
):
    """From a file of users to an adapter: pairs, training, what it did to users it never saw, a card, a page."""
    runs.quieten()  # before libraries are imported that announce what is not there
    from mipo_nb.command.train_adapter import train

    numbers = given(parameter or []) | ({"RULES_FILE": rules} if rules else {})
    how = {"model": model, "seed": seed, "numbers": numbers}
    try:
        for line in train(data, profile=_checked_profile(profile), output_dir=output_dir, **how):
            typer.echo(line)
    except KeyboardInterrupt:
        typer.echo(f"What was computed is kept. To go on: {shlex.join(['mipo-nb', *sys.argv[1:]])}", err=True)
        raise typer.Exit(130) from None


@app.command()
def bench(
    parts: Annotated[list[str], typer.Argument(help="train, sample, score, pipeline; all, without any.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each route runs, in turn.")] = 5,
):
    """Time ours against plain TRL and transformers; writes figures/bench.csv."""
    from mipo_nb.command import benchmarks

    for part in parts or ():
        if part not in benchmarks.PARTS:
            raise UserError(f"There is no benchmark '{part}'; {did_you_mean(part, benchmarks.PARTS)}")
    runs.quieten()
    benchmarks.run(repetitions, parts=tuple(parts or benchmarks.PARTS))


@app.command("tables")
def write_tables(check: Annotated[bool, typer.Option(help="Write nothing; fail when out of date.")] = False):
    """Write RESULTS.md and the tables in README.md from the committed notebooks."""
    stale = tables.write(check=check)
    if check and stale:
        typer.echo(f"Out of date: {', '.join(stale)}; run 'mipo-nb tables'.", err=True)
        raise typer.Exit(1)


def main():
    """Entry point: a user's mistake ends in one sentence and exit code 2."""
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except UserError as e:
        message, code = str(e), 2
    except typer.Abort as e:  # a question that was answered by no, or Ctrl-C, which is its cause
        message, code = ("Stopped.", 130) if isinstance(e.__cause__, KeyboardInterrupt) else ("Nothing was done.", 1)
    except Exception as e:
        if not hasattr(e, "format_message"):
            raise
        message, code = _one_line(e), 2
    typer.echo(message, err=True)
    raise SystemExit(code)


def _one_line(mistake):
    """Typer's message about a wrong call, in one line; a call without a command gets the help that is its message."""
    message = " ".join(mistake.format_message().split())
    command = mistake.ctx.command_path if getattr(mistake, "ctx", None) else "mipo-nb"
    return f"{message} See: {command} --help"
