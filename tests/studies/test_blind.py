"""The blind sheet: sides, verdicts that survive, a file that tells nothing, the count, and the widget without a browser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import statistics
from mipo_nb.base.errors import UserError
from mipo_nb.studies import blind

N = 24
ROWS = [{"context": f"User {i}.", "prompt": f"Tell {i}?"} for i in range(N)]
BASE, TUNED = [f"plain <{i}>" for i in range(N)], [f"own\n{i}" for i in range(N)]


@pytest.fixture
def pairs():
    return blind.pairs(ROWS, BASE, TUNED, 20, seed=3)


@pytest.fixture
def sheet(pairs, tmp_path):
    return blind.Sheet(pairs, tmp_path / "run" / "ratings.csv")


def test_sides_are_hidden_balanced_and_right(pairs):
    assert len(pairs) == len({p.key for p in pairs}) == 20
    assert [p.tuned for p in pairs].count("A") == 10
    for pair in pairs:
        sides = {"A": pair.a, "B": pair.b}
        assert sides[pair.tuned].startswith("own") and sides["AB".replace(pair.tuned, "")].startswith("plain")
        i = int(pair.context.removeprefix("User ").rstrip("."))
        assert pair.prompt == f"Tell {i}?" and {pair.a, pair.b} == {BASE[i], TUNED[i]}


def test_the_seed_decides_and_sides_do_not_follow_the_order(pairs):
    assert blind.pairs(ROWS, BASE, TUNED, 20, seed=3) == pairs
    assert blind.pairs(ROWS, BASE, TUNED, 20, seed=4) != pairs
    sides = "".join(p.tuned for p in pairs)
    assert sides not in ("AB" * 10, "BA" * 10, "A" * 10 + "B" * 10)


def test_rows_with_nothing_to_compare_are_left_out():
    found = blind.pairs(ROWS[:4], ["same", "", "left", "x"], ["same ", "right", "  ", "y"], 20)
    assert [{p.a, p.b} for p in found] == [{"x", "y"}]
    assert blind.pairs(ROWS, BASE, BASE, 20) == []


def test_a_verdict_is_kept_replaced_and_found_again(sheet, pairs):
    assert sheet.rated == [] and sheet.next() == 0 and not sheet.file.exists()
    for number, verdict in ((0, "A"), (2, "same"), (0, "B")):
        sheet.rate(number, verdict)
    again = blind.Sheet(pairs, sheet.file)
    assert again.rated == [0, 2] and again.next() == 1
    assert (again.verdict(0), again.verdict(1), again.verdict(2)) == ("B", None, "same")
    assert again.told() == "2 of 20 pairs rated."
    assert [p.name for p in sheet.file.parent.iterdir()] == ["ratings.csv"]


def test_outcomes_are_of_the_tuned_model_and_of_rated_pairs_only(sheet, pairs):
    sheet.rate(1, pairs[1].tuned)
    sheet.rate(4, "same")
    sheet.rate(5, "A" if pairs[5].tuned == "B" else "B")
    assert sheet.outcomes().tolist() == [1, 0.5, 0]


def test_the_file_does_not_tell_the_sides(sheet, pairs):
    for number in range(20):
        sheet.rate(number, "A")
    lines = sheet.file.read_text().splitlines()
    assert lines == ["pair,verdict", *(f"{p.key},A" for p in pairs)]
    assert all(p.tuned not in p.key for p in pairs)
    assert "tuned" not in "".join(sheet.page(k) for k in range(20))


def test_ratings_of_other_pairs_stay_and_do_not_count(sheet, pairs):
    sheet.rate(0, "A")
    other = blind.Sheet(blind.pairs(ROWS, BASE, [t + "!" for t in TUNED], 20, seed=3), sheet.file)
    assert other.rated == []
    other.rate(0, "B")
    assert blind.Sheet(pairs, sheet.file).verdict(0) == "A"


def test_mistakes_are_told(sheet, pairs):
    with pytest.raises(UserError, match="Unknown verdict 'a'; "):
        sheet.rate(0, "a")
    assert not sheet.file.exists()
    for text in ("", "a,b\n", "pair,verdict\nx,Z\n", "pair,verdict\nx\n"):
        sheet.file.parent.mkdir(exist_ok=True)
        sheet.file.write_text(text)
        with pytest.raises(UserError, match="is not a sheet of ratings"):
            blind.Sheet(pairs, sheet.file)
    sheet.file.write_bytes(b"pair,verdict\n\xff,A\n")
    with pytest.raises(UserError, match="cannot be read"):
        blind.Sheet(pairs, sheet.file)


def test_a_page_is_text_and_not_markup(sheet):
    assert all("plain &lt;" in sheet.page(k) and "own<br>" in sheet.page(k) for k in range(20))
    sheet.rate(0, "same")
    assert "rated: same" in sheet.page(0) and "rated" not in sheet.page(1)


# --- the widget, pressed without a browser ---


def parts(box):
    page, row, state = box.children
    return page, {b.description: b for b in row.children}, state


def test_buttons_rate_and_go_on(sheet, pairs):
    page, buttons, state = parts(sheet.widget())
    assert "Pair 1 of 20" in page.value and state.value == "0 of 20 pairs rated."
    buttons["A is better"].click()
    buttons["no difference"].click()
    assert "Pair 3 of 20" in page.value and state.value == "2 of 20 pairs rated."
    buttons["back"].click()
    assert "Pair 2 of 20</b>, rated: same" in page.value
    buttons["B is better"].click()  # changes one's mind, and goes on where nothing is rated yet
    assert "Pair 3 of 20" in page.value
    assert [blind.Sheet(pairs, sheet.file).verdict(k) for k in range(3)] == ["A", "B", None]


def test_a_new_widget_goes_on_and_the_last_pair_says_so(sheet, pairs):
    for number in range(19):
        sheet.rate(number, "B")
    page, buttons, state = parts(blind.Sheet(pairs, sheet.file).widget())
    assert "Pair 20 of 20" in page.value
    buttons["no difference"].click()
    assert state.value == "20 of 20 pairs rated. Run the next cell to count."
    buttons["back"].click()
    assert "Pair 19 of 20" in page.value
    page, buttons, _ = parts(blind.Sheet(pairs, sheet.file).widget())  # all are rated: one may go through them again
    buttons["A is better"].click()
    assert "Pair 2 of 20" in page.value and blind.Sheet(pairs, sheet.file).verdict(0) == "A"


def test_two_sheets_on_one_file_keep_both_their_verdicts(sheet, pairs):
    other = blind.Sheet(pairs, sheet.file)
    sheet.rate(0, "A")
    other.rate(1, "B")
    assert blind.Sheet(pairs, sheet.file).rated == [0, 1]


def test_a_verdict_that_cannot_be_kept_does_not_count_and_is_said_beside_the_buttons(pairs, tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is needed")
    sheet = blind.Sheet(pairs, tmp_path / "taken" / "ratings.csv")
    page, buttons, state = parts(sheet.widget())
    buttons["A is better"].click()
    assert sheet.rated == [] and "Pair 1 of 20" in page.value
    assert "taken" in state.value


def test_what_an_editor_adds_to_the_file_is_read_over(sheet, pairs):
    sheet.rate(0, "A")
    sheet.file.write_text("\ufeff" + sheet.file.read_text() + "\n\n", encoding="utf-8")
    assert blind.Sheet(pairs, sheet.file).rated == [0]


def test_what_is_shown_without_buttons_is_a_pair(sheet, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append((data, raw)))
    sheet.show()
    [(data, raw)] = shown
    assert raw and data["text/plain"] == "0 of 20 pairs rated."
    assert "Pair 1 of 20" in data["text/html"] and "In JupyterLab" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_an_empty_sheet_shows_that(tmp_path):
    sheet = blind.Sheet([], tmp_path / "r.csv")
    page, buttons, _ = parts(sheet.widget())
    for button in buttons.values():
        if button.description != "back":
            button.click()
    assert page.value == "<p>No pair to rate.</p>" and not sheet.file.exists()


# --- the count ---


@given(st.integers(0, 40), st.integers(0, 40))
def test_without_ties_it_is_the_binomial_interval(wins, losses):
    if wins + losses:
        found, known = blind.preferred([1.0] * wins + [0.0] * losses), statistics.share(wins, wins + losses)
        assert (found.value, found.low, found.high) == pytest.approx((known.value, known.low, known.high), abs=1e-9)
        assert found.n == wins + losses


def test_ties_are_halves():
    assert blind.preferred([1, 0.5, 0.5, 0]).value == blind.preferred([1, 1, 0, 0]).value == 0.5
    assert blind.preferred([1, 0.5]).value == 0.75


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40))
def test_the_interval_holds_its_share_mirrors_and_stays_between_none_and_all(outcomes):
    found, mirrored = blind.preferred(outcomes), blind.preferred(1 - np.array(outcomes))
    assert 0 <= found.low <= found.value + 1e-12 and found.value <= found.high + 1e-12 and found.high <= 1
    assert (1 - found.high, 1 - found.low) == pytest.approx((mirrored.low, mirrored.high))


def test_nothing_rated_is_no_number():
    with pytest.raises(ValueError, match="A share of nothing"):
        blind.preferred([])
