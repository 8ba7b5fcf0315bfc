"""Slides for a class: the cells of the notebooks that are marked as slides, as one page that needs no network.

`make slides`, or `python -m mipo_nb.course.slides FOLDER`. A cell is marked by its metadata, `slideshow.slide_type`, as
JupyterLab and nbconvert know it; code is left out, what it printed and drew stays.
"""

import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from nbformat.v4 import new_notebook

from mipo_nb.base.embedded import cache_folder
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.lab.notebooks import selected

ROUTE = ("00", "01", "10", "11", "12")  # the route of 90 minutes
REVEAL = "reveal.js@5.2.1"
_REVEAL_SHA256 = "359b575dd51bbda32f89b2fd4c7dc46ad7389a805572158916c29252f7a27333"
KEPT = f"{REVEAL.replace('@', '-')}-{_REVEAL_SHA256[:12]}"  # its folder in the cache
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_BRACED = re.compile(r"(\\underbrace\{(?:[^{}]|\{[^{}]*\})*\})_")
_UNDER = re.compile(r'<munder movablelimits="false">\s*<mrow>(.*?)</mrow>\s*<mo>⏟</mo>\s*</munder>', re.DOTALL)
_ACCENTED = re.compile(
    r'<munderover>(\s*<mi>[^<]*</mi>)((?:(?!munderover).)*)(<mo stretchy="false">[ˆˉ˜˙]</mo>\s*)</munderover>',
    re.DOTALL,
)
_TO_A_FILE = re.compile(r'<a href="[^"]*\.(?:ipynb|md)[^"]*">(.*?)</a>', re.DOTALL)
_FOLDED = re.compile(r"(<details><summary>[^<]*</summary>)\s*</details>\s*(<p>.*?</p>)", re.DOTALL)
_FOR_READERS = re.compile(r"^\*(?:Minutes: |\[00\]|\*\*00).*$", re.MULTILINE)  # of a header: route, cost, needs

# nbconvert's page of slides, with a script beside it in place of those of other hosts, and figures with their text.
_PAGE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
.reveal .slides section { text-align: left; --jp-content-font-size1: calc(29px * var(--size, 1));
  --jp-code-font-size: calc(21px * var(--size, 1)); }
