"""What runs leave to read: one page with the state, minutes and results of each notebook."""

import html
import json

from mipo_nb import state
from mipo_nb.runner import read
from mipo_nb.runs import write_atomically
from mipo_nb.settings import UserError

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}"
)


def write(output_dir, profile):
    """Write report.html beside a profile's runs: how each notebook ended, minutes, results, and links to what it left.

    Returns its path. Raises `UserError` where no notebook has run.
    """
    folder = state.profile_folder(output_dir, profile)
    ran = [p for p in sorted(folder.glob("[0-9][0-9]_*")) if p.is_dir()]
    if not ran:
        raise UserError(f"No notebook has run in {folder}; begin with: mipo-nb run --profile {profile}")
    sections = "\n".join(map(_section, ran))
    title = f"MIPO notebooks, profile {html.escape(profile)}"
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>{sections}</html>"
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _section(folder):
    name, ended = folder.name, state.ended(folder)
    links = {"partial notebook": f"{name}.failed.ipynb", "where its numbers come from": "manifest.json"}
    heading, told, rows = html.escape(name), "<p><strong>Not finished:</strong> it runs, or was killed.", []
    if ended and ended["error"]:
        told = f"<p>{ended['seconds'] / 60:.1f} minutes. <strong>Failed.</strong> {html.escape(ended['error'])}"
    elif ended:
        _as_page(folder / f"{name}.ipynb")
        links = {"notebook": f"{name}.ipynb", **links}
        heading = f'<a href="{name}/{name}.html">{heading}</a>'
        told, rows = f"<p>{ended['seconds'] / 60:.1f} minutes. Finished.", results_of(folder)
    linked = [f'<a href="{name}/{file}">{text}</a>' for text, file in links.items() if (folder / file).exists()]
    cells = "".join(
        f"<tr><td>{html.escape(row['name'])}</td><td>{html.escape(formatted(row))}</td></tr>" for row in rows
    )
    return f"<h2>{heading}</h2>{told} {', '.join(linked)}</p><table>{cells}</table>"


def _as_page(notebook):
    """Write a notebook as HTML beside it, unless that is there and not older."""
    from nbconvert import HTMLExporter

    page = notebook.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
        write_atomically(page, HTMLExporter().from_notebook_node(read(notebook))[0])


def table(states):
    """A `rich` table of what this run's notebooks took and measured, for the terminal."""
    from rich.table import Table

    made = Table("notebook", "minutes", "measured", "result")
    for ended in states:
        rows = results_of(ended["folder"]) if not ended["error"] else []
        first = [ended["notebook"], f"{ended['seconds'] / 60:.1f}"]
        for row in rows or [None]:
            cells = [row["name"], formatted(row)] if row else ["", "failed" if ended["error"] else ""]
            made.add_row(*first, *cells)
            first = ["", ""]
    return made


def results_of(folder):
    """The recorded results of a run, from its folder; none where there is none."""
    file = folder / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def formatted(result):
    """A recorded result as text: value, interval, unit, n. A tiny value that stands alone is given as a power of ten."""
    digits = ".0f" if abs(result["value"]) >= 1000 else ".1f" if abs(result["value"]) >= 10 else ".2f"
    if result["low"] is None and 0 < abs(result["value"]) < 0.005:
        digits = ".1e"
    text = f"{result['value']:{digits}}"
    if result["low"] is not None:
        text += f" [{result['low']:{digits}}, {result['high']:{digits}}]"
    text += f" {result['unit']}" if result["unit"] else ""
    return text + (f" (n = {result['n']})" if result["n"] else "")
