"""Where a result comes from: versions of the package and its libraries, the commit, and a card for what is kept."""

import ast
import functools
import hashlib
import io
import shutil
import subprocess
import tokenize
from importlib import metadata
from pathlib import Path

import mipo_nb
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import digest, project_root

_LIBRARIES = "torch transformers trl peft bitsandbytes accelerate datasets numpy scipy papermill".split()
_MAKES_NUMBERS = ("mipo_nb", "data", "pyproject.toml", "constraints.txt")  # a change elsewhere leaves a checkout clean


@functools.cache
def library_versions(names=("mipo_nb", *_LIBRARIES)):
    """{library: version}, None for one that is not installed; the package and what its numbers depend on by default."""
    return {name: _version(name) for name in names}


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_version():
    """Hash of every module and profile of the package, comments and all."""
    root = Path(mipo_nb.__file__).parent
    files = sorted(p for p in root.rglob("*") if p.suffix in (".py", ".toml"))
    return digest([[str(p.relative_to(root)), p.read_text(encoding="utf-8")] for p in files])[:16]


@functools.cache
def code_hash(text):
    """Hash of a module's code, the same on any version of Python; comments, docstrings and empty lines do not count."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.AST(body=[ast.Expr(value=ast.Constant()) as docstring, *_]):
                for k in range(docstring.lineno - 1, docstring.end_lineno):
                    lines[k] = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return hashlib.sha256("\n".join(filter(None, map(str.rstrip, lines))).encode()).hexdigest()[:16]


def git_state():
    """{"commit", "dirty"} of the checkout, None outside of one; dirty: its code or data differ from the commit, files that
    Git does not know among them."""
    run = functools.partial(subprocess.run, cwd=project_root(), capture_output=True, text=True)
    try:
        commit = run(["git", "rev-parse", "HEAD"])
        changes = run(["git", "status", "--porcelain", "--untracked-files=normal", "--", *_MAKES_NUMBERS])
    except OSError:
        return None
    return None if commit.returncode else {"commit": commit.stdout.strip(), "dirty": bool(changes.stdout.strip())}


def keep_adapter(adapter, folder, manifest, n_pairs):
    """Copy an adapter to `folder` with a model card that says what it is and where its numbers come from."""
    folder = Path(folder)
    copy = folder.with_name(f".{folder.name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(adapter, copy)
    (copy / "README.md").write_text(_card(manifest, n_pairs), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    copy.replace(folder)


DEMO_MODEL = "embedded:smollm2-135m"


def demo_adapter():
    """The folder of the small adapter of `DEMO_MODEL` that is kept in the project. Raises `UserError` where it is not there."""
    folder = project_root() / "adapters" / "demo"
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"There is no adapter in {folder}; run this in a whole checkout of the project.")
    return folder


def _card(manifest, n_pairs):
    names = ("negative", "learning_rate", "beta", "epochs", "batch_size", "lora_rank", "four_bit")
    facts = {"pairs": n_pairs, "seed": manifest["seed"], **{name: manifest["numbers"][name] for name in names}}
    lines = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items())
    return (
        f"---\nlibrary_name: peft\ntags: [mipo, dpo, lora]\n---\n\n# MIPO adapter for {manifest['model']}\n\n"
        "Trained by Mutual Information Preference Optimization (arXiv 2603.19294) on responses of the base model itself: "
        f"no labels, no judge.\n\n{lines}\n\n"
        "For study. It follows the style of invented users and keeps every fault of its base model; text health has to be "
        "measured beside any gain.\n"
    )
