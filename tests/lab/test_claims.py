"""The ledger of claims: what stands in it, which badge follows from which record, and what a mistake in it says."""

import fnmatch
import math
import re
import tomllib
from collections import Counter
from dataclasses import fields
from types import SimpleNamespace

import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.lab import claims, settings, tables
from mipo_nb.lab.notebooks import collection

CLAIMS = claims.read()
NOTEBOOKS = collection()

# Every published number that we know, by the words under which it must be given. Nothing else may be called published.
PUBLISHED = {
    "P2": "3-40%",
    "P3": "3-16% 51%",
    "P5": "1-18%",
    "P6": "1-20%",
    "R1": "+17.4",
    "R2": "+35.3",
    "R3": "+3.5",
    "R4": "+0.9",
    "R5": "22.0 10.67",
    "R6": "93.67 81.62 94.84 90.4",
    "W11": "1,500 75 8,011",
}
# Numbers that other fields may hold: settings of the authors' code, limits of ours, facts of the data.
TOLD = "2 100 0.1 0.7 1.0 200 256 1 5 2.8 1,396"
NAMES = re.compile(
    r"Qwen2\.5-\d(\.\d)?B(-Instruct)?|Llama-3\.2-1B|1\.5B|GSM8K|GPT-4o|float32|5e-7|1/beta|notebook \d\d|\b[PRWE]\d+\b|\bCb?\d\b|\bv\d\b"
)
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:-\d+)?%?")


def numbers(text):
    return [n.rstrip(",") for n in NUMBER.findall(NAMES.sub("", text))]


# --- what stands in it ---


def test_there_are_enough_claims_and_none_is_left_out():
    assert len(CLAIMS) >= 20
    sources = {c.source for c in CLAIMS}
    assert {f"write-up W{k}" for k in range(1, 14)} <= sources
    assert {f"criticism {letter}" for letter in "abcdefgh"} <= sources
    assert {c.id for c in CLAIMS if c.source.startswith("write-up")} == {f"W{k}" for k in range(1, 14)}
    assert all(c.source.endswith(c.id) for c in CLAIMS if c.id.startswith("W"))
    assert all(c.source == f"criticism {c.id[1]}" for c in CLAIMS if c.id.startswith("C"))


def test_each_known_published_number_stands_where_it_belongs_and_no_other_does():
    assert {c.id: numbers(c.published) for c in CLAIMS if c.published} == {k: v.split() for k, v in PUBLISHED.items()}
    counts = Counter(n for c in CLAIMS for n in numbers(c.published))
    assert set(counts.values()) == {1}


def test_other_texts_hold_no_number_that_is_not_known():
    for claim in CLAIMS:
        for text in (claim.text, claim.reason, claim.would_change):
            assert set(numbers(text)) <= set(TOLD.split()), (claim.id, numbers(text))


def test_the_search_for_numbers_finds_them():
    assert numbers("gains of 3-40% and +17.4 points, 1,500 users at 0.1") == ["3-40%", "+17.4", "1,500", "0.1"]
    assert numbers("Qwen2.5-1.5B on GSM8K gains 12% (R2)") == ["12%"]


def test_references_between_claims_lead_to_one():
    for claim in CLAIMS:
        for text in (claim.text, claim.reason, claim.would_change):
            assert set(re.findall(r"\b[PRWE]\d+\b", text)) <= {c.id for c in CLAIMS} - {claim.id}, claim.id


def test_the_package_ships_every_file_that_is_not_code():
    project = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["mipo_nb"]
    folder = project_root() / "mipo_nb"
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            name = file.relative_to(folder).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


# --- badges follow from the record ---


def result(low, value, high, name="gain"):
    return {"name": name, "value": value, "low": low, "high": high, "n": 8, "unit": "points", "seed": 0}


ABOVE, ACROSS, BELOW, POINT = result(1, 2, 3), result(-1, 0, 1), result(-3, -2, -1), result(None, 2, None)


