"""The ledger of claims: what stands in it, which badge follows from which record, and what a mistake in it says."""

import fnmatch
import json
import math
import re
import subprocess
import tomllib
from collections import Counter
from dataclasses import fields
from types import SimpleNamespace

import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.lab import badges, claims, forest, pages, settings, tables
from mipo_nb.lab.notebooks import collection
from mipo_nb.statistics import Estimate

CLAIMS = claims.read()
TOLD_BESIDE = claims.texts()
NOTEBOOKS = collection()
RECORDS = {name: notebook.results for name, notebook in NOTEBOOKS.items()}
RESULTS_OF = [(claim, result) for claim in CLAIMS for result in claim.results]

# Every published number that we know, by the words under which it must be given. Nothing else may be called published.
PUBLISHED = {
    "P2": "3-40% 3-16% 51% 4-38% +17.4 +35.3 +3.5",
    "P5": "1-18% 1-20% 3 18% +0.9",
    "R5": "22.0 10.67",
}
# Numbers that other fields may hold: settings of the authors' code, limits of ours, notebooks by their number.
TOLD = "1 2 3 5 8 15 30 80 100 0.1 1.0 200 256 2.8 20 21 22"
NAMES = re.compile(
    r"Qwen2\.5-\d(\.\d)?B(-Instruct)?|Llama-3\.2-1B|GSM8K|GPT-4o|5e-7|1/beta|notebook \d\d|Notebook \d\d"
    r"|\b[PRWE]\d+\b|\bv\d\b|[0-9a-f]{7}(?= )|\w+\.py:\d+"
)
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:-\d+)?%?")
EARLIER = (
    "P1 P2 P3 P4 P5 P6 R1 R2 R3 R4 R5 R6 R7 W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 W11 W12 W13 Ca Cb1 Cb2 Cc Cd Ce Cf Cg Ch "
    "E1 E2 E3 E4 E5 E6 E7 E8 E9 E10 S40a S40b S40c S40d S41a S41b S41c S41d S43a S43b S43c S43d S44a S45a S46a"
)


def numbers(text):
    return [n.rstrip(",") for n in NUMBER.findall(NAMES.sub("", text))]


# --- what stands in it ---


def test_no_source_is_left_out():
    assert 20 <= len(CLAIMS) <= 28
    sources = {source for c in CLAIMS for source in c.source.split("; ")}
    sources |= {row["source"] for row in TOLD_BESIDE["left_out"]}
    assert {f"write-up W{k}" for k in range(1, 14)} <= sources
    assert {f"criticism {letter}" for letter in "abcdefgh"} <= sources


def test_earlier_ids_are_found_once():
    """The committed outputs of notebooks name them."""
    found = [c.id for c in CLAIMS] + [name for c in CLAIMS for name in c.merges.split(", ") if name]
    found += [name for row in TOLD_BESIDE["left_out"] for name in row["claims"].split(", ")]
    assert max(Counter(found).values()) == 1 and set(EARLIER.split()) == set(found) - {"P1d", "W12b", "S40", "S42"}


def test_each_known_published_number_stands_where_it_belongs_and_no_other_does():
    assert {c.id: numbers(c.published) for c in CLAIMS if c.published} == {k: v.split() for k, v in PUBLISHED.items()}


def test_other_texts_hold_no_number_that_is_not_known():
    for claim in CLAIMS:
        for text in (claim.text, claim.question, claim.reason, claim.would_change):
            assert set(numbers(text)) <= set(TOLD.split()), (claim.id, numbers(text))
    known = {n.rstrip("%") for n in " ".join([TOLD, *PUBLISHED.values()]).split()} | {"7"}
    for row in (*TOLD_BESIDE["untested"], *TOLD_BESIDE["left_out"]):
        assert set(numbers(f"{row['what']} {row['why']}")) <= known, row


def test_the_search_for_numbers_finds_them():
    assert numbers("gains of 3-40% and +17.4 points, 1,500 users at 0.1") == ["3-40%", "+17.4", "1,500", "0.1"]
    assert numbers("Qwen2.5-1.5B on GSM8K gains 12% (R2, 5c19f0f loss.py:267)") == ["12%"]


