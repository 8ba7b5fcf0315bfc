"""Files that are written whole or not at all, where the checkout lies, and hashes of values."""

import contextlib
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
    """`compute()`, a JSON value, written to `file` and read from it the next time. Not stored where `file` is None."""
    if file is None:
        return compute()
    if not file.exists():
        write_atomically(file, json.dumps(compute(), ensure_ascii=False))
    return json.loads(file.read_text(encoding="utf-8"))


def project_root():
    """The checkout the package lies in; the working folder when it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def digest(value):
    """SHA-256 of a JSON value, as hexadecimal digits; what is no JSON counts by its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
