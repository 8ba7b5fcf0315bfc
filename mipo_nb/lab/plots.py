"""The figures: one style, and one way to show a figure, which keeps its picture, its table and its words."""

import base64
import csv
import io

from mipo_nb.base.files import write_atomically

# Okabe and Ito's palette: readable for the colour-blind; the first four also differ in grey.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442"]


def style():
    """Set the look of all figures. Called by `figure`."""
    import matplotlib as mpl
    import seaborn as sns

    sns.set_theme(context="notebook", style="ticks", palette=COLOURS)
    mpl.rc("figure", dpi=100)
    mpl.rc("savefig", bbox="tight")
    mpl.rc("font", size=11)
    mpl.rc("axes", grid=True, titlesize=12)
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", alpha=0.3)
    mpl.rc("legend", frameon=False)


def figure(columns=1, rows=1, *, width=None, height=3.4):
    """(figure, axes) in the collection's style; axes as `plt.subplots` gives them."""
    import matplotlib.pyplot as plt

    style()
    width = width or min(4.2 * columns + 1.0, 13)
    return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained")


def show(run, name, fig, *, alt, table, instead=None):
    """Display a figure with alt text, and keep it as NAME.png beside NAME.csv, the table it is drawn from.

    `table` is a `pandas.DataFrame` or a list of dictionaries. `alt` says what is seen, not what the figure is called;
    raises `ValueError` where it has fewer than eight words. `instead` is a widget that is shown where a kernel runs.
    """
    from IPython.display import Image, display

    if len(alt.split()) < 8:
        raise ValueError("alt= must say in a sentence what is seen in the figure.")
    folder, picture, text = run.folder / "figures", png(fig), io.StringIO(newline="")
    write_atomically(folder / f"{name}.png", picture)
    rows = table.to_dict("records") if hasattr(table, "to_dict") else list(table)
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_atomically(folder / f"{name}.csv", text.getvalue())
    if instead:
        live(instead, {"image/png": base64.b64encode(picture).decode()}, {"image/png": {"alt": alt}})
    else:
        display(Image(data=picture, format="png", alt=alt))


def png(fig):
    """The bytes of a figure as PNG; the figure is closed."""
    import matplotlib.pyplot as plt

    picture = io.BytesIO()
    fig.savefig(picture, format="png", metadata={"Software": None})  # without a date
    plt.close(fig)
    return picture.getvalue()


def live(widget, still, metadata=None):
    """Display a widget. Where none can run (a web page, a code host) `still`, {MIME type: data}, stands in its place."""
    from IPython.display import display

    bundle = widget._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    display({**data, **still}, metadata=metadata, raw=True)


def slider(draw, options, label):
    """A widget: a slider over `options`, {text: value}, above what `draw(value)` gives, HTML or a figure."""
    import ipywidgets

    def drawn(value):
        made = draw(value)
        return (
            made
            if isinstance(made, str)
            else f'<img src="data:image/png;base64,{base64.b64encode(png(made)).decode()}">'
        )

    chosen = ipywidgets.SelectionSlider(options=list(options.items()), description=label)
    page = ipywidgets.HTML(drawn(chosen.value))
    chosen.observe(lambda change: setattr(page, "value", drawn(change["new"])), "value")
    return ipywidgets.VBox([chosen, page])


def intervals(ax, labels, estimates, *, reference=None, colours=None, dots=None):
    """Points with their 95% intervals, one line per label, read from top to bottom. `reference` draws a dashed line,
    `dots` small circles close below each interval: a list for each label, such as the single trainings."""
    from matplotlib.transforms import offset_copy

    below = offset_copy(ax.transData, fig=ax.figure, y=-7, units="points")
    for y, estimate in enumerate(estimates):
        if dots:
            ax.plot(dots[y], [y] * len(dots[y]), "o", color="0.55", ms=4, alpha=0.8, transform=below)
            ax.update_datalim([(dot, y) for dot in dots[y]])  # which a transform of one's own does not do
        colour = colours[y] if colours else COLOURS[0]
        ax.plot([estimate.low, estimate.high], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        ax.plot(estimate.value, y, "o", color=colour, ms=6)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.margins(y=0.15)
    if reference is not None:
        ax.axvline(reference, color="0.4", ls="--", lw=1)


def coloured_tokens(tokens, values, *, limit=4.0):
    """HTML of a text with each token's background coloured by its PMI in nats: orange above zero, blue below, full at
    +-`limit`. The value of each token is in its tooltip."""
    import html

    spans = []
    for token, value in zip(tokens, map(float, values), strict=True):
        rgb, opacity = "230,159,0" if value > 0 else "0,114,178", 0.75 * min(abs(value) / limit, 1.0)
        text = html.escape(token).replace("\n", "⏎<br>")
        spans.append(f'<span title="{value:+.2f} nats" style="background:rgba({rgb},{opacity:.2f})">{text}</span>')
    return '<div style="font-family:monospace;line-height:1.7;white-space:pre-wrap">' + "".join(spans) + "</div>"


def coloured_text(tokens, values, *, limit=4.0, columns=84):
    """What `coloured_tokens` shows as a figure with a bar of its colours, for pages that keep no styles: lines of `columns`
    letters, a token on the colour of its PMI in nats, full at +-`limit`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    scale = LinearSegmentedColormap.from_list("PMI", [COLOURS[0], "white", COLOURS[1]])
    colours, placed, row, column = ScalarMappable(Normalize(-limit, limit), scale), [], 0, 0
    for token, value in zip(tokens, map(float, values), strict=True):
        letters = token.replace("\n", "⏎")
        if column + len(letters) > columns:
            row, column = row + 1, 0
        placed.append((row, column, letters, value))
        row, column = (row + 1, 0) if "\n" in token else (row, column + len(letters))
    fig, ax = figure(width=10, height=0.27 * (row + 1) + 0.2)
    for row, column, letters, value in placed:
        ax.add_patch(Rectangle((column, row), len(letters), 1, color=colours.to_rgba(value), lw=0))
        ax.text(column, row + 0.5, letters.replace("$", r"\$"), family="monospace", fontsize=11.5, va="center")
    ax.set(xlim=(0, columns), ylim=(placed[-1][0] + 1, 0))
    ax.axis("off")
    fig.colorbar(colours, ax=ax, label="nats", shrink=0.9, aspect=12, pad=0.01, ticks=(-limit, 0, limit))
    return fig


def markdown_table(rows, columns=None):
    """A list of dictionaries as a Markdown table, for display and for the README; what would end a cell is escaped."""
    columns = columns or list(rows[0])
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    lines = [
        "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    ]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def comparison_widget(prompts, contexts, compare):
    """Two menus and a page: `compare(prompt, context)` gives the HTML to show for the choice. Displays itself."""
    import ipywidgets

    layout = ipywidgets.Layout(width="95%")
    person = ipywidgets.Dropdown(options=contexts, description="user", layout=layout)
    prompt = ipywidgets.Dropdown(options=prompts, description="prompt", layout=layout)
    button = ipywidgets.Button(description="answer")
    page = ipywidgets.HTML()

    def answer(_):
        page.value = "<p>thinking ...</p>"
        page.value = compare(prompt.value, person.value)

    button.on_click(answer)
    note = "<p>In JupyterLab, with a running kernel, two menus and a button stand here: choose a user and a prompt.</p>"
    live(ipywidgets.VBox([person, prompt, button, page]), {"text/html": note})
