"""The tables of README and guide: between their markers, and nowhere else."""

import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.lab import tables

TEXT = "before\n<!-- bench: written by mipo-nb tables -->\nold\n<!-- end bench -->\nafter\n"


def test_what_stands_between_the_markers_is_replaced():
    assert tables._between(TEXT, "bench", "new", "README.md") == TEXT.replace("old", "new")


@pytest.mark.parametrize("lost", ["<!-- bench: written by mipo-nb tables -->", "<!-- end bench -->"])
def test_a_page_without_its_marker_is_not_left_as_it_was(lost):
    with pytest.raises(UserError, match=r"README.md has lost its marker '<!-- bench: ... -->'"):
        tables._between(TEXT.replace(lost, ""), "bench", "new", "README.md")
