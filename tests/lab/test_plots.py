"""Sliders, and what stands in for a widget where none can run."""

from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from mipo_nb.lab import plots

WIDGET = "application/vnd.jupyter.widget-view+json"
ALT = "A line that rises from the left to the right, in blue on white."


@pytest.fixture
def shown():
    """A function that calls another and gives what that displayed, as one dictionary of data and one of metadata."""
    InteractiveShell.instance()

    def call(function, *args, **kwargs):
        with capture_output() as captured:
            function(*args, **kwargs)
        [output] = captured.outputs
        return output.data, output.metadata

    yield call
    InteractiveShell.clear_instance()


def test_a_slider_draws_what_is_chosen():
    control, page = plots.slider(lambda k: f"<p>{k}</p>", {"a": 1, "b": 2}, "which").children
    assert page.value == "<p>1</p>"
    control.label = "b"
    assert page.value == "<p>2</p>"


def test_a_slider_takes_figures_too():
    def line(height):
        fig, ax = plots.figure()
        ax.plot([0, height])
        return fig

    control, page = plots.slider(line, {"low": 1, "high": 2}, "height").children
    first = page.value
    control.label = "high"
    assert page.value != first and page.value.startswith('<img src="data:image/png;base64,')


def test_something_stands_in_for_a_widget(shown):
    data, _ = shown(plots.live, plots.slider(str, {"a": "1"}, "which"), {"text/html": "<p>still</p>"})
    assert data["text/html"] == "<p>still</p>" and WIDGET in data


def test_a_figure_stands_in_for_its_slider(shown, tmp_path):
    run, (fig, ax) = SimpleNamespace(folder=tmp_path), plots.figure()
    ax.plot([0, 1])
    moving = plots.slider(str, {"a": "1"}, "which")
    data, metadata = shown(plots.show, run, "line", fig, alt=ALT, table=[{"x": 0}], instead=moving)
    assert {WIDGET, "image/png"} <= set(data) and metadata["image/png"]["alt"] == ALT
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"line.png", "line.csv"}


def test_two_menus_say_where_they_run(shown):
    data, _ = shown(plots.comparison_widget, ["Why?"], ["Ana"], lambda prompt, context: "")
    assert WIDGET in data and "In JupyterLab" in data["text/html"]


def test_a_text_is_drawn_token_by_token_in_lines():
    tokens, values = ["A", " $5", " tea", "\n", "pot", "!"], [0.0, 8.0, -8.0, 0.0, 4.0, 0.0]
    ax = plots.coloured_text(tokens, values, columns=6).axes[0]
    drawn = [(*text.get_position(), text.get_text()) for text in ax.texts]
    assert drawn == [(0, 0.5, "A"), (1, 0.5, r" \$5"), (0, 1.5, " tea"), (4, 1.5, "⏎"), (0, 2.5, "pot"), (3, 2.5, "!")]
    colours = [tuple(patch.get_facecolor()) for patch in ax.patches]
    assert min(colours[0]) > 0.99 and colours[1] == colours[4] != colours[2]  # beyond the limit as at the limit


def test_single_trainings_stand_inside_the_figure_close_to_their_interval():
    found = SimpleNamespace(value=5.0, low=2.0, high=8.0)
    for rows in (2, 12):
        fig, ax = plots.figure(height=0.36 * rows + 1.2)
        plots.intervals(ax, ["x"] * rows, [found] * rows, dots=[[-40.0, 60.0]] * rows)
        assert ax.get_xlim()[0] < -40 and ax.get_xlim()[1] > 60
        dots, _, mean = ax.lines[:3]
        fig.canvas.draw()
        away = [line.get_transform().transform(line.get_xydata())[0, 1] for line in (mean, dots)]
        assert 5 < (away[0] - away[1]) / fig.dpi * 72 < 9
