"""The prose of the notebooks: few words, short sentences, one claim in each."""

import re

import pytest

from mipo_nb.lab.notebooks import collection

NOTEBOOKS = {name: notebook.content for name, notebook in collection().items()}
WORDS, MEAN, LONGEST = 1800, 16, 35
# Studies that were written before this rule: words, words in a sentence, sentences that are too long, with two
# semicolons. These numbers only fall; whoever makes a page shorter lowers them, or takes the page out.
EARLIER = {}
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


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name not in EARLIER])
def test_prose_is_short_and_plain(name):
    words, mean, long, tangled = measured(NOTEBOOKS[name])
    assert words <= WORDS and mean <= MEAN
    assert not long and not tangled


@pytest.mark.parametrize("name", EARLIER)
def test_earlier_prose_grows_no_further(name):
    words, mean, long, tangled = measured(NOTEBOOKS[name])
    assert all(now <= then for now, then in zip((words, mean, len(long), len(tangled)), EARLIER[name], strict=True))
    assert words > WORDS or mean > MEAN or long or tangled, "it keeps the rule now: take it out of the list"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_was_not_seen_is_said_twice_at_most(name):
    assert sum(text.count("did not move measurably") for text in prose(NOTEBOOKS[name])) <= 2


def test_sentences_are_told_apart():
    text = (
        '## Not one\n\nOne is $a. B$ here. "Two?" (Three; it\nends; here.)\n\n- four `a. B`\n- five\n\n| no | one |\n'
    )
    assert list(sentences(text)) == ["One is X here.", '"Two?', "(Three; it ends; here.)", "four X", "five"]
    assert [length(s) for s in sentences("**A** b - c, d.")] == [4]