@pytest.mark.parametrize(
    "expects, given, answer",
    [
        ("above 0", ABOVE, True),
        ("above 0", ACROSS, None),
        ("above 0", BELOW, False),
        ("above 1", ABOVE, None),  # touches
        ("above 3", ABOVE, None),  # touches from below
        ("above 4", ABOVE, False),
        ("below 0", ABOVE, False),
        ("below 0", ACROSS, None),
        ("below 0", BELOW, True),
        ("below -0.5", BELOW, True),
        ("between -2 and 2", ACROSS, True),
        ("between -2 and 2", ABOVE, None),
        ("between 5 and 6", ABOVE, False),
        ("between -1.5 and 0.5", ACROSS, None),
        ("above 0", POINT, None),
        ("above 0", result(math.nan, math.nan, math.nan), None),
    ],
)
def test_an_expectation_is_met_by_the_whole_interval_only(expects, given, answer):
    assert claims.met(expects, given) is answer


def test_a_value_without_an_interval_answers_only_where_it_is_exact():
    assert claims.met("above 0", POINT, exact=True) is True
    assert claims.met("above 2", POINT, exact=True) is False
    assert claims.met("below 1", POINT, exact=True) is False


def made(*results, profile="laptop", **changes):
    """A claim whose results are all expected above 0, and the notebooks that recorded them."""
    named = [{**r, "name": f"result {k}"} for k, r in enumerate(results)]
    stamp = {"manifest": {"profile": profile}, "results": named}
    expected = tuple({"name": r["name"], "expects": "above 0"} for r in named)
    given = {"id": "X1", "text": "t", "source": "code", "reason": "r", "would_change": "w", "notebook": "12_x"}
    claim = claims.Claim(**{**given, "results": expected, **changes})
    return claim, {"12_x": SimpleNamespace(results=stamp["results"], stamp=stamp)}


def badge_of(claim, notebooks):
    """The badge of a claim from what its notebook recorded."""
    notebook = notebooks.get(claim.notebook)
    recorded = (notebook.results, notebook.stamp["manifest"]["profile"]) if notebook else ([], "")
    return claims.badge(claim, *recorded)


@pytest.mark.parametrize(
    "results, badge",
    [
        ([ABOVE], "holds at our scale"),
        ([ABOVE, ABOVE], "holds at our scale"),
        ([ABOVE, ACROSS], "holds in part at our scale"),
        ([ABOVE, BELOW], "holds in part at our scale"),
        ([BELOW], "does not hold at our scale"),
        ([BELOW, ACROSS], "does not hold at our scale"),
        ([ACROSS], "undecided at our scale"),
        ([POINT], "undecided at our scale"),
    ],
)
def test_a_badge_follows_from_the_intervals(results, badge):
    assert badge_of(*made(*results)) == badge


def test_only_the_claims_own_terms_reproduce_it():
    assert badge_of(*made(ABOVE, profile="gpu")) == "holds at our scale"
    assert badge_of(*made(ABOVE, profile="paper")) == "reproduced"
    assert badge_of(*made(BELOW, profile="paper")) == "not reproduced"
    assert badge_of(*made(POINT, about="method")) == "reproduced"
    assert badge_of(*made(ABOVE, BELOW, about="method")) == "partly reproduced"
    assert badge_of(*made(ACROSS, about="method")) == "undecided"


def test_a_person_can_lower_a_badge_and_not_raise_it():
    for results, badge in (([ABOVE], "holds in part"), ([BELOW], "does not hold"), ([ACROSS], "undecided")):
        assert badge_of(*made(*results, covers="part")) == f"{badge} at our scale"


def test_a_result_that_is_only_shown_changes_no_badge():
    claim, notebooks = made(ABOVE, BELOW)
    shown = ({"name": "result 0", "expects": "above 0"}, {"name": "result 1"})
    claim = claims.Claim(**{**vars(claim), "results": shown})
    assert badge_of(claim, notebooks) == "holds at our scale"
    assert "result 1: -2.00 [-3.00, -1.00] points (n = 8) |" in claims.page([claim], notebooks)


def test_a_claim_without_results_is_open_unless_it_cannot_be_tested():
    assert badge_of(*made()) == "open"
    assert badge_of(*made(notebook="", verdict="not testable here")) == "not testable here"
    for claim in CLAIMS:
        if not claim.results:
            assert badge_of(claim, NOTEBOOKS) == (claim.verdict or "open")


