"""The command line: `mipo-nb run`, `report`, `list`, `doctor`, `clean`, `student`, `pack`, `unpack`, `bench`, `tables`."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help="Run the MIPO notebooks headless.")


@app.callback(invoke_without_command=True)
def _help(context: typer.Context):
    if not context.invoked_subcommand:
        typer.echo(context.get_help())


def _parameter(text):
    """("NAME", value) from NAME=VALUE; values are read as Python literals, else as text."""
    import ast

    from mipo_nb.settings import UserError

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"-p takes NAME=VALUE, not '{text}'.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _known(profile):
    """A profile that is there: "auto" decided by this machine, the path of a user's own file made whole."""
    from mipo_nb import settings

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

    from mipo_nb import doctor, report, runner, settings
    from mipo_nb.state import alone, profile_folder

    paths = runner.selected(notebooks or [])
    given = dict(_parameter(p) for p in parameter or [])
    if dry_run or given.get("DRY_RUN"):
        runner.require_dry_run(paths)
        given["DRY_RUN"] = dry_run = True
        output_dir = output_dir / "dry_run"  # beside the real runs, which stay as they are
    if publish and (profile != "laptop" or given):
        raise settings.UserError(
            "Committed outputs come from the laptop profile; use --publish with --profile laptop, no -p."
        )
    runner.check_parameters(paths, given)
    profile = _known(profile)
    for path in paths:
        settings.profile_numbers(profile, path.stem)
    if not resume:
        os.environ["MIPO_NB_FRESH"] = str(time.time())
    console, states = Console(), []
    # Published notebooks keep their own parameters cell and get none injected.
    how = {"profile": profile, "parameters": given, "output_dir": output_dir, "inject": not publish}
    with alone(profile_folder(output_dir, profile)):
        for path in paths:
            state = runner.finished(path, **how) if resume else None
            if state:
                console.print(f"{path.stem}: finished before; --fresh runs it again.", highlight=False)
            else:
                console.print(f"{path.stem} ...", highlight=False)
                state = runner.execute(path, **how, console=console, timeout=60 * timeout)
            states.append(state)
            if dry_run and state["findings"]:
                console.print(doctor.table(state["findings"]), width=None if console.is_terminal else 120)
            if state["error"]:
                typer.echo(state["error"], err=True)
                if state["interrupted"] or not keep_going:
                    break
            elif publish:
                runner.publish(path, state["folder"])
        if dry_run:
            raise typer.Exit(1 if any(state["error"] for state in states) else 0)
        try:
            written = f"Report: {report.write(output_dir, profile)}"
        except (OSError, settings.UserError) as e:  # the run itself is told all the same
            written = f"No report: {e}"
    console.print(report.table(states), width=None if console.is_terminal else 120)  # a log has no width of its own
    console.print(written, soft_wrap=True, highlight=False)
    if any(state["error"] for state in states):
        again = shlex.join(["mipo-nb", *(word for word in sys.argv[1:] if word != "--fresh")])
        typer.echo(f"What was computed is kept. To go on: {again}", err=True)
        raise typer.Exit(130 if states[-1]["interrupted"] else 1)  # as a shell says it of Ctrl-C


@app.command("report")
def write_report(
    profile: Annotated[str, typer.Option(help="Which profile's runs.")] = "auto",
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
):
    """Write one page about the runs of a profile: how each ended, minutes, results, links."""
    from mipo_nb import report

    typer.echo(report.write(output_dir, _known(profile)))


@app.command("list")
def list_notebooks():
    """The notebooks: measured minutes and memory, needs, and which of them `mipo-nb run` executes."""
    from rich.console import Console
    from rich.table import Table

    from mipo_nb import ledger

    console, table = Console(), Table()
    table.add_column("notebook", no_wrap=True)
    for heading in ("main", "minutes", "memory", "needs"):
        table.add_column(heading)
    for row in ledger.overview():
        table.add_row(row["name"], "yes" if row["main"] else "", row["minutes"], row["memory"], row["needs"])
    console.print(table, width=None if console.is_terminal else 120)


@app.command()
def doctor(output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs")):
    """Look at this machine: what is there, what each profile would do, and what to mend."""
    from rich.console import Console
    from rich.table import Table

    from mipo_nb import doctor

    console, uses, findings = Console(), Table("profile", "model", "weights", "here"), doctor.examine(output_dir)
    for row in doctor.profiles():
        uses.add_row(*row.values())
    for table in (doctor.table(findings), uses):
        console.print(table, width=None if console.is_terminal else 120)
    if any(one.good is False for one in findings):
        raise typer.Exit(1)


@app.command()
def student(out: Annotated[Path, typer.Argument(help="A new folder.")]):
    """Copy the notebooks for a class, without solutions and outputs."""
    from mipo_nb import classroom

    typer.echo(f"{len(classroom.student_copy(out))} notebooks in {out}")


@app.command()
def clean(
    profile: Annotated[str, typer.Option(help="Which profile's runs.")],
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
):
    """Remove what the runs of a profile left, their steps included."""
    from mipo_nb import runner, state

    folder = state.profile_folder(output_dir, _known(profile))
    if not yes:
        typer.confirm(f"Remove {folder}?", abort=True)
    typer.echo(f"{state.clean(folder, runner.notebook_paths()) / 1e6:.0f} MB freed")


@app.command()
def pack(file: Annotated[Path, typer.Argument(help="A new .tar file.")]):
    """Put the cached models into one archive, for machines without a network."""
    from mipo_nb import classroom

    typer.echo(f"{', '.join(classroom.pack(file))} in {file}")


@app.command()
def unpack(file: Annotated[Path, typer.Argument(help="What 'mipo-nb pack' made.")]):
    """Put the models of an archive into this machine's cache, after checking their sums."""
    from mipo_nb import classroom

    typer.echo(f"In the cache: {', '.join(classroom.unpack(file))}")


@app.command()
def bench(
    parts: Annotated[list[str], typer.Argument(help="train, sample, score, pipeline; all, without any.")] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each route runs, in turn.")] = 5,
):
    """Time ours against plain TRL and transformers; writes figures/bench.csv and plots."""
    from mipo_nb import benchmarks, runs
    from mipo_nb.settings import UserError, did_you_mean

    for part in parts or ():
        if part not in benchmarks.PARTS:
            raise UserError(f"There is no benchmark '{part}'; {did_you_mean(part, benchmarks.PARTS)}")
    runs.quieten()
    benchmarks.run(repetitions, parts=tuple(parts or benchmarks.PARTS))


@app.command()
def tables(check: Annotated[bool, typer.Option(help="Write nothing; fail when out of date.")] = False):
    """Write RESULTS.md and the tables in README.md from the committed notebooks."""
    from mipo_nb import ledger

    stale = ledger.write(check=check)
    if check and stale:
        typer.echo(f"Out of date: {', '.join(stale)}; run 'mipo-nb tables'.", err=True)
        raise typer.Exit(1)


def main():
    """Entry point: a user's mistake ends in one sentence and exit code 2."""
    from mipo_nb.settings import UserError

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
