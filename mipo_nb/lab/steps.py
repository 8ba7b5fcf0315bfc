"""What a step is keyed by, and how its result is stored.

A key holds the function, its arguments, the code that makes its numbers, and the libraries underneath. The code is the
function's module with all modules of this package that it imports, directly or not: small modules make precise keys.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import json
import os
import weakref
from dataclasses import is_dataclass
from pathlib import Path

import mipo_nb
from mipo_nb import prompts
from mipo_nb.base.files import content_hash, digest
from mipo_nb.lab.provenance import library_versions

_PACKAGE = Path(mipo_nb.__file__).parent
# Errors, files, progress, settings and plots do not change a number: an edit there leaves old steps valid.
_PLAIN = ("errors", "files", "jsonl", "rows", "progress", "hardware", "embedded")  # the others of `base` do
NOT_NUMBERS = (*(f"mipo_nb.base.{name}" for name in _PLAIN), "mipo_nb.lab.")
_LIBRARIES = ("torch", "transformers", "trl", "peft", "tokenizers")  # those that compute
# Where a result is stored, and those of the steps that a function calls itself; what shows or names its progress.
_NOT_KEYED = {"folder", "step", "description", "report_to", "manifest"}


def key(function, args, kwargs):
    """The key of a call: 16 hexadecimal digits of `function` and its arguments by name, defaults included.

    Keywords that stand for a dataclass (`**numbers: Recipe`) count as the object that they make, so that a number is the
    same whether it is given or left to its default. A frame of prompts that is not the usual one counts. An argument that is the absolute path of something as text, as
    `settings.located` gives it, counts as that `Path`. Raises `TypeError` for a lambda or a closure, whose numbers are not
    all among the arguments, and for an argument that cannot be described.
    """
    signature = inspect.signature(function)
    bound = signature.bind_partial(*args, **kwargs)
    bound.apply_defaults()
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and is_dataclass(parameter.annotation):
            bound.arguments[parameter.name] = parameter.annotation(**bound.arguments[parameter.name])
    keyed = {name: value for name, value in bound.arguments.items() if name not in _NOT_KEYED}
    described = {name: fingerprint(Path(v) if is_located(v) else v) for name, v in keyed.items()}
    frame = [] if prompts.frame() == prompts.Frame() else [fingerprint(prompts.frame())]
    return digest([fingerprint(function), described, library_versions(_LIBRARIES), *frame])[:16]


def is_located(value):
    """Whether a value is the absolute path, as text, of something that is there."""
    return isinstance(value, str) and os.path.isabs(value) and os.path.exists(value)


def fingerprint(value):
    """A JSON-able description of everything about `value` that can change a step's result."""
    import numpy as np

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    if isinstance(value, dict):
        return {str(k): fingerprint(v) for k, v in sorted(value.items())}
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value)).hexdigest()]
    if isinstance(value, Path):
        return _fingerprint_of_path(value)
    if hasattr(value, "fingerprint"):
        return fingerprint(value.fingerprint())
    if type(value).__module__.startswith("datasets."):
        return digest([value.column_names, value.to_dict()])
    if hasattr(value, "apply_chat_template"):
        return [
            "tokenizer",
            len(value),
            hashlib.sha256((value.chat_template or "").encode()).hexdigest(),
            _tokens(value),
        ]
    if hasattr(value, "named_parameters"):
        from mipo_nb import models

        return models.fingerprint(value)
    if hasattr(value, "__dataclass_fields__"):
        return [type(value).__name__, fingerprint(vars(value))]
    if inspect.isfunction(value):
        if value.__closure__ or value.__name__ == "<lambda>":
            raise TypeError("A step takes a named function whose numbers are all among its arguments.")
        return [value.__qualname__, code_version(value)]
    raise TypeError(f"A step cannot be keyed by a {type(value).__name__}.")


