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
    """Write report.html beside a profile's runs: how each notebook ended, minutes, results, and links to its files.
    Returns its path. Raises `UserError` where no notebook has run."""
    folder = state.profile_folder(output_dir, profile)
    run_folders = [path for path in sorted(folder.glob("[0-9][0-9]_*")) if path.is_dir()]
    if not run_folders:
        raise UserError(f"No notebook has run in {folder}; begin with: mipo-nb run --profile {profile}")
    title = f"MIPO notebooks, profile {html.escape(profile)}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    sections = "\n".join(map(_section, run_folders))
    write_atomically(folder / "report.html", f"{head}<h1>{title}</h1>{sections}</html>")
    return folder / "report.html"


def _section(folder):
    name, ended = folder.name, state.ended(folder)
    links = {"partial notebook": f"{name}.failed.ipynb", "where its numbers come from": "manifest.json"}
    heading, status, results = html.escape(name), "<strong>Not finished:</strong> it runs, or was killed.", []
    if ended and ended["error"]:
        status = f"{ended['seconds'] / 60:.1f} minutes. <strong>Failed.</strong> {html.escape(ended['error'])}"
    elif ended:
        _write_html(folder / f"{name}.ipynb")
        links = {"notebook": f"{name}.ipynb", **links}
        heading = f'<a href="{name}/{name}.html">{heading}</a>'
        status, results = f"{ended['seconds'] / 60:.1f} minutes. Finished.", results_of(folder)
    anchors = [f'<a href="{name}/{file}">{text}</a>' for text, file in links.items() if (folder / file).exists()]
    texts = [(html.escape(result["name"]), html.escape(formatted(result))) for result in results]
    rows = "".join(f"<tr><td>{what}</td><td>{value}</td></tr>" for what, value in texts)
    return f"<h2>{heading}</h2><p>{status} {', '.join(anchors)}</p><table>{rows}</table>"


def _write_html(file):
    """Write a notebook as HTML beside it, unless a page that is not older exists."""
    from nbconvert import HTMLExporter

    page = file.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < file.stat().st_mtime:
        write_atomically(page, HTMLExporter().from_notebook_node(Notebook(file).content)[0])


def table(endings):
    """A `rich` table of the minutes and results of notebooks, from their `runner.Ended`, for the terminal."""
    from rich.table import Table

    page = Table("notebook", "minutes", "measured", "result")
    for ended in endings:
        results = [] if ended.error else results_of(ended.call.folder)
        cells = [(result["name"], formatted(result)) for result in results] or [("", "failed" if ended.error else "")]
        page.add_row(ended.call.notebook.name, f"{ended.seconds / 60:.1f}", *cells[0])
        for name, value in cells[1:]:
            page.add_row("", "", name, value)
    return page
