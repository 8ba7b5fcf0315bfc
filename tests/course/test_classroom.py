"""Student copies without solutions."""

import nbformat
import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.course import classroom
from mipo_nb.lab.notebooks import collection


def test_a_student_copy_has_the_exercises_and_not_the_solutions(tmp_path):
    written = classroom.student_copy(tmp_path / "class")
    assert [p.stem for p in written] == list(collection())
    for path in written:
        copy, original = nbformat.read(path, as_version=4), collection()[path.stem].content
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
