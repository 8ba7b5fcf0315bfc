"""For a class: student copies, a course that nbgrader marks, strict checks, questions at the end, glossary, slides."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.course import checks, classroom, slides
from mipo_nb.lab.notebooks import collection

NBGRADER = Path(sys.prefix) / "nbgrader" / "bin" / "nbgrader"  # where `make test-all` puts it
QUIZ = ("00_start_here", "10_building_pairs", "11_qlora_mipo", "12_measuring_personalization")
MAKERS = (classroom.student_copy, classroom.nbgrader_course)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """{name: an assignment as the teacher has it} of the course for nbgrader."""
    written = classroom.nbgrader_course(tmp_path_factory.mktemp("course"))
    return {path.stem: nbformat.read(path, as_version=4) for path in written}


def part(notebook, kind):
    """The cells of an assignment whose name begins with `kind`."""
    return [cell for cell in notebook.cells if cell.id.startswith(f"{kind}-")]


def unsolved(source):
    """An answer as nbgrader releases it."""
    return re.sub(r"### BEGIN SOLUTION.*### END SOLUTION", "...  # your code", source, flags=re.DOTALL)


# --- copies ---


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


@pytest.mark.parametrize("make", MAKERS)
def test_what_a_class_gets_goes_into_an_empty_folder_only(make, tmp_path):
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(UserError, match="is there already; name a folder that is new or empty"):
            make(out)
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "class")
    assert (tmp_path / "file").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"empty", "file"}


# --- marks ---


def test_a_failed_check_raises_where_checks_are_strict(monkeypatch, capsys):
    checks.times_likelier(lambda nats: nats)
    monkeypatch.setenv("MIPO_NB_STRICT", "1")
    checks.times_likelier(np.exp)
    for wrong in (lambda nats: nats, lambda nats: None, lambda nats: 1 / 0):
        with pytest.raises(AssertionError, match="✗ Not yet: "):
            checks.times_likelier(wrong)
    with pytest.raises(AssertionError, match="another user"):  # a check with a loop of its own
        checks.other_user(lambda rows, i: i)
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✗", "✓"]


def test_a_strict_check_keeps_warnings_of_an_answer_to_itself(monkeypatch):
    def hesitant(nats):
        warnings.warn("slow", stacklevel=1)
        return np.exp(nats)

    monkeypatch.setenv("MIPO_NB_STRICT", "1")
    checks.times_likelier(hesitant)  # a warning is an error in these tests


def test_the_course_has_every_exercise_with_its_points(course):
    assert list(course) == list(collection())
    for name, notebook in course.items():
        nbformat.validate(notebook)
        exercises = [c.source for c in collection()[name].content.cells if "# your code" in c.source]
        ids = [cell.metadata.nbgrader.grade_id for cell in notebook.cells]
        assert len(set(ids)) == len(ids) == 2 + 3 * len(exercises)
        for text, answer, check in zip(*(part(notebook, k) for k in ("exercise", "answer", "check")), strict=True):
            [level] = re.findall(r"\((easy|medium|hard), \d+ minutes\)", text.source)
            assert check.metadata.nbgrader.points == {"easy": 1, "medium": 2, "hard": 3}[level]
            assert answer.metadata.nbgrader.solution and check.metadata.nbgrader.grade
            assert answer.source.count("### BEGIN SOLUTION") == answer.source.count("### END SOLUTION") == 1
            assert check.source.startswith("checks.") and not check.outputs


def test_solutions_earn_all_points_and_blanks_none(course, monkeypatch):
    monkeypatch.setenv("MIPO_NB_STRICT", "1")
    for notebook in course.values():
        names = {}
        [imports] = [cell.source for cell in notebook.cells if cell.id == "imports"]
        exec(imports, names)
        for answer, check in zip(part(notebook, "answer"), part(notebook, "check"), strict=True):
            exec(answer.source, names)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(check.source, names)
            assert "✓" in said.getvalue()
            exec(unsolved(answer.source), names)
            with pytest.raises(AssertionError, match="replace the dots"):
                exec(check.source, names)


SUBMISSIONS = {  # what a student writes in place of the dots: (answers to three exercises, points of 1 + 2 + 1)
    "solved": (lambda k, answer: answer, 4),
    "unsolved": (lambda k, answer: unsolved(answer), 0),
    "wrong": (lambda k, answer: unsolved(answer).replace("...  # your code", "return 0"), 0),
    "partly": (lambda k, answer: answer if k == 0 else unsolved(answer), 1),
    "warned": (lambda k, answer: answer.replace("### BEGIN", "np.log(np.zeros(1))  # warns\n    ### BEGIN"), 4),
    "stopped": (lambda k, answer: answer if k == 1 else "raise ValueError", 2),
}


@pytest.mark.whole
@pytest.mark.skipif(not NBGRADER.exists(), reason="nbgrader is not here; `make test-all` installs it")
def test_nbgrader_releases_and_marks_a_class(tmp_path, course):
    """With its own commands, in an environment of its own; the kernel is this one."""
    folder, name = tmp_path / "course", "10_building_pairs"
    classroom.nbgrader_course(folder)
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    environment = {k: v for k, v in os.environ.items() if k != "MIPO_NB_STRICT"}
    environment |= {f"JUPYTER_{k}_DIR": str(tmp_path / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"JUPYTER_PATH": str(tmp_path / "jupyter"), "IPYTHONDIR": str(tmp_path / "ipython")}
    environment["PATH"] = (
        f"{NBGRADER.parent}{os.pathsep}{os.environ['PATH']}"  # it calls its neighbour, alembic, by name
    )

    def nbgrader(*words):
        done = subprocess.run([NBGRADER, *words], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    nbgrader("generate_assignment", "*")
    released = {path.stem: nbformat.read(path, as_version=4) for path in folder.glob("release/*/*.ipynb")}
    assert set(released) == set(collection())
    for each, notebook in released.items():
        answers = [cell.source for cell in part(course[each], "answer")]
        assert [cell.source for cell in part(notebook, "answer")] == list(map(unsolved, answers))
    for student, (written, _) in SUBMISSIONS.items():
        mine = nbformat.from_dict(released[name])
        for k, (cell, whole) in enumerate(zip(part(mine, "answer"), part(course[name], "answer"), strict=True)):
            cell.source = written(k, whole.source)
        (folder / "submitted" / student / name).mkdir(parents=True)
        nbformat.write(mine, folder / "submitted" / student / name / f"{name}.ipynb")
    nbgrader("autograde", name)
    nbgrader("export", "--to=grades.csv")
    rows = [
        row for row in csv.DictReader((folder / "grades.csv").read_text().splitlines()) if row["assignment"] == name
    ]
    assert {row["student_id"]: float(row["score"]) for row in rows} == {k: v for k, (_, v) in SUBMISSIONS.items()}
    assert {float(row["max_score"]) for row in rows} == {4.0}


# --- questions ---


@pytest.mark.parametrize("name", QUIZ)
def test_a_notebook_ends_with_five_questions_whose_answers_are_folded(name):
    [quiz] = [c.source for c in collection()[name].content.cells if c.source.startswith("### Five questions")]
    asked = re.findall(
        r"^\*\*(\d)\.\*\* [^\n]+\?\n\n<details><summary>Answer</summary>\n\n[^\n<]+\n\n</details>$", quiz, re.MULTILINE
    )
    assert asked == list("12345") and quiz.count("<details>") == 5


# --- words ---

NEEDED = (
    "adapter beta chosen context DPO draw floor interval kept log-ratio LoRA margin misapplied nat NF4 pair PMI QLoRA "
    "recital reference rejected restraint reward seed temperature training wish"
)


def test_the_glossary_is_complete_and_alphabetical():
    text = (project_root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [line for line in text.partition("## Words")[2].splitlines() if re.match(r"\w", line)]
    assert words == sorted(words, key=lambda word: re.sub(r"[$']", "", word.lower()).replace("-", " "))
    assert {*NEEDED.split(), "KL divergence"} <= set(words)


# --- slides ---


class Page(HTMLParser):
    """What a page loads, and the texts of its images."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [found[k] for k in ("src", "href") if found.get(k)]
        if tag == "img":
            self.texts.append(found["alt"])


