"""Notebooks one after the other: what has finished is found, a failure ends it, a page tells about all."""

import typer

from mipo_nb.base.errors import UserError
from mipo_nb.command import report, runner
from mipo_nb.lab import notebooks


def execute(calls, console, *, resume=True, keep_going=False, publish=False):
    """The `runner.Ended` of each call in turn, up to the first that fails unless `keep_going`. With `resume` those that
    finished before are found; `publish` copies outputs of those that end well into the committed notebooks."""
    endings = []
    for call in calls:
        name, ended = call.notebook.name, runner.finished(call) if resume else None
        console.print(f"{name}: finished before; --fresh runs it again." if ended else f"{name} ...", highlight=False)
        ended = ended or runner.execute(call, console)
        endings.append(ended)
        if ended.error:
            typer.echo(ended.error, err=True)
            if ended.signal or not keep_going:
                break
        elif publish:
            notebooks.publish(call.notebook, call.folder)
    return endings


def tell(endings, output_dir, profile, console):
    """Write the page about a profile's runs, and show what these took and measured."""
    try:
        message = f"Report: {report.write(output_dir, profile)}"
    except (OSError, UserError) as e:  # the run itself is shown all the same
        message = f"No report: {e}"
    console.print(report.table(endings))
    console.print(message, soft_wrap=True, highlight=False)