def test_a_run_shows_its_own_claims_with_what_it_has_recorded(monkeypatch):
    claim, notebooks = made(ABOVE, ABOVE)
    monkeypatch.setattr(claims, "read", lambda: [claim, *(c for c in CLAIMS if c.notebook != claim.notebook)])
    results = notebooks[claim.notebook].results
    run = SimpleNamespace(results=results, settings=SimpleNamespace(profile="laptop", notebook=claim.notebook))
    table = claims.of_run(run)
    assert f"**{badge_of(claim, notebooks)}**" in table and claim.would_change in table and table.count("\n") == 2
    run.results = results[:1]
    assert "not run by us" in claims.of_run(run) and "**holds in part at our scale**" in claims.of_run(run)
    run.results = []
    assert "**open**" in claims.of_run(run)


@pytest.mark.parametrize(("numbers", "badge"), [({}, "reproduced"), ({"beta": 0.5}, "holds at our scale")])
def test_a_run_with_other_numbers_earns_none_of_the_papers_badges(monkeypatch, numbers, badge):
    claim, notebooks = made(ABOVE, notebook="30_reproduce_personalization")
    monkeypatch.setattr(claims, "read", lambda: [claim])
    run = SimpleNamespace(results=notebooks["12_x"].results)
    run.settings = settings.resolve("paper", claim.notebook, data="community_alignment", seed=42, **numbers)
    assert run.settings.profile == "paper" and f"**{badge}**" in claims.of_run(run)


def test_our_small_model_reproduces_nothing_about_models():
    badges = {c.id: badge_of(c, NOTEBOOKS) for c in CLAIMS}
    tested = [c for c in CLAIMS if c.results]
    assert {c.about for c in tested} == {"models", "method"}
    for claim in tested:
        assert badges[claim.id].endswith("at our scale") == (claim.about == "models"), claim.id


# --- mistakes ---

GOOD = """
[[claim]]
id = "X1"
text = "It helps."
source = "code"
reason = "Because."
would_change = "Another record."
notebook = "12_measuring_personalization"
"""
RESULTS = 'results = [{ name = "gain in PMI", expects = "above 0" }]\n'


