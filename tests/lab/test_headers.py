"""What notebooks open with agrees with the record of their run; tests/notebooks holds that it is up to date."""

import re

import pytest

from mipo_nb.lab import headers
from mipo_nb.lab.notebooks import collection

COLLECTION = collection()
ADDRESS = "https://github.com/somebody/mipo"


@pytest.mark.parametrize("name", COLLECTION)
def test_minutes_and_memory_are_those_of_the_recorded_run(name):
    manifest = COLLECTION[name].stamp["manifest"]
    cost = headers.header(COLLECTION[name], COLLECTION, "").splitlines()[-1]
    minutes, memory = re.match(
        r"\*Minutes: (under 1|\d+), .* · memory (\d+\.\d) GB · network: .*needs: ", cost
    ).groups()
    alone = headers.seconds_alone(manifest)
    assert alone >= manifest["seconds"]
    assert alone < 30 if minutes == "under 1" else abs(alone / 60 - int(minutes)) <= 0.5
    assert abs(manifest["peak_memory"] / 1e9 - float(memory)) <= 0.05 or manifest["peak_memory"] < float(memory) * 1e9
    assert ("without fast bf16" in cost) == (manifest["dtype"] == "float32")
    assert "gpu" not in cost.lower() and "estimated" not in cost


def test_the_route_shows_where_one_is_and_links_the_others():
    for name in ("01_pointwise_mutual_information", "02_contrastive_bounds", "12_measuring_personalization"):
        lines = headers.header(COLLECTION[name], COLLECTION, "").splitlines()
        [strip] = [line for line in lines if "→" in line]
        assert strip.count(f"**{name[:2]}**") == 1 and f"{name}.ipynb" not in strip
        linked = {path for path in COLLECTION if f"]({path}.ipynb)" in strip}
        assert {path[:2] for path in linked} | {name[:2]} == {"00", "01", "02", "03", "10", "11", "12"}
    beside = headers.header(COLLECTION["40_what_the_pair_swaps"], COLLECTION, "")
    assert "; you are beside it, at **40**." in beside and "40_what_the_pair_swaps.ipynb" not in beside
    assert {name[:2] for name in COLLECTION if f"]({name}.ipynb)" in beside} == {"00", "01", "03", "10", "11", "12"}


@pytest.mark.parametrize("name", COLLECTION)
def test_a_header_is_written_once(name):
    notebook = COLLECTION[name]
    words = notebook.content.cells[0].source
    try:
        for address in ("", ADDRESS, ADDRESS, ""):
            notebook.content.cells[0].source = headers.header(notebook, COLLECTION, address)
            assert notebook.content.cells[0].source.count("Open in Colab") == (
                bool(address) and name[:2] in ("00", "01", "03", "10", "11")
            )
        assert notebook.content.cells[0].source == headers.header(notebook, COLLECTION, "")
        assert notebook.content.cells[0].source.split("\n\n")[:2] == words.split("\n\n")[:2]
    finally:
        notebook.content.cells[0].source = words