def made(cache, out):
    """`python -m mipo_nb.course.slides`, as `make slides` calls it, with this cache and no npm."""
    environment = {**os.environ, "MIPO_NB_CACHE": str(cache), "PATH": "", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "mipo_nb.course.slides", out]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_deck_is_made_of_marked_cells():
    cells = {cell.id: cell for name in collection() for cell in collection()[name].content.cells}
    deck, kinds = slides.deck(), ("slide", "subslide", "fragment", "-")
    marks = [cell.metadata.slideshow.slide_type for cell in deck.cells]
    assert marks[0] == "slide" and set(marks) == set(kinds) and 15 <= marks.count("slide") <= 45
    assert all(cell == cells[cell.id] for cell in deck.cells)
    assert all(cell.outputs for cell in deck.cells if cell.cell_type == "code")
    for name in QUIZ:  # each begins with its title and ends with its questions
        own = [cell for cell in deck.cells if cell.id.startswith(f"{name[:2]}-")]
        assert own[0].source.startswith(f"# {name[:2]} · ") and own[-1].source.startswith("### Five questions")


def test_every_formula_of_the_notebooks_is_drawn():
    """On slides and on the site, which share this; the converter knows a part of LaTeX."""
    cells = [cell for notebook in collection().values() for cell in notebook.content.cells]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    found = [match for text in texts for match in slides._FORMULA.findall(text) if "\\" in "".join(match)]
    assert len(found) > 100
    for block, inline in found:
        assert slides.mathml(block or inline, block=bool(block)).startswith("<math")


