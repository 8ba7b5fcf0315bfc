"""A call as it travels to a worker: models, tokenizers and files by name, everything else as it is.

Weights are never pickled. `pack` puts in place of a loaded model or tokenizer what loads it again (a name on the hub with
its commit, `embedded:NAME`, or a folder), and in place of a path a hash of what lies there; `unpack` loads and finds them
on the worker, and refuses what is not the same. Only files that a worker does not have are sent after: rows, rules, the
adapter of an earlier step.
"""

import functools
import io
import os
import pickle
import socket
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from mipo_nb import models
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import digest
from mipo_nb.engine import checkpoints
from mipo_nb.engine.server import Server
from mipo_nb.lab.steps import fingerprint, is_located
from mipo_nb.lab.store import Steps

_MOST = 4 * 1024**3  # bytes that are sent to a worker from one folder: an adapter with its checkpoints, no large model


@dataclass(frozen=True)
class File:
    """A file or folder by its path and a hash of what a step's key holds of it; `text` where it was given as text."""

    path: str
    identity: str
    text: bool = False


@dataclass(frozen=True)
class Loaded:
    """A model, or a tokenizer with its chat `template`, by what loads it again and a hash of its fingerprint."""

    source: str | File
    how: tuple
    identity: str
    template: str | None = None


def pack(values):
    """(bytes, what is named in them) of a dictionary. Raises `UserError` for a model with an adapter in memory."""
    from ray.cloudpickle import CloudPickler  # the kind of pickle that takes functions of a notebook too

    named, stream = [], io.BytesIO()

    class Packer(CloudPickler):
        def persistent_id(self, value):
            if (name := _name(value)) is None:
                return None
            named.append(name)
            return len(named) - 1

        def reducer_override(self, value):
            if is_dataclass(value) and not isinstance(value, type):
                return _dataclass, (type(value), _with_files(vars(value)))
            if type(value).__module__ == "datasets.arrow_dataset":  # in memory: its file stays where it is
                return type(value).from_dict, (value.to_dict(), value.features)
            if isinstance(value, Server):  # its client holds locks
                how = {"timeout": value.timeout, "at_once": value.at_once, "template_options": value.template_options}
                return _server, (str(value.client.base_url), value.model, how)
            return super().reducer_override(value)

    Packer(stream).dump(_with_files(values))
    return stream.getvalue(), tuple(named)


def _with_files(values, deep=True):
    """A dictionary with a `File` for the text of a path, as a step's key has it; of dictionaries in it too, such as a run's
    numbers. Text further down, as in rows, is what somebody wrote."""
    return {
        name: _file(value, True) or value if is_located(value)
        else _with_files(value, False) if deep and isinstance(value, dict) else value
        for name, value in values.items()
    }  # fmt: skip


def _file(path, text=False):
    """The `File` of a path that a key takes by what lies there, else None."""
    identity = fingerprint(Path(path))
    return None if isinstance(identity, str) else File(str(path), digest(identity)[:16], text)


def _name(value):
    """What stands for a value in a pickle; None where it goes as it is."""
    if isinstance(value, type):
        return None
    if isinstance(value, File):
        return value
    if isinstance(value, Path):
        return _file(value)
    if isinstance(value, Steps):
        return "steps"
    if hasattr(value, "named_parameters"):
        return _model(value)
    if hasattr(value, "apply_chat_template"):
        return Loaded(_source(value.name_or_path), (), digest(fingerprint(value)), value.chat_template)
    return None


def _model(model):
    if hasattr(model, "peft_config"):
        raise UserError("A model with an adapter is not sent to workers; give the adapter's folder, and load it there.")
    dtype, four_bit = str(model.dtype).removeprefix("torch."), bool(getattr(model, "is_loaded_in_4bit", False))
    how = (("device", model.device.type), ("dtype", dtype), ("four_bit", four_bit))
    commit = getattr(model.config, "_commit_hash", None)
    return Loaded(_source(model.config._name_or_path, commit), how, digest(fingerprint(model)))


def _source(path, commit=None):
    """How `models.load` takes what was loaded from a folder or a name on the hub."""
    if (name := checkpoints.base_name(path)).startswith("embedded:"):
        return name
    if is_located(folder := os.path.abspath(path)):
        return _file(folder) or folder
    return f"{path}@{commit}" if commit else path


def _dataclass(kind, fields):
    made = object.__new__(kind)
    vars(made).update(fields)
    return made


def _server(url, model, how):
    return Server(url, model, **how)


def unpack(packed, named, steps, here):
    """What `pack` was given, on a worker: with its own `steps`, models loaded anew (the process holds them), and files where
    `here(file)` says that they lie. Raises `UserError` for a model that is not the one that was given."""

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, number):
            match named[number]:
                case File() as file:
                    return str(here(file)) if file.text else Path(here(file))
                case Loaded() as loaded:
                    return _load(loaded, here)
            return steps

    return Unpacker(io.BytesIO(packed)).load()


def files_among(named):
    """The files of what `pack` named, those that a model or tokenizer is loaded from too."""
    found = [one.source if isinstance(one, Loaded) else one for one in named]
    return [one for one in found if isinstance(one, File)]


def _load(loaded, here):
    name = str(here(loaded.source)) if isinstance(loaded.source, File) else loaded.source
    found = _weights(name, loaded.how) if loaded.template is None else _tokenizer(name, loaded.template)
    if digest(fingerprint(found)) != loaded.identity:
        raise UserError(
            f"{name} is not on {socket.gethostname()} what this run has: other files lie there, or the model was changed "
            "after it was loaded; bring the same files to all machines, and give models as they are loaded."
        )
    return found


@functools.lru_cache(maxsize=2)
def _weights(name, how):
    return models.load(name, **dict(how))[0]


@functools.lru_cache(maxsize=4)
def _tokenizer(name, template):
    """The tokenizer of a name with a settled chat template, which has the options in it that the run gave: one object for
    each template, since a call may hold several of one name (with a model's own template, and with another)."""
    tokenizer = models.load_tokenizer(name)
    tokenizer.chat_template = template
    return tokenizer


def contents(path):
    """{relative path: bytes} of a file, or of all files in a folder."""
    path = Path(path)
    return {str(file.relative_to(path)): file.read_bytes() for file in _files_in(path)}


def require_sendable(path):
    """Raise `UserError` for a file or folder that is too large to send to workers."""
    if sum(file.stat().st_size for file in _files_in(Path(path))) > _MOST:
        raise UserError(f"{path} is too large to send to workers; put it into a folder that all machines share.")


def _files_in(path):
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def put(files, path):
    """Write what `contents` gave to a path where nothing is yet, in one move at the end."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    for name, content in files.items():
        target = made / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    made.replace(path)
