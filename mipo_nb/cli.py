"""The command line: `mipo-nb run`, `list`, `bench`, `tables`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Run the MIPO notebooks headless.")


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


@app.command()
def run(
    notebooks: Annotated[list[str] | None, typer.Argument(help="Numbers or names; none: the main notebooks.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, laptop, gpu, paper, or auto.")] = "auto",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, as often as needed.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    keep_going: Annotated[bool, typer.Option(help="Go on with the next notebook after a failure.")] = False,
    publish: Annotated[bool, typer.Option(help="Copy outputs into notebooks/ and figures/ (laptop only).")] = False,
):
    """Execute notebooks one after the other and write a report."""
    from rich.console import Console
    from rich.table import Table

    from mipo_nb import runner, settings

    paths = runner.selected(notebooks or [])
    given = dict(_parameter(p) for p in parameter or [])
    if publish and (profile != "laptop" or given):
        raise settings.UserError(
            "Committed outputs come from the laptop profile; use --publish with --profile laptop, no -p."
        )
    runner.check_parameters(paths, profile, given)
    if profile == "auto":
        profile = settings.resolve("auto", paths[0].stem).profile
    console, states = Console(), []
    for path in paths:
        console.print(f"{path.stem} ...", highlight=False)
        # Published notebooks keep their own parameters cell and get none injected.
        state = runner.execute(
            path, profile=profile, parameters=given, output_dir=output_dir, console=console, inject=not publish
        )
        states.append(state)
        if state["error"]:
            typer.echo(state["error"], err=True)
            if not keep_going:
                break
        elif publish:
            runner.publish(path, state["folder"])
    table = Table("notebook", "minutes", "measured", "result")
    for state in states:
        rows = runner.results_of(state) if not state["error"] else []
        first = [state["notebook"], f"{state['seconds'] / 60:.1f}"]
        for row in rows or [None]:
            cells = [row["name"], runner.formatted(row)] if row else ["", "failed" if state["error"] else ""]
            table.add_row(*first, *cells)
            first = ["", ""]
    console.print(table, width=None if console.is_terminal else 120)  # a log has no width of its own
    console.print(f"Report: {runner.report(states, output_dir, profile)}", soft_wrap=True, highlight=False)
    if any(s["error"] for s in states):
        raise typer.Exit(1)


@app.command("list")
def list_notebooks():
    """The notebooks, and which of them `mipo-nb run` executes."""
    from mipo_nb import runner

    for name, path in runner.notebook_paths().items():
        main = runner.read(path).metadata.get("mipo_nb", {}).get("main")
        typer.echo(f"{name}{'  (main)' if main else ''}")


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
        app()
    except UserError as e:
        typer.echo(str(e), err=True)
        raise SystemExit(2) from None
