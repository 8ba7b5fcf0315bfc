"""The prose of the notebooks: few words, short sentences, one claim in each."""

import re

import pytest

from mipo_nb.lab.notebooks import collection

NOTEBOOKS = {name: notebook.content for name, notebook in collection().items()}
WORDS, WORDS_OF_A_STUDY, MEAN, LONGEST = 1800, 1500, 16, 35
NOT_SAID = r"```.*?```|\$\$.*?\$\$|<[^>]+>"  # code, formulas on lines of their own, HTML
ONE_WORD = r"\$[^$\n]+\$|`[^`]*`"
END = re.compile(r"(?<=[.!?])[\"”’')]*\s+(?=[\"“‘(\[]*[A-Z0-9])")


def sentences(text):
    """The sentences of some Markdown; headings, tables and formulas are none, and each point of a list begins one."""
    text = re.sub(ONE_WORD, "X", re.sub(NOT_SAID, " ", text, flags=re.DOTALL))
    text = re.sub(r"[*_]", "", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text))
    lines = ["" if line.strip().startswith(("#", "|")) else line.strip() for line in text.splitlines()]
    starts = re.sub(r"^(?:[-*>]|\d+\.)\s", "\n", "\n".join(lines), flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", starts):
        yield from (s for s in END.split(" ".join(paragraph.split())) if re.search(r"\w", s))


def length(sentence):
    return len(re.findall(r"\S*\w\S*", sentence))


def prose(notebook):
    """What is written in a notebook, but for the line on its cost and the references."""
    first, *cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [first.rpartition("\n")[0], *(text for text in cells if not text.startswith("## References"))]


def measured(notebook):
    """(words, mean words of a sentence, sentences that are too long, sentences with two semicolons)."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    said = [sentence for text in prose(notebook) for sentence in sentences(text)]
    mean = sum(map(length, said)) / len(said)
    return words, mean, [s for s in said if length(s) > LONGEST], [s for s in said if s.count(";") > 1]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_prose_is_short_and_plain(name):
    words, mean, long, tangled = measured(NOTEBOOKS[name])
    assert words <= (WORDS_OF_A_STUDY if name.startswith("4") else WORDS) and mean <= MEAN
    assert not long and not tangled


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_was_not_seen_is_said_twice_at_most(name):
    assert sum(text.count("did not move measurably") for text in prose(NOTEBOOKS[name])) <= 2


def test_sentences_are_told_apart():
    text = (
        '## Not one\n\nOne is $a. B$ here. "Two?" (Three; it\nends; here.)\n\n- four `a. B`\n- five\n\n| no | one |\n'
    )
    assert list(sentences(text)) == ["One is X here.", '"Two?', "(Three; it ends; here.)", "four X", "five"]
    assert [length(s) for s in sentences("**A** b - c, d.")] == [4]
