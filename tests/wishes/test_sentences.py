"""A response in its parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb.wishes.sentences import fold, normal, sentences


@pytest.mark.parametrize(
    "parts",
    [
        ["Walk. ", "Read."],
        ["Dr. Lee naps at 9 p.m. and reads, e.g. Emma."],
        ["Rest at 9 p.m. ", "Ada reads."],
        ["Is it so? ", "No. ", "Walk!"],
        ["1. Walk.\n", "2. Read."],
        ["Walk ... and rest."],
        ["Walk... ", "Rest."],
        ['He said "Stop!" and left.'],
        ['He said "Stop!" ', "She left."],
        ["Walk\n\n", "Read"],
        ["See No. 5 there."],
        [],
    ],
)
def test_where_a_sentence_ends(parts):
    assert sentences("".join(parts)) == parts


@given(st.text(alphabet="aA1.!? \n\"')", max_size=40))
def test_they_join_to_the_text(text):
    assert "".join(sentences(text)) == text


def test_one_form_of_writing():
    assert normal("\n\n  ½ m² ！ １．Tea ① ②\r\nit’s… ☀️ 25 ºC  \n") == "  1⁄2 m2 ! 1.Tea 1. 2.\nit's... ☀ 25 °C"
    assert fold("Ayşe ZOË Łódź İpek Straße") == "ayse zoe lodz ipek strasse"
