"""How Sphinx builds the site: the committed notebooks as they are, the package's docstrings, formulas without a network."""

import json
import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml

import mipo_nb
from mipo_nb.engine.process import quieten
from mipo_nb.lab.notebooks import collection

project, author, release = "MIPO notebooks", "The MIPO notebooks' authors", mipo_nb.__version__
copyright = "the authors; text CC BY 4.0, code Apache-2.0"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "RESULTS.md", "CONTRIBUTING.md"]
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
html_theme_options = {"home_page_in_toc": True, "show_navbar_depth": 1, "use_download_button": False}
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_copy_source = False
html_show_sphinx = False
nitpicky = True  # a reference to nothing is a warning, and warnings are errors


def _mathml(node, block):
    # docutils' converter knows \left and \right, not \big and \Big; and it sets "log N" without the space.
    formula = re.sub(r"\\[bB]ig([(\[])", r"\\left\1", node.astext())
    formula = re.sub(r"\\[bB]ig([)\]])", r"\\right\1", formula)
    made = latex2mathml.tex2mathml(formula, as_block=block)
    return made.replace("<mo>&ApplyFunction;</mo>", '<mspace width="0.17em"/>')


def _inline(self, node):
    self.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _displayed(self, node):
    self.equations = getattr(self, "equations", 0) + 1  # one translator to a page
    chapter = Path(self.builder.current_docname).name[:2].lstrip("0") or "0"
    number = f'<span class="eqno">({chapter}.{self.equations})</span>'
    self.body.append(f'<div class="equation">{_mathml(node, block=True)}{number}</div>')
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
    if folder == "notebooks" and (changed := collection()[name].changed_since):
        notebook = json.loads(source[0])
        notebook["cells"][0]["source"] += ["\n\n", f"*{changed}*"]
        source[0] = json.dumps(notebook)


def _front_page(app, error):
    (Path(app.outdir) / "index.html").write_text('<meta http-equiv="refresh" content="0; url=docs/index.html">')


def setup(app):
    """Formulas become MathML when the site is built: browsers draw it themselves, with no script from elsewhere."""
    quieten()  # the page on the package imports all of it
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    app.connect("source-read", _complete)
    app.connect("build-finished", _front_page)
