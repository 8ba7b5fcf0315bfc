"""The notebooks of the collection as files: what they say of themselves, the hash of their code, their stamp."""

import ast
import functools
import hashlib
import json
from pathlib import Path

import mipo_nb
from mipo_nb.base.errors import UserError, did_you_mean, require_known
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.lab import settings
from mipo_nb.lab.provenance import code_hash
from mipo_nb.lab.steps import NOT_NUMBERS, imported_modules

_MAKE_NO_NUMBERS = (*NOT_NUMBERS, "mipo_nb.course.", "mipo_nb.command.")
_EVERY_NOTEBOOK_HAS = ("PROFILE", "SEED", "MODEL", "OUTPUT_DIR")
# Numbers that any run reads when it starts, or by `Settings.weights`.
_READ_BY_ALL = {"system", "with_context", "rules_file", "four_bit", "template_options"}


class Notebook:
    """A notebook file, read once, when its content is first needed."""

    def __init__(self, path):
        self.path = Path(path)

    @property
    def name(self):
        """The file's name without its ending: "11_qlora_mipo"."""
        return self.path.stem

    @functools.cached_property
    def content(self):
        """The `nbformat` notebook."""
        import nbformat

        return nbformat.read(self.path, as_version=4)

    @functools.cached_property
    def parameters(self):
        """The names that its `parameters` cell sets."""
        import papermill

        return list(papermill.inspect_notebook(str(self.path)))

    @property
    def code_cells(self):
        return [cell for cell in self.content.cells if cell.cell_type == "code"]

    @property
    def code(self):
        """Hash of the sources of its code cells, the injected parameters left out."""
        sources = [cell.source for cell in self.code_cells if not _is_injected(cell)]
        return hashlib.sha256("\n\x00".join(sources).encode()).hexdigest()[:16]

    @property
    def modules(self):
        """{module: hash of its code as it is now} of the package's modules that its numbers stand on: what its cells
        import and what that imports, but for folders that make no numbers."""
        hashes, waiting = {}, [name for cell in self.code_cells for name in _imports(cell.source)]
        while waiting:
            name = waiting.pop()
            if name not in hashes and not name.startswith(_MAKE_NO_NUMBERS):
                text = _text_of(name)
                hashes[name] = code_hash(text)
                waiting += _imports(text)
        return hashes

    @functools.cached_property
    def numbers(self):
        """Names of the profile's numbers that its run may read: what its cells and `modules` take of settings."""
        codes = [*(cell.source for cell in self.code_cells), *map(_text_of, self.modules)]
        found = _READ_BY_ALL.union(*map(_numbers_read, codes))
        # A recipe has them too, but only a training that is watched, and can be reported, looks.
        return found if "report_to" in found else found - {"evaluate_every", "patience"}

    @property
    def changed_since(self):
        """A sentence that names those modules whose code has changed since its committed run; "" where none has."""
        if not (manifest := self.stamp.get("manifest")):
            return ""
        said, git = "Modules changed since this run:", manifest["git"]
        if "modules" not in self.stamp:  # published before they were kept
            return f"{said} not recorded" + (f", it ran from commit {git['commit'][:7]}." if git else ".")
        then, now = self.stamp["modules"], self.modules
        changed = sorted(name.rpartition(".")[2] for name in {**then, **now} if then.get(name) != now.get(name))
        return f"{said} {', '.join(changed)}." if changed else ""

    def takes(self, name, profile):
        """Whether a parameter, in capitals, is its own or a number of the profile that its run may read; not one of which
        it tries several, `learning_rates` or those of its `arms`."""
        names = settings.in_capitals(profile, self.name)
        if name in self.parameters or name not in names:
            return name in self.parameters
        own = settings.resolve(profile, self.name).numbers
        tried = {number for arm in own.get("arms", ()) for number in arm}
        tried |= {"learning_rate"} if "learning_rates" in own else set()
        return names[name] in self.numbers - tried

    @property
    def stamp(self):
        """{"main", "code", "modules", "manifest", "results"} of the run that it was published from; empty where it has not run."""
        return self.content.metadata.get("mipo_nb", {})

    @property
    def main(self):
        """Whether `make run` executes it."""
        return self.stamp.get("main", False)

    @property
    def results(self):
        return self.stamp.get("results", [])

    @property
    def claim(self):
        """The sentence that it opens with."""
        lines = self.content.cells[0].source.splitlines()
        return next(line.strip("* ") for line in lines if line.startswith("**"))

    @property
    def needs(self):
        """What must have run before, in its own words."""
        return self.content.cells[0].source.partition("needs: ")[2].partition(".*")[0]