def test_references_between_claims_lead_to_one():
    ids = {c.id for c in CLAIMS}
    for claim in CLAIMS:
        for text in (claim.text, claim.reason, claim.would_change):
            assert set(re.findall(r"\b[PRWE]\d+\b", text)) <= ids - {claim.id}, claim.id
    assert {name for row in TOLD_BESIDE["untested"] for name in row["claims"].split(", ")} <= ids
    assert {c.id for c in CLAIMS if c.verdict} <= {row["claims"] for row in TOLD_BESIDE["untested"]}


def test_all_results_by_one_name_belong_to_a_claim_together():
    """So that no claim shows the friendlier one of two runs."""
    for claim in CLAIMS:
        listed = {(result.get("notebook", claim.notebook), result["name"]) for result in claim.results}
        for _, name in sorted(listed):
            same = {(notebook, name) for notebook, results in RECORDS.items() for r in results if r["name"] == name}
            assert same <= listed, (claim.id, name)


def test_the_trainings_of_a_shown_result_are_those_of_its_run():
    for claim, result in RESULTS_OF:
        if "plot" in result:
            notebook = NOTEBOOKS[result.get("notebook", claim.notebook)]
            how_many = [r["value"] for r in notebook.results if r["name"].endswith(": how many")]
            seeds = notebook.stamp["manifest"]["numbers"].get("seeds", [0])
            assert result["trainings"] in (0, 1, len(seeds), *how_many), (claim.id, result["name"])


def test_what_was_read_stands_on_the_page_of_the_code():
    text = (project_root() / "docs" / "what_the_code_does.md").read_text(encoding="utf-8")
    assert any(c.read for c in CLAIMS)
    for claim in CLAIMS:
        for part in filter(None, claim.read.split("; ")):
            commit, _, places = part.partition(" ")
            assert f"`{commit}`" in text and all(f"`{place}`" in text for place in places.split(", ")), part
        for commit, place in re.findall(r"([0-9a-f]{7}) (\w+\.py:\d+)", claim.reason):
            assert f"`{commit}`" in text and f"`{place}`" in text, (claim.id, place)