@pytest.fixture
def read(tmp_path):
    def written(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return claims.read(tmp_path / "mine.toml")

    return written


def test_one_line_attaches_a_result(read):
    [before], [after] = read(GOOD), read(GOOD + RESULTS)
    assert badge_of(before, NOTEBOOKS) == "open"
    assert badge_of(after, NOTEBOOKS) == "holds at our scale"


WHERE = "mine.toml, claim 'X1': "
MISTAKES = [
    ("[[claim]\n", "The ledger mine.toml cannot be read: "),
    ("claim = 3\n", "mine.toml: claims are tables of a list; begin each with [[claim]]."),
    (GOOD.replace("[[claim]]", "[claim]"), "mine.toml: claims are tables of a list; begin each with [[claim]]."),
    (GOOD.replace("[[claim]]", "[[claims]]"), "mine.toml: unknown field 'claims'; did you mean 'claim'?"),
    (GOOD + 'publishd = "1%"\n', WHERE + "unknown field 'publishd'; did you mean 'published'?"),
    (GOOD.replace('id = "X1"\n', ""), "mine.toml, claim '?': the field 'id' is missing; add it."),
    (GOOD.replace('"It helps."', '""'), WHERE + "the field 'text' is missing; add it."),
    (
        GOOD.replace('"Because."', "3"),
        WHERE + "'reason' must be text on one line without '|', as it goes into a table.",
    ),
    (
        GOOD.replace("Because.", "a | b"),
        WHERE + "'reason' must be text on one line without '|', as it goes into a table.",
    ),
    (GOOD + GOOD, "mine.toml: two claims have the id 'X1'; give one of them another."),
    (
        GOOD.replace('"code"', '"criticism z"'),
        WHERE + "there is no source 'criticism z'; write it like 'paper abstract, ",
    ),
    (
        GOOD.replace("12_measuring_p", "12_mesuring_p"),
        WHERE + "there is no notebook '12_mesuring_personalization'; did ",
    ),
    (GOOD + 'about = "code"\n', WHERE + "about must be 'models' or 'method', not 'code'."),
    (GOOD + 'covers = "most"\n', WHERE + "covers must be 'whole' or 'part', not 'most'."),
    (
        GOOD + 'verdict = "reproduced"\n',
        WHERE + "only 'not testable here' may be typed as a verdict; leave the others ",
    ),
    (
        GOOD + 'verdict = "not testable here"\n' + RESULTS,
        WHERE + "results need a notebook and no verdict of their own; ",
    ),
    (GOOD.replace("notebook", "# notebook") + RESULTS, WHERE + "results need a notebook and no verdict of their own; "),
    (GOOD + 'results = "gain"\n', WHERE + "results are a list; write results = [{ name = "),
    (GOOD + 'results = ["gain"]\n', WHERE + "a result is written { name = "),
    (GOOD + 'results = [{ expects = "above 0" }]\n', WHERE + "a result is written { name = "),
    (GOOD + RESULTS.replace("expects", "expect"), WHERE + "unknown field 'expect'; did you mean 'expects'?"),
    (GOOD + RESULTS.replace("above 0", "over 0"), WHERE + "'over 0' is no expectation; write 'above A', 'below B' or "),
    (GOOD + RESULTS.replace("above 0", "above x"), WHERE + "'above x' is no expectation; write 'above A', "),
    (GOOD + RESULTS.replace(', expects = "above 0"', ""), WHERE + "no result has an expectation; add expects = "),
]


@pytest.mark.parametrize("text, said", MISTAKES, ids=[m[1][:60] for m in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(read, text, said):
    with pytest.raises(UserError) as caught:
        read(text)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="The ledger none.toml cannot be read: "):
        claims.read(tmp_path / "none.toml")


@pytest.mark.parametrize("notebook", ["12_measuring_personalization", "13_reasoning_without_labels"])
def test_a_result_that_no_committed_notebook_recorded_stops_the_tables(read, monkeypatch, notebook):
    planned = f'planned = ["{notebook}"]\n' if notebook not in NOTEBOOKS else ""
    text = planned + (GOOD + RESULTS).replace("12_measuring_personalization", notebook).replace("PMI", "accuracy")
    wrong = read(text)
    monkeypatch.setattr(claims, "read", lambda: wrong)
    before = (project_root() / "RESULTS.md").read_text(encoding="utf-8")
    with pytest.raises(UserError) as caught:
        tables.write()
    assert str(caught.value) == (
        f"claims.toml, claim 'X1': no committed notebook {notebook} recorded a result 'gain in accuracy'; "
        "take a name from its part of RESULTS.md, or publish the notebook first."
    )
    assert (project_root() / "RESULTS.md").read_text(encoding="utf-8") == before


# --- the page ---


def test_every_claim_has_its_row_with_its_badge_reason_and_doubt():
    page = claims.page(CLAIMS, NOTEBOOKS)
    table, _, doubts = page.partition("### What would change our mind")
    for claim in CLAIMS:
        [row] = [line for line in table.splitlines() if line.startswith(f"| {claim.id} |")]
        assert (
            claim.text in row and claim.source in row and claim.published in row and row.endswith(f"{claim.reason} |")
        )
        assert f"| **{badge_of(claim, NOTEBOOKS)}** |" in row
        assert f"| {claim.id} | {badge_of(claim, NOTEBOOKS)} | {claim.would_change} |" in doubts
        assert row.count(" | ") == 6
    assert f"There are {len(CLAIMS)} claims: " in page
    assert sum(map(int, re.findall(r" (\d+)[,.]", page.splitlines()[0].partition(":")[2]))) == len(CLAIMS)


def test_a_row_links_to_a_notebook_that_is_committed_and_names_a_planned_one():
    claim, notebooks = made(ABOVE)
    assert "[12](notebooks/12_x.ipynb)" in claims.page([claim], notebooks)
    claim = claims.Claim(**{**vars(claim), "results": ()})
    assert "| 12, planned |" in claims.page([claim], {})


def test_results_begin_with_the_claims():
    text = (project_root() / "RESULTS.md").read_text(encoding="utf-8")
    assert 0 < text.index("## Claims") < text.index("| P1 |") < text.index("## What the notebooks recorded")


def test_the_head_of_the_file_explains_every_field():
    head = (project_root() / "mipo_nb" / "lab" / "claims.toml").read_text(encoding="utf-8").partition("planned = [")[0]
    assert all(re.search(rf"\b{field.name}\b", head) for field in fields(claims.Claim))