# What normalizers, splitting and control tokens do otherwise: case, accents, ligatures, blanks, digits, scripts, code.
_PROBE = (
    ("system", "You are a helpful assistant.  Be BRIEF,\tplease.\n"),
    (
        "user",
        "Naïve cafe\u0301, ﬁne: 3,141.59 € – 東京で何を？ Привет! مرحبا 🙂\r\n<|im_end|> <think>x</think> [INST] </s> <eos>",
    ),
    ("assistant", "def f(x):\n        return x**2  # don't\n\n\n1. Ja, größer.\n"),
)
_PROBED = weakref.WeakKeyDictionary()  # {tokenizer: {how it was: what came out}}


def _tokens(tokenizer):
    """Hash of the tokens that a tokenizer's chat template renders of a fixed conversation, of the token that ends a response
    and of a few hundred of its vocabulary. Some milliseconds the first time, and again where it was changed."""
    from jinja2 import TemplateError

    known = _PROBED.setdefault(tokenizer, {})
    state = tokenizer.chat_template, len(tokenizer), tokenizer.eos_token_id
    if state not in known:
        conversation, rendered = [{"role": role, "content": text} for role, text in _PROBE], []
        for turns, opens in ((conversation, False), (conversation[:-1], True)) if tokenizer.chat_template else ():
            with contextlib.suppress(TemplateError):  # a template that refuses it has its own hash
                rendered.append(tokenizer.apply_chat_template(turns, add_generation_prompt=opens, return_dict=False))
        some = range(0, len(tokenizer), max(1, len(tokenizer) // 256))
        known[state] = digest([rendered, tokenizer.eos_token_id, tokenizer.convert_ids_to_tokens(list(some))])[:16]
    return known[state]


def _fingerprint_of_path(path):
    """What a file holds, or the weights and configuration of the model or adapter in a folder, wherever they lie; of an
    adapter without the name of its base. Any other path is its text."""
    if path.is_file():
        return ["file", content_hash([path])]
    weights, files = sorted(path.glob("*.safetensors")), [path / "adapter_config.json", path / "config.json"]
    if not weights:
        return str(path)
    configurations = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    without_base = [{k: v for k, v in c.items() if k != "base_model_name_or_path"} for c in configurations]
    return ["weights", content_hash(weights), digest(without_base)]


def code_version(function):
    """Hash of the code that determines a function's numbers: see `version_of_modules`. Nothing is imported for it. A
    notebook's own function is keyed by its source alone."""
    if not function.__module__.startswith("mipo_nb."):
        return digest(inspect.getsource(function))[:16]
    return version_of_modules(function.__module__)


def version_of_modules(*names, without=NOT_NUMBERS):
    """Hash of the code of `modules_behind` these modules."""
    return digest({name: _read(name)[0] for name in modules_behind(*names, without=without)})[:16]


def modules_behind(*names, without=NOT_NUMBERS):
    """{module: hash of its own code} of these modules ("mipo_nb.scoring") and of every module of this package that they
    import, whole or in part. Comments, docstrings and layout do not count, nor do most of `base` and `lab`: they make no numbers."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(without):
            _, imported, found[name] = _read(name)
            waiting += imported
    return found


@functools.cache
def _read(name):
    """(a module's code as text, names of the modules of this package that it imports, hash of its code)."""
    tree, imported = ast.parse(_file(name).read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom():
                imported += imported_modules(node)
            case ast.AST(body=[ast.Expr(value=ast.Constant() as docstring), *_]):
                docstring.value = None
    code = ast.dump(tree)
    return code, imported, digest(code)[:16]


def imported_modules(node):
    """Names of the modules of this package that an `ast.ImportFrom` node brings in, by file or through `MODULES`."""
    if node.module is None or node.module.split(".")[0] != "mipo_nb":
        return []
    if _file(node.module).name != "__init__.py":
        return [node.module]
    paths = mipo_nb.MODULES if node.module == "mipo_nb" else {}
    modules = [f"{node.module}.{paths.get(alias.name, alias.name)}" for alias in node.names]
    return [module for module in modules if _file(module)]


def _file(module):
    """The file of a module of this package, None where there is none."""
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def encode(value, folder):
    """A step's result as JSON; paths relative to its `folder`, so that a moved runs folder stays whole."""
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
        return {"__path__": os.path.relpath(value, folder)}
    return value.item() if isinstance(value, np.generic) else value


def decode(value, folder):
    """The value that `encode` turned into JSON, with its paths in `folder`."""
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
