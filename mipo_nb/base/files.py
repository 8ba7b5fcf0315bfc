"""Files that are written whole or not at all, by one process at a time; where the checkout lies; hashes of values."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
from pathlib import Path

from mipo_nb.base.errors import UserError


def write_atomically(path, content):
    """Write text or bytes to a temporary sibling and move it into place, so that no reader ever sees half a file.
    Raises `UserError` where that cannot be done."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.replace(temporary, path)
    except OSError as e:  # a full disk, a folder that became read-only
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} could not be written ({e.strerror}); what was there before is as it was.") from e


def kept(file, compute):
    """`compute()`, a JSON value, written to `file` and read from it the next time. Not stored where `file` is None. A file
    that is no JSON, as after a crash, counts as not there."""
    if file is None:
        return compute()
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    write_atomically(file, json.dumps(compute(), ensure_ascii=False))
    return json.loads(file.read_text(encoding="utf-8"))


@contextlib.contextmanager
def locked(file, waiting):
    """Hold the system's lock on `file`, which is made for it and stays, empty: one process at a time, and none once it has
    ended, however it did. `waiting()` is called where another process holds it. Where the file system has no locks, as
    some networks' have not, work goes on without. Raises `UserError` where `file` cannot be made."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open(file, "a"))
        except OSError as e:
            raise UserError(f"{file} could not be written ({e.strerror}); set OUTPUT_DIR to a folder that can.") from e
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError:
            pass  # no locks here
        yield


def project_root():
    """The checkout the package lies in; the working folder when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def digest(value):
    """SHA-256 of a JSON value, as hexadecimal digits; what is no JSON counts by its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def stamps(files):
    """((path, size, time of change), ...) of files: equal as long as none was written to."""
    return tuple((str(file), (found := os.stat(file)).st_size, found.st_mtime_ns) for file in files)


def content_hash(files):
    """SHA-256 of what files hold, one after the other, as 16 hexadecimal digits. They are read again where their `stamps`
    have changed."""
    return _content_hash(stamps(files))


@functools.lru_cache
def _content_hash(stamped):
    contents = hashlib.sha256()
    for path, _, _ in stamped:
        with open(path, "rb") as opened:
            contents.update(hashlib.file_digest(opened, "sha256").digest())
    return contents.hexdigest()[:16]


def tensors_hash(named):
    """XXH3 (128 bits) of (name, tensor) pairs, as hexadecimal digits: of all bytes, some 15 GB of them a second. On a GPU,
    from which they would take long to come, of their `sums`."""
    import torch
    import xxhash

    contents = xxhash.xxh3_128()
    for name, tensor in named:
        contents.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        contents.update((sums(flat) if flat.is_cuda else flat).cpu().numpy())
    return contents.hexdigest()


def sums(flat, width=4096):
    """Sums, modulo 2**64, of the columns and of the rows of a table that holds bytes `flat` [n] as whole numbers of 64 bits,
    `width` in a row. A number that changes changes two of them, and so do two that change places."""
    import torch

    table = torch.nn.functional.pad(flat, (0, -len(flat) % (8 * width))).view(torch.int64).view(-1, width)
    return torch.cat([table.sum(0), table.sum(1)]).view(torch.uint8)
