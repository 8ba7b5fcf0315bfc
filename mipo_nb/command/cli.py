"""The command line: `mipo-nb run`, `report`, `list`, `doctor`, `clean`, `student`, `bench`, `tables`."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mipo_nb.base.errors import UserError, did_you_mean

app = typer.Typer(add_completion=False, help="Run the MIPO notebooks headless.")


@app.callback(invoke_without_command=True)
def _help(context: typer.Context):
    if not context.invoked_subcommand:
        typer.echo(context.get_help())


def _parameter(text):
    """("NAME", value) from NAME=VALUE; values are read as Python literals, else as text."""
    import ast

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"-p takes NAME=VALUE, not '{text}'.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _known(profile):
    """A profile that is there: "auto" decided by this machine, the path of a user's own file made whole."""
    from mipo_nb.lab import settings

    if profile == "auto":
        return settings.resolve("auto", None).profile
    file = settings.profile_file(profile)
    return profile if profile in settings.profile_names() else str(file)


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Numbers or names; none: the main notebooks.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, laptop, gpu, paper, auto, or a .toml file.")] = "auto",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, as often as needed.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Take what is there, or compute all anew.")] = True,
    timeout: Annotated[int, typer.Option(min=0, help="Minutes for any one cell; 0: the profile's.")] = 0,
    keep_going: Annotated[bool, typer.Option(help="Go on with the next notebook after a failure.")] = False,
    publish: Annotated[bool, typer.Option(help="Copy outputs into notebooks/ and figures/ (laptop only).")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only look whether they could run here (30 to 32).")] = False,
):
    """Execute notebooks one after the other and write a report."""
    from rich.console import Console

    from mipo_nb.command import dry_run as dry
    from mipo_nb.command import runner, state
    from mipo_nb.lab import notebooks as collection

    chosen, given = collection.selected(notebooks or []), dict(_parameter(p) for p in parameter or [])
    dry_run = given.pop("DRY_RUN", False) or dry_run
    if publish and (profile != "laptop" or given or dry_run):
        raise UserError("Committed outputs come from the laptop profile; use --publish with --profile laptop, no -p.")
    runner.check_parameters(chosen, given)
    if not resume:
        os.environ["MIPO_NB_FRESH"] = str(time.time())
    if dry_run:  # beside the real runs, which stay as they are
        given, output_dir = {**given, "DRY_RUN": True}, output_dir / "dry_run"
    profile, console = _known(profile), Console()
    # Published notebooks keep their own parameters cell and get none injected.
    calls = [runner.Call(one, profile, given, output_dir, not publish, 60 * timeout) for one in chosen]
    if dry_run:
        raise typer.Exit(0 if dry.run(calls, console) else 1)
    with state.alone(state.profile_folder(output_dir, profile)):
        endings = _executed(calls, console, resume, keep_going, publish)
        _reported(endings, output_dir, profile, console)
    if any(ended.error for ended in endings):
        again = shlex.join(["mipo-nb", *(word for word in sys.argv[1:] if word != "--fresh")])
        typer.echo(f"What was computed is kept. To go on: {again}", err=True)
        raise typer.Exit(130 if endings[-1].interrupted else 1)  # as a shell says it of Ctrl-C


def _executed(calls, console, resume, keep_going, publish):
    """The `runner.Ended` of each call, one after the other, up to the first that fails unless it is to go on."""
    from mipo_nb.command import runner
    from mipo_nb.lab.notebooks import publish as published

    endings = []
    for call in calls:
        name, ended = call.notebook.name, runner.finished(call) if resume else None
        if ended:
            console.print(f"{name}: finished before; --fresh runs it again.", highlight=False)
        else:
            console.print(f"{name} ...", highlight=False)
            ended = runner.execute(call, console)
        endings.append(ended)
        if ended.error:
            typer.echo(ended.error, err=True)
            if ended.interrupted or not keep_going:
                break
        elif publish:
            published(call.notebook, call.folder)
    return endings


