"""What runs leave to read: one page with the state, minutes and results of each notebook."""

import html

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import write_atomically
from mipo_nb.command import state
from mipo_nb.lab.notebooks import Notebook
from mipo_nb.lab.runs import formatted, results_of

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


def _as_page(file):
    """Write a notebook as HTML beside it, unless that is there and not older."""
    from nbconvert import HTMLExporter

    page = file.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < file.stat().st_mtime:
        write_atomically(page, HTMLExporter().from_notebook_node(Notebook(file).content)[0])


def table(endings):
    """A `rich` table of what some notebooks took and measured, from their `runner.Ended`, for the terminal."""
    from rich.table import Table

    page = Table("notebook", "minutes", "measured", "result")
    for ended in endings:
        rows = [] if ended.error else results_of(ended.call.folder)
        first = [ended.call.notebook.name, f"{ended.seconds / 60:.1f}"]
        for row in rows or [None]:
            cells = [row["name"], formatted(row)] if row else ["", "failed" if ended.error else ""]
            page.add_row(*first, *cells)
            first = ["", ""]
    return page