@functools.cache
def _imports(code):
    """Names of the modules of this package that some code imports, at its top or inside functions."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return [name for node in nodes for name in imported_modules(node)]


def _text_of(module):
    file = Path(mipo_nb.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return file.read_text(encoding="utf-8")


@functools.cache
def _numbers_read(code):
    """Names that some code takes of settings: `s.name`, names listed for `getattr`, fields of a class that is made `of` them."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Attribute(value=ast.Name(id="s" | "settings") | ast.Attribute(attr="settings"), attr=name):
                found.add(name)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                found |= {e.value for e in elements if isinstance(e, ast.Constant) and isinstance(e.value, str)}
            case ast.ClassDef(body=body) if any(getattr(part, "name", "") == "of" for part in body):
                found |= {part.target.id for part in body if isinstance(part, ast.AnnAssign)}
    return found


def require_read(notebooks, names, profile):
    """Raise `UserError` for the first of `names`, parameters in capitals, that none of the notebooks has, or that names a
    number of the profile which none of them reads: given, it would change nothing."""
    known = {n for book in notebooks for n in (*book.parameters, *settings.in_capitals(profile, book.name))}
    for name in names:
        require_known("parameter", name, known)
        if not any(book.takes(name, profile) for book in notebooks):
            which = ", ".join(book.name for book in notebooks)
            raise UserError(f"{name} is a number that {which} does not read, so it would change nothing; leave it out.")


def put_by_papermill(sources):
    """The names that papermill's cell sets, among `sources` of cells that were executed; not those that every notebook has."""
    cells = [text for text in sources if text.startswith("# Parameters\n")]
    assigned = [node for text in cells for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    return [target.id for node in assigned for target in node.targets if target.id not in _EVERY_NOTEBOOK_HAS]


def _is_injected(cell):
    return "injected-parameters" in cell.metadata.get("tags", [])


def collection():
    """All notebooks of the collection, {name: Notebook}, in order."""
    paths = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return {path.stem: Notebook(path) for path in paths}


def selected(numbers):
    """The notebooks that "11", "11_qlora_mipo" or a file name stand for; the main notebooks where `numbers` is empty.
    Raises `UserError` for a notebook that is not there."""
    notebooks = collection()
    if not numbers:
        return [notebook for notebook in notebooks.values() if notebook.main]
    selection = []
    for number in numbers:
        stem = Path(number).stem
        matches = [notebook for name, notebook in notebooks.items() if stem in (name, name.split("_")[0])]
        if not matches:
            raise UserError(f"There is no notebook '{number}'; {did_you_mean(number, notebooks)}")
        selection += matches
    return selection


def put_stamp(file, folder, modules):
    """Put manifest, results, the hash of the code and those of the `modules` that it ran on into an executed notebook's
    metadata; drop papermill's own."""
    import nbformat

    executed = Notebook(file)
    metadata = executed.content.metadata
    record = {n: json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in ("manifest", "results")}
    metadata["mipo_nb"] = {"main": executed.main, "code": executed.code, "modules": modules, **record}
    metadata.pop("papermill", None)
    for cell in executed.content.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    nbformat.write(executed.content, file)


def publish(notebook, folder):
    """Put the outputs of an executed notebook into that of the collection, whose text may have changed since, and copy its
    figures. Raises `UserError` for a run of another profile than laptop or with other parameters, and where the code was
    changed while it ran."""
    import nbformat

    executed = Notebook(folder / notebook.path.name)
    if executed.stamp["manifest"]["profile"] != "laptop":
        raise UserError("Committed outputs come from the laptop profile; run with --profile laptop to publish.")
    if any(_is_injected(cell) for cell in executed.code_cells):
        raise UserError("Committed outputs come from the notebook's own parameters; publish without -p.")
    now = Notebook(notebook.path)
    if now.code != executed.code:
        raise UserError(f"{notebook.name} was changed while it ran, and is left as it is; run it again to publish it.")
    for file in sorted((folder / "figures").glob("*")):
        write_atomically(project_root() / "figures" / f"{notebook.name[:2]}_{file.name}", file.read_bytes())
    for cell, ran in zip(now.code_cells, executed.code_cells, strict=True):
        cell.update(outputs=ran.outputs, execution_count=ran.execution_count)
    now.content.metadata = executed.content.metadata
    write_atomically(notebook.path, nbformat.writes(now.content) + "\n")