def _reported(endings, output_dir, profile, console):
    """Write the page about a profile's runs, and show what these took and measured."""
    from mipo_nb.command import report

    try:
        written = f"Report: {report.write(output_dir, profile)}"
    except (OSError, UserError) as e:  # the run itself is told all the same
        written = f"No report: {e}"
    console.print(report.table(endings), width=None if console.is_terminal else 120)  # a log has no width of its own
    console.print(written, soft_wrap=True, highlight=False)


@app.command("report")
def write_report(
    profile: Annotated[str, typer.Option(help="Which profile's runs.")] = "auto",
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
):
    """Write one page about the runs of a profile: how each ended, minutes, results, links."""
    from mipo_nb.command import report

    typer.echo(report.write(output_dir, _known(profile)))


@app.command("list")
def list_notebooks():
    """The notebooks: measured minutes and memory, needs, and which of them `mipo-nb run` executes."""
    from rich.console import Console
    from rich.table import Table

    from mipo_nb.lab import tables

    console, table = Console(), Table()
    table.add_column("notebook", no_wrap=True)
    for heading in ("main", "minutes", "memory", "needs"):
        table.add_column(heading)
    for row in tables.overview():
        table.add_row(row["name"], "yes" if row["main"] else "", row["minutes"], row["memory"], row["needs"])
    console.print(table, width=None if console.is_terminal else 120)


@app.command()
def doctor(output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs")):
    """Look at this machine: what is there, what each profile would do, and what to mend."""
    from rich.console import Console
    from rich.table import Table

    from mipo_nb.command import doctor

    console, uses, findings = Console(), Table("profile", "model", "weights", "here"), doctor.examine(output_dir)
    for row in doctor.profiles():
        uses.add_row(*row.values())
    for table in (doctor.table(findings), uses):
        console.print(table, width=None if console.is_terminal else 120)
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def student(out: Annotated[Path, typer.Argument(help="A new folder.")]):
    """Copy the notebooks for a class, without solutions and outputs."""
    from mipo_nb.course import classroom

    typer.echo(f"{len(classroom.student_copy(out))} notebooks in {out}")


@app.command()
def clean(
    profile: Annotated[str, typer.Option(help="Which profile's runs.")],
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
):
    """Remove what the runs of a profile left, their steps included."""
    from mipo_nb.command import state
    from mipo_nb.lab.notebooks import collection

    folder = state.profile_folder(output_dir, _known(profile))
    if not yes:
        typer.confirm(f"Remove {folder}?", abort=True)
    typer.echo(f"{state.clean(folder, collection()) / 1e6:.0f} MB freed")


@app.command()
def bench(
    parts: Annotated[list[str], typer.Argument(help="train, sample, score, pipeline; all, without any.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each route runs, in turn.")] = 5,
):
    """Time ours against plain TRL and transformers; writes figures/bench.csv and a plot."""
    from mipo_nb.command import benchmarks
    from mipo_nb.lab import runs

    for part in parts or ():
        if part not in benchmarks.PARTS:
            raise UserError(f"There is no benchmark '{part}'; {did_you_mean(part, benchmarks.PARTS)}")
    runs.quieten()
    benchmarks.run(repetitions, parts=tuple(parts or benchmarks.PARTS))


@app.command()
def tables(check: Annotated[bool, typer.Option(help="Write nothing; fail when out of date.")] = False):
    """Write RESULTS.md and the tables in README.md from the committed notebooks."""
    from mipo_nb.lab import tables

    stale = tables.write(check=check)
    if check and stale:
        typer.echo(f"Out of date: {', '.join(stale)}; run 'mipo-nb tables'.", err=True)
        raise typer.Exit(1)


def main():
    """Entry point: a user's mistake ends in one sentence and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UserError as e:
        typer.echo(str(e), err=True)
        code = 2
    except typer.Abort:
        typer.echo("Nothing was done.", err=True)
        code = 1
    except Exception as e:
        if not hasattr(e, "format_message"):
            raise
        typer.echo(_told(e), err=True)
        code = 2
    raise SystemExit(code or 0)


def _told(mistake):
    """What typer has to say of a wrong call, in one line; a call without a command gets the help that is its message."""
    message = " ".join(mistake.format_message().split())
    command = mistake.ctx.command_path if getattr(mistake, "ctx", None) else "mipo-nb"
    return f"{message} See: {command} --help"