def test_the_package_ships_every_file_that_is_not_code():
    project = tomllib.loads((project_root() / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["mipo_nb"]
    folder = project_root() / "mipo_nb"
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            name = file.relative_to(folder).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


# --- what was expected before the run ---


def git(*command):
    done = subprocess.run(["git", *command], cwd=project_root(), capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def registered(result, notebook, runs):
    """What speaks against it that the commit a result names held its expectation before the result was there; `runs` are
    the commits that it was measured at. Nothing where it is registered."""
    commit, against = result["registered"], []
    if "words" in result:
        held = result["words"] in (git("show", f"{commit}:docs/expectations.md") or "")
    else:
        files = [git("show", f"{commit}:{place}/claims.toml") for place in ("mipo_nb/lab", "mipo_nb")]
        listed = [r for file in files if file for c in tomllib.loads(file)["claim"] for r in c.get("results", [])]
        held = any((r["name"], r.get("expects")) == (result["name"], result["expects"]) for r in listed)
    against += [] if held else ["not expected there"]
    if page := git("show", f"{commit}:notebooks/{notebook}.ipynb"):
        then = json.loads(page)["metadata"].get("mipo_nb", {})
        # With another dose, or other test rows, it is another result by the same name, where the words that were committed
        # tell what was known of the one before.
        told = "words" in result or result["name"].startswith("kept")
        same = not told or _sizes(then) == _sizes(NOTEBOOKS[notebook].stamp)
        recorded_then = {r["name"] for r in then.get("results", [])}
        against += ["recorded there already"] if same and result["name"] in recorded_then else []
    for run in runs:
        against += [] if git("merge-base", "--is-ancestor", commit, run) is not None else [f"not before {run}"]
    return against


def _sizes(stamp):
    numbers = stamp.get("manifest", {}).get("numbers", {})
    return numbers.get("n_pairs"), numbers.get("n_test")


@pytest.fixture(scope="module")
def _history():
    if git("rev-parse", "--is-shallow-repository") != "false\n":
        pytest.skip("needs the whole history")


# Which trainings a result stands on.
KEPT = {
    ("12", "kept"): "main_job.jsonl",
    ("20", "MIPO"): "baselines.jsonl",
    ("41", "kept"): "rounds.jsonl",
    ("42", "kept"): "widening.jsonl",
}


def measured_at(notebook, name):
    """The commits that a result was measured at: of its run, and of the kept trainings that it stands on."""
    manifest = NOTEBOOKS[notebook].stamp["manifest"]
    runs, dose = [manifest["git"]["commit"]], manifest["numbers"].get("n_pairs")
    if file := KEPT.get((notebook[:2], name.partition(" ")[0])):
        text = (project_root() / "results" / file).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        tested = [line for line in lines if line["key"].get("split", "test") == "test"]
        tested = [
            line for line in tested if line["key"].get("negative", True) and line["key"].get("pairs", dose) == dose
        ]
        runs += sorted({line["commit"] for line in tested})
    return runs


@pytest.mark.usefixtures("_history")
def test_what_is_called_registered_was_expected_before_it_was_recorded():
    found = [(c, r, r.get("notebook", c.notebook)) for c, r in RESULTS_OF if "registered" in r]
    assert {notebook[:2] for _, _, notebook in found} == {"12", "13", "22", "30", "31", "32", "42"}
    for claim, result, notebook in found:
        assert registered(result, notebook, measured_at(notebook, result["name"])) == [], (claim.id, result["name"])


@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize(
    ("notebook", "name", "expects", "commit", "against"),
    [
        (
            "21_reward_baselines",
            "MIPO minus verifiable, right, stories-1",
            "above -5",
            "e536e58",
            "recorded there already",
        ),
        ("13_reasoning_without_labels", "change in right, stories-1, MIPO", "above 0", "HEAD", "not before "),
        (
            "13_reasoning_without_labels",
            "change in right, stories-1, MIPO",
            "above 1",
            "209066e",
            "not expected there",
        ),
    ],
)
def test_what_cannot_be_shown_is_not_registered(notebook, name, expects, commit, against):
    result = {"name": name, "expects": expects, "registered": commit}
    assert any(told.startswith(against) for told in registered(result, notebook, measured_at(notebook, name)))


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
        ("between -0.85 and 0.85", ACROSS, True),  # what stays: two one-sided tests, by the interval of 90%
        ("between -0.83 and 0.83", ACROSS, None),
        ("between -1.1 and 1.1", ABOVE, False),  # 1.16 and more
        ("above 0", POINT, None),
        ("above 0", result(math.nan, math.nan, math.nan), None),
    ],
)
def test_an_expectation_is_met_by_the_whole_interval_only(expects, given, answer):
    assert badges.met(expects, given) is answer


@pytest.mark.parametrize(
    "given, smallest, answer",
    [
        (ACROSS, 2, badges.SMALL),
        (ACROSS, 0.85, badges.SMALL),  # an interval of 90% reaches 0.84
        (ACROSS, 0.8, None),
        (ABOVE, 5, badges.SMALL),  # there, and too small to matter
        (ABOVE, 2.5, True),
        (BELOW, 5, False),
        (POINT, 5, None),
        (result(0, 0, 0), 5, None),
        (result(math.nan, math.nan, math.nan), 5, None),
    ],
)
def test_a_gain_that_is_surely_below_the_smallest_of_interest_is_small(given, smallest, answer):
    assert badges.met("above 0", given, smallest=smallest) is answer
    assert badges.met("above -9", ACROSS, smallest=smallest) is True


def test_a_value_without_an_interval_answers_only_where_it_is_exact():
    assert badges.met("above 0", POINT, exact=True) is True
    assert badges.met("above 2", POINT, exact=True) is False
    assert badges.met("below 1", POINT, exact=True) is False


def made(*results, roles="", listed=None, **changes):
    """A claim whose results are all expected above 0, and what the notebook recorded. `roles` has a g for each guard."""
    named = [{**r, "name": f"result {k}"} for k, r in enumerate(results)]
    expected = tuple({"name": r["name"], "expects": "above 0", **(listed or {})} for r in named)
    expected = tuple({**r, "role": "guard"} if k in roles else r for k, r in zip("012", expected, strict=False))
    given = {"id": "X1", "text": "t", "source": "code", "reason": "r", "would_change": "w", "notebook": "12_x"}
    return claims.Claim(**{**given, "results": expected, **changes}), {"12_x": named}


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
    assert badges.badge(*made(*results)) == f"{badge}, after the fact"
    assert badges.badge(*made(*results, listed={"registered": "0123456"})) == f"{badge}, registered"


def test_a_gain_that_is_small_says_how_small():
    assert badges.badge(*made(ACROSS, ACROSS, listed={"smallest": 2})) == (
        "no gain at our scale larger than 2 points, after the fact"
    )
    assert badges.badge(*made(ACROSS, result(-9, 0, 9), listed={"smallest": 2})) == (
        "undecided at our scale, after the fact"
    )


@pytest.mark.parametrize(
    "results, roles, badge",
    [
        ([ABOVE, ABOVE], "1", "holds at our scale, after the fact"),
        ([ABOVE, ACROSS], "1", "holds at our scale, after the fact"),
        ([ABOVE, BELOW], "1", "holds at our scale, at a price, after the fact"),
        ([ACROSS, ABOVE], "1", "undecided at our scale, after the fact"),
        ([BELOW, ABOVE], "1", "does not hold at our scale, after the fact"),
        ([ABOVE, ABOVE], "01", "open"),
    ],
)
def test_a_guard_earns_no_badge_and_puts_a_price_on_one(results, roles, badge):
    assert badges.badge(*made(*results, roles=roles)) == badge


def test_what_was_read_is_said_beside_what_was_measured():
    assert badges.badge(*made(read="5c19f0f a.py:1")) == "read in the code: yes"
    assert badges.badge(*made(read="5c19f0f a.py:1", reading="no")) == "read in the code: no"
    assert badges.badge(*made(ACROSS, read="5c19f0f a.py:1")) == (
        "read in the code: yes; measured: undecided at our scale, after the fact"
    )


def test_only_the_claims_own_terms_reproduce_it():
    def badge(*results, profile="", **changes):
        return badges.badge(*made(*results, listed={"registered": "0123456"}, **changes), profile)

    assert badge(ABOVE, profile="gpu") == "holds at our scale, registered"
    assert badge(ABOVE, profile="paper") == "reproduced, registered"
    assert badge(BELOW, profile="paper") == "not reproduced, registered"
    assert badge(POINT, about="method") == "reproduced, registered"
    assert badge(ABOVE, BELOW, about="method") == "partly reproduced, registered"
    assert badge(ACROSS, about="method") == "undecided, registered"
    assert badge(ABOVE, verdict="not testable here") == "not testable here"
    assert badge(ABOVE, verdict="not testable here", profile="paper") == "reproduced, registered"


def test_a_person_can_lower_a_badge_and_not_raise_it():
    for results, badge in (([ABOVE], "holds in part"), ([BELOW], "does not hold"), ([ACROSS], "undecided")):
        assert badges.badge(*made(*results, covers="part")) == f"{badge} at our scale, after the fact"


def test_a_result_that_is_only_shown_changes_no_badge():
    claim, records = made(ABOVE, BELOW)
    shown = ({"name": "result 0", "expects": "above 0"}, {"name": "result 1"})
    claim = claims.Claim(**{**vars(claim), "results": shown})
    assert badges.badge(claim, records) == "holds at our scale, after the fact"
    assert badges.line(badges.recorded(claim, records)[1]) == "result 1: -2.00 [-3.00, -1.00] points (n = 8)"


def test_results_come_from_several_notebooks():
    claim, records = made(ABOVE, ACROSS)
    records["13_y"] = [{**BELOW, "name": "result 0"}]
    more = ({**claim.results[0]}, {**claim.results[0], "notebook": "13_y"})
    claim = claims.Claim(**{**vars(claim), "results": more})
    assert [row["answer"] for row in badges.recorded(claim, records)] == [True, False]
    assert badges.badge(claim, records) == "holds in part at our scale, after the fact"


def test_a_run_shows_its_own_claims_with_what_it_has_recorded(monkeypatch):
    claim, records = made(ABOVE, ABOVE)
    monkeypatch.setattr(claims, "read", lambda: [claim, *(c for c in CLAIMS if c.id != claim.id)])
    run = SimpleNamespace(results=records["12_x"], settings=SimpleNamespace(profile="laptop", notebook="12_x"))
    table = claims.of_run(run)
    assert f"**{badges.badge(claim, records)}**" in table and claim.would_change in table and table.count("\n") == 2
    run.results = run.results[:1]
    assert "not run by us" in claims.of_run(run) and "**holds in part at our scale, " in claims.of_run(run)
    run.results = []
    assert "**open**" in claims.of_run(run)


def test_a_run_leaves_out_what_others_recorded_and_does_not_decide_alone(monkeypatch):
    claim, records = made(ABOVE, ABOVE)
    more = (claim.results[0], {**claim.results[1], "notebook": "13_y"})
    monkeypatch.setattr(claims, "read", lambda: [claims.Claim(**{**vars(claim), "results": more})])
    run = SimpleNamespace(results=records["12_x"], settings=SimpleNamespace(profile="laptop", notebook="12_x"))
    table = claims.of_run(run)
    assert "**holds in part at our scale, after the fact**" in table and "result 1" not in table


@pytest.mark.parametrize(
    "notebook", ["30_reproduce_personalization", "31_reproduce_reasoning", "32_reproduce_diversity"]
)
def test_the_notebooks_that_show_their_claims_have_some(notebook):
    run = SimpleNamespace(results=RECORDS[notebook], settings=SimpleNamespace(profile="laptop", notebook=notebook))
    assert claims.of_run(run).count("\n") >= 2
    assert notebook != "31_reproduce_reasoning" or [c for c in CLAIMS if c.notebook == notebook]  # as its cells ask


@pytest.mark.parametrize(("numbers", "badge"), [({}, "reproduced"), ({"beta": 0.5}, "holds at our scale")])
def test_a_run_with_other_numbers_earns_none_of_the_papers_badges(monkeypatch, numbers, badge):
    claim, records = made(ABOVE, notebook="30_reproduce_personalization")
    monkeypatch.setattr(claims, "read", lambda: [claim])
    run = SimpleNamespace(results=records["12_x"])
    run.settings = settings.resolve("paper", claim.notebook, data="community_alignment", seed=42, **numbers)
    assert run.settings.profile == "paper" and f"**{badge}, after the fact**" in claims.of_run(run)


def test_our_small_model_reproduces_nothing_about_models():
    tested = [c for c in CLAIMS if not c.verdict and badges.outcome(c, badges.recorded(c, RECORDS))]
    assert {c.about for c in tested} == {"models", "method"}
    for claim in tested:
        assert ("at our scale" in badges.badge(claim, RECORDS)) == (claim.about == "models"), claim.id


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
RESULTS = 'results = [{ name = "kept trainings: for the user, recital-proof", expects = "above 0" }]\n'


@pytest.fixture
def read(tmp_path):
    def written(text):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return claims.read(tmp_path / "mine.toml")

    return written


def test_one_line_attaches_a_result(read):
    [before], [after] = read(GOOD), read(GOOD + RESULTS)
    assert badges.badge(before, RECORDS) == "open"
    assert badges.badge(after, RECORDS) == "holds at our scale, after the fact"


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
        GOOD.replace('"code"', '"code; criticism z"'),
        WHERE + "there is no source 'criticism z'; write it like 'paper abstract, ",
    ),
    (
        GOOD.replace("12_measuring_p", "12_mesuring_p"),
        WHERE + "there is no notebook '12_mesuring_personalization'; did ",
    ),
    (
        GOOD + RESULTS.replace(" }", ', notebook = "12_mesuring_personalization" }'),
        WHERE + "there is no notebook '12_mesuring_personalization'; did ",
    ),
    (GOOD + 'about = "code"\n', WHERE + "about must be 'models' or 'method', not 'code'."),
    (GOOD + 'covers = "most"\n', WHERE + "covers must be 'whole' or 'part', not 'most'."),
    (GOOD + 'reading = "maybe"\n', WHERE + "reading must be 'yes' or 'no', not 'maybe'."),
    (
        GOOD + 'verdict = "reproduced"\n',
        WHERE + "only 'not testable here' may be typed as a verdict; leave the others ",
    ),
    (GOOD.replace("notebook", "# notebook") + RESULTS, WHERE + "results need a notebook; name the one that recorded "),
    (GOOD + 'results = "gain"\n', WHERE + "results are a list; write results = [{ name = "),
    (GOOD + 'results = ["gain"]\n', WHERE + "a result is written { name = "),
    (GOOD + 'results = [{ expects = "above 0" }]\n', WHERE + "a result is written { name = "),
    (GOOD + RESULTS.replace("expects", "expect"), WHERE + "unknown field 'expect'; did you mean 'expects'?"),
    (GOOD + RESULTS.replace("above 0", "over 0"), WHERE + "'over 0' is no expectation; write 'above A', 'below B' or "),
    (GOOD + RESULTS.replace("above 0", "between 5 and -5"), WHERE + "'between 5 and -5' is no expectation; write"),
    (GOOD + RESULTS.replace("above 0", "above x"), WHERE + "'above x' is no expectation; write 'above A', "),
    (GOOD + RESULTS.replace(', expects = "above 0"', ""), WHERE + "no result decides it; add expects = "),
    (GOOD + RESULTS.replace(" }", ', role = "guard" }'), WHERE + "no result decides it; add expects = "),
    (GOOD + RESULTS.replace(" }", ', role = "guards" }'), WHERE + "a role is 'core' or 'guard', not 'guards'."),
    (
        GOOD + RESULTS.replace(" }", ", smallest = 0 }"),
        WHERE + "the smallest effect of interest must be above 0, not 0.",
    ),
    (
        GOOD + RESULTS.replace('expects = "above 0"', "smallest = 5"),
        WHERE + "'smallest' goes with an expectation; add expects = ",
    ),
    (
        GOOD + RESULTS.replace("[{", '[{ name = "change: words", expects = "above 0", smallest = 5 }, {'),
        WHERE + "the results that decide it must have one smallest effect of interest, or none.",
    ),
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


