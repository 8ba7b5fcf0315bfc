"""For a class: notebooks without solutions, and the cached models as one archive for machines without a network."""

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from mipo_nb.embedded import EMBEDDED, cache_folder, cache_path
from mipo_nb.settings import UserError

_SUMS = "SHA256SUMS"


def student_copy(out):
    """Copy the notebooks to the new folder `out`, without solutions, outputs and the record of their run.

    Returns the paths written. Raises `UserError` for a folder that has something in it or cannot be written.
    """
    import nbformat

    from mipo_nb.runner import notebook_paths, read

    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name a folder that is new or empty.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as work:
            made = Path(work) / "made"
            made.mkdir()
            for name, path in notebook_paths().items():
                nbformat.write(_without_solutions(read(path)), made / f"{name}.ipynb")
            os.replace(made, out)
    except OSError as e:
        raise UserError(f"{out} cannot be written ({e.strerror}); name a folder that can.") from None
    return sorted(out.glob("*.ipynb"))


def _without_solutions(notebook):
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("mipo_nb", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def pack(file):
    """Write the embedded models of this machine's cache to one tar archive, their SHA-256 sums first.

    Returns the names of the models. Raises `UserError` when one is not in the cache yet, or the file is there already.
    """
    file = Path(file).expanduser()
    if file.exists():
        raise UserError(f"{file} is there already; name a new file.")
    folders = {name: cache_path(name) for name in EMBEDDED}
    missing = [name for name, folder in folders.items() if not folder.is_dir()]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the cache; run "
            f"'mipo-nb run 00 12 --profile smoke' once on this machine, with a network."
        )
    files = sorted(f for folder in folders.values() for f in folder.rglob("*") if f.is_file())
    sums = "".join(f"{_sha256(f)}  {f.relative_to(cache_folder()).as_posix()}\n" for f in files).encode()
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w") as archive:
            entry = tarfile.TarInfo(_SUMS)
            entry.size = len(sums)
            archive.addfile(entry, io.BytesIO(sums))
            for one in files:
                archive.add(one, one.relative_to(cache_folder()).as_posix())
        os.replace(temporary, file)
    except OSError as e:
        raise UserError(f"{file} cannot be written ({e.strerror}); name another place.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return list(folders)


def unpack(file):
    """Put the models of an archive of `pack` into this machine's cache; a model that is there already stays.

    Returns the names of the folders. Raises `UserError` for what is no such archive, a checksum that differs, or a
    member that would lie anywhere but in the folder of a known model; then nothing is written.
    """
    file = Path(file).expanduser()
    cache = cache_folder()
    known = {cache_path(name).name for name in EMBEDDED}
    try:
        with tarfile.open(file, "r:") as archive, tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as work:
            members = archive.getmembers()
            if not members or members[0].name != _SUMS:
                raise UserError(f"{file} is not an archive made by 'mipo-nb pack'.")
            lines = archive.extractfile(members[0]).read().decode().splitlines()
            sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
            for member in members[1:]:
                inside = PurePosixPath(member.name).parts
                if not member.isfile() or inside[0] not in known or ".." in inside or len(inside) < 2:
                    raise UserError(f"{file} holds '{member.name}', which is no file of a known model; do not use it.")
                target = Path(work, *inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                if _sha256(target) != sums.pop(member.name, None):
                    raise UserError(f"The checksum of {member.name} in {file} differs; copy the archive again.")
            if sums:
                raise UserError(f"{file} lacks {next(iter(sums))}; copy the archive again.")
            folders = sorted(p.name for p in Path(work).iterdir())
            for name in folders:
                if not (cache / name).exists():
                    os.replace(Path(work) / name, cache / name)
            return folders
    except FileNotFoundError:
        raise UserError(f"There is no file {file}.") from None
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as e:
        raise UserError(f"{file} is not an archive made by 'mipo-nb pack' ({e}).") from None
    except OSError as e:
        raise UserError(f"{file} could not be unpacked into {cache} ({e.strerror or e}).") from None


def _sha256(file):
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
