"""Student copies without solutions, and archives of models that are checked before anything is written."""

import hashlib
import io
import shutil
import tarfile

import nbformat
import pytest

from mipo_nb import classroom, runner
from mipo_nb.embedded import EMBEDDED, cache_path
from mipo_nb.settings import UserError

# --- student copies ---


def test_a_student_copy_has_the_exercises_and_not_the_solutions(tmp_path):
    written = classroom.student_copy(tmp_path / "class")
    assert [p.stem for p in written] == list(runner.notebook_paths())
    for path in written:
        copy, original = nbformat.read(path, as_version=4), runner.read(runner.notebook_paths()[path.stem])
        nbformat.validate(copy)
        kept = [c for c in original.cells if "solution" not in c.metadata.get("tags", [])]
        assert [c.source for c in copy.cells] == [c.source for c in kept]
        assert len(original.cells) - len(kept) >= 2  # there were solutions to leave out
        assert any("your code" in c.source for c in copy.cells)
        for cell in copy.cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None
        assert set(copy.metadata) <= {"kernelspec", "language_info"}


def test_a_student_copy_goes_into_an_empty_folder_only(tmp_path):
    (tmp_path / "empty").mkdir()
    assert classroom.student_copy(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(UserError, match="is there already; name a folder that is new or empty"):
            classroom.student_copy(out)
    with pytest.raises(UserError, match="cannot be written"):
        classroom.student_copy(tmp_path / "file" / "class")
    assert (tmp_path / "file").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"empty", "file"}


# --- archives of models ---


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with some files where the models would lie; what matters here is how they travel."""
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    for name in EMBEDDED:
        (cache_path(name) / "deep").mkdir(parents=True)
        (cache_path(name) / "model.safetensors").write_bytes(name.encode() * 1000)
        (cache_path(name) / "deep" / "config.json").write_text("{}")
    return tmp_path / "cache"


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_models_travel_in_an_archive(cache, tmp_path):
    before = content(cache)
    assert classroom.pack(tmp_path / "new" / "models.tar") == list(EMBEDDED)
    shutil.rmtree(cache)
    assert classroom.unpack(tmp_path / "new" / "models.tar") == sorted(cache_path(n).name for n in EMBEDDED)
    assert content(cache) == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["models.tar"]


def test_a_model_that_is_there_stays_as_it_is(cache, tmp_path):
    classroom.pack(tmp_path / "models.tar")
    mine = cache_path("minilm-l6") / "model.safetensors"
    mine.write_bytes(b"mine")
    shutil.rmtree(cache_path("smollm2-135m"))
    classroom.unpack(tmp_path / "models.tar")
    assert mine.read_bytes() == b"mine" and (cache_path("smollm2-135m") / "model.safetensors").exists()


def test_what_cannot_be_packed_is_explained(cache, tmp_path):
    (tmp_path / "models.tar").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        classroom.pack(tmp_path / "models.tar")
    with pytest.raises(UserError, match="cannot be written"):
        classroom.pack(tmp_path / "models.tar" / "inside.tar")
    shutil.rmtree(cache_path("minilm-l6"))
    with pytest.raises(UserError, match="minilm-l6 is not in the cache; run 'mipo-nb run 00 12"):
        classroom.pack(tmp_path / "other.tar")
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "models.tar"}
    assert (tmp_path / "models.tar").read_text() == "mine"


def archive(file, members, sums=None):
    """A tar of (name, bytes or TarInfo) members after a list of sums: of the members themselves, or as given."""
    if sums is None:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in members if isinstance(data, bytes)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    with tarfile.open(file, "w") as made:
        for name, data in [("SHA256SUMS", lines), *members]:
            entry = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                entry.size = len(data)
            made.addfile(entry, io.BytesIO(data) if isinstance(data, bytes) else None)
    return file


def link(name, target, kind):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return name, entry


MODEL = cache_path("minilm-l6").name
WRONG = {
    "out of the folder": ([(f"{MODEL}/../../evil", b"x")], None, "which is no file of a known model"),
    "above": ([("../evil", b"x")], None, "which is no file of a known model"),
    "absolute": ([("/etc/evil", b"x")], None, "which is no file of a known model"),
    "another folder": ([("strange/model.safetensors", b"x")], None, "which is no file of a known model"),
    "no folder": ([("evil", b"x")], None, "which is no file of a known model"),
    "in the place of a model": ([(MODEL, b"x")], None, "which is no file of a known model"),
    "symbolic link": ([link(f"{MODEL}/a", "/etc/passwd", tarfile.SYMTYPE)], None, "which is no file of a known model"),
    "hard link": ([link(f"{MODEL}/a", "SHA256SUMS", tarfile.LNKTYPE)], None, "which is no file of a known model"),
    "device": ([link(f"{MODEL}/a", "", tarfile.CHRTYPE)], None, "which is no file of a known model"),
    "another sum": ([(f"{MODEL}/a", b"x")], {f"{MODEL}/a": "0" * 64}, "The checksum of .* differs"),
    "not in the list": ([(f"{MODEL}/a", b"x")], {}, "The checksum of .* differs"),
    "twice": ([(f"{MODEL}/a", b"x"), (f"{MODEL}/a", b"x")], None, "The checksum of .* differs"),
    "missing": ([(f"{MODEL}/a", b"x")], {f"{MODEL}/a": hashlib.sha256(b"x").hexdigest(), f"{MODEL}/b": "0"}, "lacks"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_archive_leaves_the_cache_as_it_was(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    members, sums, told = WRONG[kind]
    # A good file first: nothing of the archive may arrive when a later member is bad.
    good = (f"{cache_path('smollm2-135m').name}/model.safetensors", b"good")
    if sums is not None:
        sums = {good[0]: hashlib.sha256(good[1]).hexdigest(), **sums}
    file = archive(tmp_path / "models.tar", [good, *members], sums)
    with pytest.raises(UserError, match=told):
        classroom.unpack(file)
    assert not list((tmp_path / "cache").iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "models.tar"}


def test_what_is_no_archive_is_explained(cache, tmp_path):
    classroom.pack(tmp_path / "models.tar")
    whole = (tmp_path / "models.tar").read_bytes()
    for name, data in {"text.tar": b"hello" * 500, "empty.tar": b"", "cut.tar": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=rf"{name} "):
            classroom.unpack(tmp_path / name)
    with tarfile.open(tmp_path / "other.tar", "w") as made:
        made.addfile(tarfile.TarInfo("README"))
    with pytest.raises(UserError, match="is not an archive made by 'mipo-nb pack'"):
        classroom.unpack(tmp_path / "other.tar")
    with pytest.raises(UserError, match="There is no file"):
        classroom.unpack(tmp_path / "nowhere.tar")
    with pytest.raises(UserError):
        classroom.unpack(tmp_path)