def test_a_result_that_no_committed_notebook_recorded_stops_the_tables(read, monkeypatch):
    wrong = read(
        (GOOD + 'question = "Does it?"\n' + RESULTS).replace(
            "kept trainings: for the user, recital-proof", "gain in accuracy"
        )
    )
    monkeypatch.setattr(claims, "read", lambda: wrong)
    before = (project_root() / "RESULTS.md").read_text(encoding="utf-8")
    with pytest.raises(UserError) as caught:
        tables.write()
    assert str(caught.value) == (
        "claims.toml, claim 'X1': no committed notebook 12_measuring_personalization recorded a result 'gain in "
        "accuracy'; take a name from results/recorded.csv, or publish the notebook first."
    )
    assert (project_root() / "RESULTS.md").read_text(encoding="utf-8") == before


# --- the pages ---


def test_every_claim_has_its_section_with_its_badge_results_reason_and_doubt():
    page = pages.ledger(CLAIMS, TOLD_BESIDE, RECORDS)
    for claim in CLAIMS:
        section = page.partition(f"\n### {claim.id}\n")[2].partition("\n### ")[0]
        assert claim.text in section and claim.source in section and claim.published in section
        assert f"**{badges.badge(claim, RECORDS)}**" in section and claim.read in section and claim.merges in section
        assert claim.reason in section and claim.would_change in section
        assert all(badges.line(row) in section for row in badges.recorded(claim, RECORDS))
    assert f"There are {len(CLAIMS)}: " in page
    counted = page.partition(f"There are {len(CLAIMS)}: ")[2].partition(". Of those measured")[0]
    assert sum(map(int, re.findall(r" (\d+)(?:;|$)", counted))) == len(CLAIMS)
    assert all(row["why"] in page for row in TOLD_BESIDE["left_out"])