def test_an_index_stands_beside_a_hat_and_words_under_what_they_name():
    hat = "".join(slides.mathml(r"\hat\pi_K(y)").split())
    assert '<msub><moveraccent="true"><mi>π</mi>' in hat and "munderover" not in hat
    named = "".join(slides.mathml(r"\underbrace{-\log p(y)}_{\text{surprise}} - x").split())
    assert "</mrow><mtext>surprise</mtext></munder>" in named and "⏟" not in named
    assert "".join(slides.mathml(r"\sum_{k=1}^K x_k").split()).count("<munderover>") == 1


def test_slides_load_nothing_from_elsewhere(tmp_path):
    folder = tmp_path / "cache" / slides.KEPT
    for file in ("dist/reveal.js", "dist/reveal.css", "dist/theme/white.css"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    done = made(tmp_path / "cache", tmp_path / "slides")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip().endswith("index.html")
    text = (tmp_path / "slides" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    for load in page.loads:
        assert load.startswith(("data:", "#")) or (tmp_path / "slides" / load).is_file(), load[:80]
    assert not re.search(r"@import|url\((?!\s*['\"]?data:)", text)
    assert len(page.texts) >= 7 and all(len(said.split()) >= 8 for said in page.texts)
    said = text.partition("<main>")[2]
    assert said.count("<math ") >= 10 and not re.search(r"\$[^$<]*\\[a-z]", said)
    assert said.count("<section>") > 30 and "jp-InputArea-editor" not in said  # what cells printed, and not their code
    answers = re.findall(r"<details><summary>Answer</summary><p>[^<]", said)
    assert len(answers) == said.count("<details>") == 5 * len(QUIZ)  # inside, not below
    assert "Minutes:" not in said and "→" not in re.sub("<svg.*?</svg>", "", said, flags=re.DOTALL)


def test_without_npm_and_cache_the_slides_say_what_to_do(tmp_path):
    done = made(tmp_path / "cache", tmp_path / "slides")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "npm is not installed" in done.stderr
    assert not (tmp_path / "slides").exists() and not list((tmp_path / "cache").iterdir())


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    (tmp_path / "reveal.tgz").write_bytes(b"something else")
    with pytest.raises(UserError, match="not the pinned"):
        slides.unpack(tmp_path / "reveal.tgz", tmp_path)
