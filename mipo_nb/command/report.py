"""What runs leave to read: one page with what each notebook found, its figure, its state and all its results."""

import html
import re

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import write_atomically
from mipo_nb.command import state
from mipo_nb.lab.notebooks import Notebook
from mipo_nb.lab.runs import formatted, results_of

HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; overflow-wrap: break-word; }
section { border-top: 1px solid #8886; }
img { display: block; max-width: 100%; background: white; }
table { display: block; overflow-x: auto; border-collapse: collapse; }
td, th { padding: .2em .8em; text-align: left; border-bottom: 1px solid #8886; }
summary { cursor: pointer; }
</style>
"""
_LINK_TO_A_FILE = re.compile(r'<a href="(?!https?:)[^"]*">(.*?)</a>', re.DOTALL)


def write(output_dir, profile):
    """Write report.html beside a profile's runs: what each notebook found in its own words, with its figure, how it ended,
    its results, and links to its files; then the pages of `mipo-nb train`. Returns its path. Raises `UserError` where no notebook has run."""
    folder = state.profile_folder(output_dir, profile)
    run_folders = [path for path in sorted(folder.glob("[0-9][0-9]_*")) if path.is_dir()]
    trainings = sorted(folder.glob("train/adapters/*/report.html"))
    if not run_folders and not trainings:
        raise UserError(f"No notebook has run in {folder}; begin with: mipo-nb run --profile {profile}")
    title = f"MIPO notebooks, profile {html.escape(profile)}"
    caution = "<p>Runs of this profile are too small to conclude anything from.</p>" if profile == "smoke" else ""
    sections = "\n".join(map(_section, run_folders)) + _trainings(trainings, folder)
    write_atomically(folder / "report.html", f"{HEAD}<title>{title}</title><h1>{title}</h1>{caution}{sections}</html>")
    return folder / "report.html"


def _trainings(pages, folder):
    """A list of the pages that `mipo-nb train` left, each by the name of its adapter's folder."""
    links = [f'<li><a href="{page.relative_to(folder)}">{html.escape(page.parent.name)}</a></li>' for page in pages]
    return f"<section><h2>Adapters by mipo-nb train</h2><ul>{''.join(links)}</ul></section>" if links else ""


def _section(folder):
    """A notebook that ended well: what it found, its figure, then minutes, files and results. Any other: how it ended."""
    name, ended = folder.name, state.ended(folder)
    links = {"partial notebook": f"{name}.failed.ipynb", "where its numbers come from": "manifest.json"}
    heading, status, found, results = (
        html.escape(name),
        "<strong>Not finished:</strong> it runs, or was killed.",
        "",
        "",
    )
    if ended and ended["error"]:
        status = f"{ended['seconds'] / 60:.1f} minutes. <strong>Failed.</strong> {html.escape(ended['error'])}"
    elif ended:
        executed = Notebook(folder / f"{name}.ipynb")
        _write_html(executed)
        links = {"notebook": f"{name}.ipynb", **links}
        heading = f'<a href="{name}/{name}.html">{heading}</a>'
        status, found = f"{ended['seconds'] / 60:.1f} minutes. Finished.", _found(executed.content.cells)
        results = _table(results_of(folder))
    anchors = [f'<a href="{name}/{file}">{text}</a>' for text, file in links.items() if (folder / file).exists()]
    return f"<section><h2>{heading}</h2>{found}<p>{status} {', '.join(anchors)}</p>{results}</section>"


def _found(cells):
    """What the cells under "What we found" showed and printed, and the first figure of the notebook, as HTML."""
    outputs = [(k, output) for k, cell in enumerate(cells) for output in cell.get("outputs", ())]
    begin = next((k for k, cell in enumerate(cells) if cell.source.startswith("## What we found")), len(cells))
    end = next((k for k, cell in enumerate(cells) if k > begin and cell.source.startswith("## ")), len(cells))
    words = "".join(_in_words(output) for k, output in outputs if begin < k < end)
    figures = [output for _, output in outputs if "image/png" in output.get("data", {})]
    return words + "".join(map(_image, figures[:1]))


def _in_words(output):
    """HTML of an output's Markdown, or of what it printed; "" of any other."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    if output.get("name") == "stdout":
        return f"<p>{html.escape(output.text.strip()).replace(chr(10), '<br>')}</p>"
    return _LINK_TO_A_FILE.sub(r"\1", markdown2html_mistune(output.get("data", {}).get("text/markdown", "")))


def _image(output):
    alt = html.escape(output["metadata"].get("image/png", {}).get("alt", ""), quote=True)
    return f'<img alt="{alt}" src="data:image/png;base64,{output["data"]["image/png"].strip()}">'


def _table(results):
    rows = [f"<tr><td>{html.escape(r['name'])}</td><td>{html.escape(formatted(r))}</td></tr>" for r in results]
    return f"<details><summary>Results: {len(rows)}</summary><table>{''.join(rows)}</table></details>" if rows else ""


def _write_html(notebook):
    """Write a notebook as HTML beside it, unless a page that is not older exists."""
    from nbconvert import HTMLExporter

    from mipo_nb.course.slides import folded

    page = notebook.path.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < notebook.path.stat().st_mtime:
        notebook.content.metadata.pop("widgets", None)  # what stands in for a widget is shown
        write_atomically(page, folded(HTMLExporter().from_notebook_node(notebook.content)[0]))


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