def test_results_are_a_page():
    text = (project_root() / "RESULTS.md").read_text(encoding="utf-8")
    assert len(text.encode()) < 8192
    sentences = [line for line in text.partition("![")[0].splitlines() if line.startswith("- ")]
    assert len(sentences) == 3 and all(len(re.sub(r"\[[^]]*\]", "", s).split()) <= 36 for s in sentences)
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.endswith(") |")]
    asked = [c for c in CLAIMS if c.question]
    assert 10 <= len(rows) == len(asked) <= 15
    for row, claim in zip(rows, asked, strict=True):
        assert row.startswith(f"| {claim.question} |") and f"docs/ledger.md#{claim.id.lower()})" in row
        for result in (r for r in badges.recorded(claim, RECORDS) if "plot" in r):
            assert result["plot"] in row and f"{result['result']['value']:.1f}" in row
    assert all(row["what"] in text and row["why"] in text for row in TOLD_BESIDE["untested"])


@pytest.mark.parametrize(
    ("changes", "results", "answer"),
    [
        ({}, [ABOVE], "Yes"),
        ({"listed": {"registered": "0123456"}}, [ABOVE], "Yes*"),
        ({"roles": "1"}, [ABOVE, BELOW], "Yes, at a price"),
        ({"listed": {"smallest": 5}}, [ACROSS], "No gain above 5 points"),
        ({}, [ACROSS], "Not known"),
        ({}, [], "Not run yet"),
        ({"read": "5c19f0f a.py:1", "reading": "no"}, [], "No, read in the code"),
        ({"read": "5c19f0f a.py:1"}, [BELOW], "Yes, read in the code; measured: no"),
    ],
)
def test_an_answer_follows_from_the_outcome(changes, results, answer):
    claim, records = made(*results, **changes)
    assert pages._answer(claim, badges.recorded(claim, records)) == answer


