"""Where a result comes from: what a step is keyed by, how its result is kept, and the versions behind a run."""

import ast
import hashlib
import importlib
import inspect
import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("torch transformers trl peft bitsandbytes accelerate datasets numpy scipy papermill").split()


def versions():
    """{library: version} of the package and of what its numbers depend on."""
    return {name: _version(name) for name in ("mipo_nb", *_LIBRARIES)}


def fingerprint(value):
    """A JSON-able description of everything about `value` that can change a step's result."""
    import numpy as np

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [fingerprint(v) for v in value]
    if isinstance(value, dict):
        return {str(k): fingerprint(v) for k, v in sorted(value.items())}
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value)).hexdigest()]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "fingerprint"):
        return fingerprint(value.fingerprint())
    if type(value).__module__.startswith("datasets."):
        return digest([value.column_names, value.to_dict()])
    if hasattr(value, "apply_chat_template"):
        return ["tokenizer", len(value), hashlib.sha256((value.chat_template or "").encode()).hexdigest()]
    if hasattr(value, "named_parameters"):
        from mipo_nb import models

        return models.fingerprint(value)
    if hasattr(value, "__dataclass_fields__"):
        return [type(value).__name__, fingerprint(vars(value))]
    if inspect.isfunction(value):
        return code_version(value)
    raise TypeError(f"A step cannot be keyed by a {type(value).__name__}.")


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


# Seeds, folders and progress do not change numbers; an edit there leaves old steps valid.
_NOT_NUMBERS = {"mipo_nb", "mipo_nb.runs", "mipo_nb.provenance", "mipo_nb.settings", "mipo_nb.embedded"}


def code_version(function):
    """Hash of what determines a function's numbers: its module and every mipo_nb module that one imports.

    Comments, docstrings and layout do not count.
    """
    start = inspect.getmodule(function)
    if not start.__name__.startswith("mipo_nb"):
        return digest(inspect.getsource(function))[:16]
    seen, queue = {}, [start.__name__]
    while queue:
        name = queue.pop()
        if name in seen or name in _NOT_NUMBERS:
            continue
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mipo_nb"):
                queue += [node.module] if node.module != "mipo_nb" else [f"mipo_nb.{a.name}" for a in node.names]
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
            ):
                body[0].value.value = None  # a docstring
        seen[name] = ast.dump(tree)
    return digest(seen)[:16]


def package_version():
    """Hash of every module and profile of the package, comments and all."""
    files = sorted(p for p in Path(__file__).parent.rglob("*") if p.suffix in (".py", ".toml"))
    return digest([[p.name, p.read_text(encoding="utf-8")] for p in files])[:16]


def encode(value, folder):
    import numpy as np
    from datasets import Dataset

    if isinstance(value, np.ndarray):
        return {"__array__": value.ravel().tolist(), "dtype": str(value.dtype), "shape": value.shape}
    if isinstance(value, Dataset):
        return {"__rows__": value.to_list(), "columns": value.column_names}
    if isinstance(value, dict):
        return {k: encode(v, folder) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v, folder) for v in value]
    if isinstance(value, Path):
        return {"__path__": os.path.relpath(value, folder)}  # a moved runs folder stays whole
    return value.item() if isinstance(value, np.generic) else value


def decode(value, folder):
    import numpy as np
    from datasets import Dataset

    if isinstance(value, dict):
        if "__array__" in value:
            return np.array(value["__array__"], dtype=value["dtype"]).reshape(value["shape"])
        if "__rows__" in value:
            rows = value["__rows__"]
            return Dataset.from_list(rows) if rows else Dataset.from_dict({c: [] for c in value["columns"]})
        if "__path__" in value:
            return Path(folder) / value["__path__"]
        return {k: decode(v, folder) for k, v in value.items()}
    return [decode(v, folder) for v in value] if isinstance(value, list) else value


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder):
    """Commit of a checkout and whether tracked files differ from it, or None outside a checkout."""
    call = {"cwd": folder, "capture_output": True, "text": True}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **call)
        if commit.returncode:
            return None
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **call).stdout.strip()
    except OSError:
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(dirty)}
