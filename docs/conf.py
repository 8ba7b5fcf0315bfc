"""How Sphinx builds the site: the committed notebooks as they are, the package's docstrings, formulas without a network."""

import json
from pathlib import Path

from docutils import nodes

import mipo_nb
from mipo_nb.course.slides import mathml
from mipo_nb.engine.process import quieten
from mipo_nb.lab import colab
from mipo_nb.lab.notebooks import collection

_ADDRESS = colab.addresses().get("Repository", "")
_WIDGET = "application/vnd.jupyter.widget-view+json"

project, author, release = "MIPO notebooks", "The MIPO notebooks' authors", mipo_nb.__version__
copyright = "the authors; text CC BY 4.0, code Apache-2.0"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "RESULTS.md", "CONTRIBUTING.md", "data/README.md"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosectionlabel"]
suppress_warnings = ["autosectionlabel.*"]  # every notebook has an "Exercises"
autosectionlabel_prefix_document = True

nb_execution_mode = "off"  # outputs are committed
nb_render_markdown_format = "myst"  # links in what cells print lead to pages too
nb_ipywidgets_js = {}  # widgets need a kernel; their scripts would come from elsewhere
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
default_role = "code"
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
if _ADDRESS:
    html_theme_options |= {"repository_url": _ADDRESS, "use_repository_button": True}
html_static_path, html_css_files, html_js_files = ["site.css", "site.js"], ["site.css"], ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
nitpicky = True  # a reference to nothing is a warning, and warnings are errors


def _inline(self, node):
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _displayed(self, node):
    self.equations = getattr(self, "equations", 0) + 1  # one translator to a page
    chapter = Path(self.builder.current_docname).name[:2].lstrip("0") or "0"
    number = f'<span class="eqno">({chapter}.{self.equations})</span>'
    self.body.append(f'<div class="equation">{mathml(node.astext(), block=True)}{number}</div>')
    raise nodes.SkipNode


def _modules():
    """The sections of the page on the package, one for each folder and module, from the package's table of names."""
    text, root, last = "", Path(mipo_nb.__file__).parent, None
    for module in dict.fromkeys(mipo_nb.MODULES.values()):
        folder = module.rpartition(".")[0]
        if folder != last:
            about = (root / folder / "README.md").read_text(encoding="utf-8").partition("\n")[2] if folder else ""
            text += f"## {folder or 'The method'}\n{about}\n"
        text += f"### {module.rpartition('.')[2]}\n\n```{{eval-rst}}\n.. automodule:: mipo_nb.{module}\n```\n\n"
        last = folder
    return text


def _complete(app, page, source):
    if page == "docs/api":
        source[0] += _modules()
    folder, _, name = page.rpartition("/")
    if folder == "notebooks":
        notebook = json.loads(source[0])
        notebook["metadata"].pop("widgets", None)  # without a kernel they are dead
        if changed := collection()[name].changed_since:
            notebook["cells"][0]["source"] += ["\n\n", f"*{changed}*"]
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                _shown_to_all(cell, output)
        source[0] = json.dumps(notebook)


def _shown_to_all(cell, output):
    """Hand the words of a figure to MyST-NB, which looks for them in the cell; say so where a widget has no stand-in."""
    data = output.get("data", {})
    if "image/png" in data:
        cell["metadata"]["mystnb"] = {"image": {"alt": output["metadata"]["image/png"]["alt"]}}
    if _WIDGET in data and set(data) <= {_WIDGET, "text/plain"}:
        data["text/html"] = "<p>In JupyterLab, with a running kernel, something to play with stands here.</p>"


def _launch(app, page, template, context, doctree):
    """A button that opens the page's notebook in Colab, for those that have a copy there."""
    if url := colab.link(page.rpartition("/")[2], _ADDRESS):
        button = {"type": "link", "url": url, "text": "Colab", "icon": "fas fa-rocket", "tooltip": "Open in Colab"}
        context["header_buttons"].append({**button, "label": "launch-colab"})


def _front_page(app, error):
    page = '<!doctype html><html lang="en"><meta charset="utf-8"><title>MIPO notebooks</title>'
    page += '<meta http-equiv="refresh" content="0; url=docs/index.html"><a href="docs/index.html">MIPO notebooks</a></html>'
    (Path(app.outdir) / "index.html").write_text(page)


def setup(app):
    """Formulas become MathML when the site is built: browsers draw it themselves, with no script from elsewhere."""
    quieten()  # the page on the package imports all of it
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    app.connect("source-read", _complete)
    app.connect("html-page-context", _launch, priority=900)  # after the theme's own buttons
    app.connect("build-finished", _front_page)
