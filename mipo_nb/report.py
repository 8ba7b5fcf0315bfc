"""What a run leaves to read: one page with the state, minutes and results of each notebook."""

import html
import json

from mipo_nb.runner import read
from mipo_nb.runs import write_atomically
from mipo_nb.state import profile_folder


def write(states, output_dir, profile):
    """Write report.html: state, minutes, memory and results of each notebook, with links to their pages."""
    from nbconvert import HTMLExporter

    folder = profile_folder(output_dir, profile)
    sections = []
    for state in states:
        name, page = state["notebook"], None
        executed = state["folder"] / f"{name}.ipynb"
        if executed.exists() and not state["error"]:
            page = state["folder"] / f"{name}.html"
            write_atomically(page, HTMLExporter().from_notebook_node(read(executed))[0])
        sections.append(_report_section(state, page and page.relative_to(folder)))
    body = "\n".join(sections)
    write_atomically(
        folder / "report.html",
        f"<!doctype html><html lang=en><meta charset=utf-8><title>MIPO notebooks: {html.escape(profile)}</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}</style>"
        f"<h1>MIPO notebooks, profile {html.escape(profile)}</h1>{body}</html>",
    )
    return folder / "report.html"


def _report_section(state, page):
    title = html.escape(state["notebook"])
    heading = f'<h2><a href="{html.escape(page.as_posix())}">{title}</a></h2>' if page else f"<h2>{title}</h2>"
    minutes = f"<p>{state['seconds'] / 60:.1f} minutes. "
    if state["error"]:
        return f"{heading}{minutes}<strong>Failed.</strong> {html.escape(state['error'])}</p>"
    rows = "".join(
        f"<tr><td>{html.escape(r['name'])}</td><td>{html.escape(formatted(r))}</td></tr>" for r in results_of(state)
    )
    return f"{heading}{minutes}Finished.</p><table>{rows}</table>"


def results_of(state):
    """The recorded results of a finished run."""
    file = state["folder"] / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def formatted(result):
    """A recorded result as text: value, interval, unit, n."""
    digits = ".0f" if abs(result["value"]) >= 1000 else ".1f" if abs(result["value"]) >= 10 else ".2f"
    text = f"{result['value']:{digits}}"
    if result["low"] is not None:
        text += f" [{result['low']:{digits}}, {result['high']:{digits}}]"
    text += f" {result['unit']}" if result["unit"] else ""
    return text + (f" (n = {result['n']})" if result["n"] else "")