def test_a_sentence_is_filled_from_the_record():
    records = {"12_x": [result(1, 2, 3)], "13_y": []}
    assert pages._filled("It gains {12: gain} points.", records) == "It gains 2.0 [1.0, 3.0] points."
    for sentence in TOLD_BESIDE["summary"]:
        assert set(numbers(re.sub(r"\{[^}]*\}", "", sentence))) <= {"135", "100", "5", "1", "7"}


LINES = [
    {
        "head": ("Does it?", "Yes*"),
        "label": "a < b",
        "value": 9.0,
        "low": 5,
        "high": 13,
        "registered": True,
        "smallest": 5,
    },
    {"head": (), "label": "c", "value": -50.0, "low": -60, "high": -40, "registered": False, "smallest": None},
    {"head": (), "label": "d", "value": 0.0, "low": -40, "high": 40, "registered": False, "smallest": 5},
]


def test_the_figure_shows_what_was_registered_and_what_lies_beyond_its_axis():
    figure = forest.svg(LINES)
    assert figure == forest.svg(LINES) and figure.startswith("<svg ") and figure.endswith("</svg>\n")
    assert figure.count('fill="#0072B2"/>') == 1 + 1 and figure.count("<circle") == 2 + 2  # with the legend
    assert figure.count("a &lt; b") == 2 and "Does it?" in figure and "Yes*" in figure
    assert figure.count(" L") == 2 * 3 and figure.count("fill-opacity") == 2 + 1
    assert figure.count("-50.0 [-60.0, -40.0]") == 2
    said = forest.alt(LINES)
    assert "Above zero: a < b +9.0 [5.0, 13.0]. Below zero: c -50.0 [-60.0, -40.0]. All others hold zero." in said
    with pytest.raises(ValueError, match="needs a row"):
        forest.svg([])


def test_the_head_of_the_file_explains_every_field():
    head = (project_root() / "mipo_nb" / "lab" / "claims.toml").read_text(encoding="utf-8").partition("summary = [")[0]
    names = {field.name for field in fields(claims.Claim)} | set(claims._KEYS)
    assert all(re.search(rf"\b{name}\b", head) for name in names)


@pytest.mark.parametrize(("spread", "said"), [(0.1, "0.14"), (1, "1.4"), (10, "14")])
def test_beside_undecided_stands_the_effect_that_four_of_five_would_have_shown(spread, said):
    """1.96 + 0.84 standard errors, for a normal of half-width `spread`."""
    found = Estimate(0.0, -spread, spread, 50)
    assert badges.undecided(found, "nats") == f"undecided, {said} nats could have been seen"
    assert badges.undecided(found) == f"undecided, {said} could have been seen"
    assert float(badges.undecided(found * 1000, "points").split()[1]) == pytest.approx(
        1000 * spread / 1.96 * 2.8, rel=0.01
    )