.reveal .slides section section { max-height: 790px; overflow-y: auto; }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none !important; }
.reveal .slides section img { display: block; margin: 10px auto; width: 94%; max-height: 560px; object-fit: contain; }
.reveal .jp-RenderedHTMLCommon, .reveal summary { font-size: calc(29px * var(--size, 1)); }
.reveal .jp-RenderedHTMLCommon table { font-size: calc(24px * var(--size, 1)); }
.reveal .jp-RenderedHTMLCommon blockquote { width: auto; margin: 10px 0; font-style: normal; box-shadow: none; }
.reveal .jp-RenderedHTMLCommon :is(p, details) { margin: 0 0 0.6em; }
.reveal details { color: #555; }
.reveal math { font-family: "Cambria Math", "STIX Two Math", "Latin Modern Math", "DejaVu Math TeX Gyre", math; }
.reveal .jp-OutputArea-output pre { font-size: calc(21px * var(--size, 1)); line-height: 1.25; width: 100%;
  box-shadow: none; white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; }
.reveal .slide-number { right: auto; left: 8px; }
</style>
{%- endblock -%}
{%- block data_png scoped -%}
<div class="jp-OutputArea-output"><img src="data:image/png;base64,{{ output.data['image/png'] | trim }}"
alt="{{ output | get_metadata('alt', 'image/png') | default('', true) | e }}"></div>
{%- endblock -%}
{%- block footer_js -%}
<script src="reveal.js/dist/reveal.js"></script>
<script>
function fit({currentSlide: slide}) {  // letters of a full slide become smaller, down to a half
  for (let size = 1; size >= 0.5; size -= 0.05) {
    slide.style.setProperty("--size", size);
    if (slide.scrollHeight <= slide.clientHeight + 1) break;
  }
}
Reveal.on("ready", fit);
Reveal.on("slidechanged", fit);
Reveal.initialize({width: 1280, height: 800, center: false, hash: true, slideNumber: "c/t"});
</script>
{%- endblock -%}
"""


def deck():
    """A notebook of the route's marked cells, with their outputs. A cell without a mark, or marked "skip", is no slide."""
    cells = [cell for notebook in selected(ROUTE) for cell in notebook.content.cells if _mark(cell) != "skip"]
    return new_notebook(cells=cells, metadata={"title": "MIPO in 90 minutes"})


def write(folder):
    """Write index.html and, beside it, what it loads. Returns the page's path. Raises `UserError` where reveal.js cannot
    be fetched or `folder` cannot be written."""
    folder, reveal = Path(folder).expanduser(), reveal_folder()
    try:
        shutil.copytree(reveal, folder / "reveal.js", dirs_exist_ok=True)
    except OSError as e:
        raise UserError(f"{folder} cannot be written ({e.strerror}); name a folder that can.") from None
    write_atomically(folder / "index.html", page(deck()))
    return folder / "index.html"


def page(notebook):
    """The slides of a notebook as HTML: its images inside, its formulas as MathML, no link to another file."""
    from jinja2 import pass_context
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(
        raw_template=_PAGE, embed_images=True, exclude_anchor_links=True, reveal_url_prefix="reveal.js", reveal_theme="white",
        exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True,
    )  # fmt: skip
    plain = exporter.markdown2html

    @pass_context
    def rendered(context, source):
        source = _FOR_READERS.sub("", source).replace(
            "](../", "]("
        )  # nbconvert takes images from below one folder only
        return folded(_TO_A_FILE.sub(r"\1", _FORMULA.sub(_as_mathml, plain(context, source))))

    exporter.register_filter("markdown2html", rendered)
    return exporter.from_notebook_node(notebook, {"metadata": {"path": str(project_root())}})[0]


def folded(page):
    """A page of nbconvert with answers back inside their <details>, which it closes before them."""
    return _FOLDED.sub(r"\1\2</details>", page)


def mathml(formula, *, block=False):
    """A formula in LaTeX as MathML, which browsers draw without a script."""
    from docutils.utils.math import latex2mathml

    # docutils knows \left, \right and \ldots, not \big, \Big and \dots; and it sets "log N" without the space.
    formula = re.sub(r"\\[bB]ig([(\[])", r"\\left\1", formula)
    formula = re.sub(r"\\[bB]ig([)\]])", r"\\right\1", formula).replace(r"\dots", r"\ldots")
    formula = _BRACED.sub(r"\1\\limits_", formula)
    made = latex2mathml.tex2mathml(formula, as_block=block)
    made = _UNDER.sub(
        r'<mrow style="border-bottom: 1px solid">\1</mrow>', made
    )  # few fonts have a brace that stretches
    made = _ACCENTED.sub(
        r'<msub><mover accent="true">\1\3</mover>\2</msub>', made
    )  # an index beside a letter with a hat
    return made.replace("<mo>&ApplyFunction;</mo>", '<mspace width="0.17em"/>')


def reveal_folder():
    """The folder of reveal.js in the cache, fetched once with npm. Raises `UserError` where that fails or what comes is
    not the pinned file."""
    cache = cache_folder()
    final = cache / KEPT
    if not final.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".reveal-") as work:
            unpack(_fetched(Path(work)), Path(work))
            try:
                os.replace(Path(work) / "package", final)
            except OSError:
                if not final.exists():  # else another process was first, with the same content
                    raise
    return final


def unpack(file, folder):
    """Unpack what the page loads, and the licence, from the pinned package. Raises `UserError` for any other file."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != _REVEAL_SHA256:
        raise UserError(
            f"The checksum of {file.name} is {digest[:16]}..., not the pinned {_REVEAL_SHA256[:16]}...; try again, or "
            f"look at your npm registry."
        )
    with tarfile.open(file) as archive:
        wanted = [m for m in archive.getmembers() if m.name.startswith(("package/dist/", "package/LICENSE"))]
        archive.extractall(folder, [m for m in wanted if not m.name.endswith((".map", ".esm.js"))], filter="data")


def _fetched(folder):
    print(f"Fetching {REVEAL} with npm (2 MB, once).", flush=True)
    if not (npm := shutil.which("npm")):
        reason = "npm is not installed"
    else:
        done = subprocess.run([npm, "pack", REVEAL, "--silent"], cwd=folder, capture_output=True, text=True)
        if files := list(folder.glob("*.tgz")):
            return files[0]
        reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
    raise UserError(
        f"{REVEAL} could not be fetched ({reason}); install npm and connect to a network once, or copy a filled cache "
        f"folder and set MIPO_NB_CACHE to it."
    )


def _mark(cell):
    return cell.metadata.get("slideshow", {}).get("slide_type", "skip")


def _as_mathml(found):
    block, inline = found.groups()
    return mathml(html.unescape(block or inline), block=block is not None)


def main():
    """Entry point: the folder is the only argument; a mistake ends in one sentence and exit code 2."""
    try:
        if len(sys.argv) != 2:
            raise UserError("Name one folder for the slides: python -m mipo_nb.course.slides FOLDER")
        print(write(sys.argv[1]))
    except UserError as e:
        print(e, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
