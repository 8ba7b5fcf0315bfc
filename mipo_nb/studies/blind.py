"""A sheet on which a person rates pairs of responses blind, the sides hidden, and counts the ratings with an interval.

The file of ratings has a verdict per pair, by a hash of the pair; which side was the tuned model is nowhere in it.
"""

import csv
import html
import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipo_nb import prompts
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.files import digest, write_atomically
from mipo_nb.statistics import Estimate, wilson

VERDICTS = ("A", "B", "same")


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt of one user; `tuned` is the side, "A" or "B", of the tuned model."""

    context: str
    prompt: str
    a: str
    b: str
    tuned: str

    @property
    def key(self):
        """What a rating is kept under: it changes with the texts and with their sides, and does not tell the sides."""
        return digest([self.context, self.prompt, self.a, self.b])[:16]


def pairs(rows, base, tuned, n, *, seed=0):
    """At most n pairs drawn from rows of personal prompts with one response of each model, in random order.

    The tuned model is on side A in half of them (one more or less), at random which. Rows with an empty response, or
    with the same response twice, have nothing to compare and are left out.
    """
    comparable = [
        (row, *responses)
        for row, *responses in zip(rows, base, tuned, strict=True)
        if all(text.strip() for text in responses) and responses[0].strip() != responses[1].strip()
    ]
    rng = random.Random(f"blind-{seed}")
    drawn = rng.sample(comparable, min(n, len(comparable)))
    sides = [("A", "B")[i % 2] for i in range(len(drawn))]
    rng.shuffle(sides)
    return [
        Pair(row["context"], prompts.in_words(row), *(responses[::-1] if side == "A" else responses), side)
        for (row, *responses), side in zip(drawn, sides, strict=True)
    ]


class Sheet:
    """Ratings of `pairs` in the CSV `file`, which is read now and written anew, in one move, at each rating. Ratings of
    other pairs in the file stay there and are not counted. Raises `UserError` for a file of another form."""

    def __init__(self, pairs, file):
        self.pairs, self.file = list(pairs), Path(file)
        self._verdicts = _read(self.file) if self.file.exists() else {}

    def verdict(self, number):
        """The verdict on a pair, None where there is none yet."""
        return self._verdicts.get(self.pairs[number].key)

    def rate(self, number, verdict):
        """Store "A", "B" or "same" for a pair, in place of an earlier verdict. Raises `UserError` for another word."""
        require_known("verdict", verdict, VERDICTS)
        stored = _read(self.file) if self.file.exists() else {}  # another sheet may have written since
        verdicts = {**self._verdicts, **stored, self.pairs[number].key: verdict}
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([("pair", "verdict"), *verdicts.items()])
        write_atomically(self.file, table.getvalue())
        self._verdicts = verdicts

    @property
    def rated(self):
        """Numbers of the pairs that have a verdict."""
        return [k for k in range(len(self.pairs)) if self.verdict(k)]

    def next(self):
        """Number of the first pair without a verdict, None where all have one."""
        return next((k for k in range(len(self.pairs)) if not self.verdict(k)), None)

    def outcomes(self):
        """Array [rated pairs]: 1 where the tuned model's response was preferred, 0 where the other, 1/2 for "same"."""
        return np.array([{"same": 0.5, self.pairs[k].tuned: 1.0}.get(self.verdict(k), 0.0) for k in self.rated])

    def page(self, number):
        """HTML of a pair: the user, the prompt, and the two responses side by side, without names."""
        pair = self.pairs[number]
        a, b = (html.escape(text).replace("\n", "<br>") for text in (pair.a, pair.b))
        rating = f", rated: {self.verdict(number)}" if self.verdict(number) else ""
        heads = "".join(f"<th style='text-align:left'>{side}</th>" for side in "AB")
        cells = "".join(f"<td style='text-align:left; vertical-align:top'>{text}</td>" for text in (a, b))
        return (
            f"<p><b>Pair {number + 1} of {len(self.pairs)}</b>{rating}</p><p><em>{html.escape(pair.context)}</em><br>"
            f"<b>{html.escape(pair.prompt)}</b></p><table style='width:100%; table-layout:fixed'>"
            f"<tr>{heads}</tr><tr>{cells}</tr></table>"
        )

    def told(self):
        """One sentence: how many pairs are rated, and nothing of how."""
        return f"{len(self.rated)} of {len(self.pairs)} pairs rated."

    def widget(self):
        """The sheet as an `ipywidgets` box: a page, a button per verdict, a button back, and how much is rated."""
        import ipywidgets

        page, state = ipywidgets.HTML(), ipywidgets.Label()
        names = {"A": "A is better", "B": "B is better", "same": "no difference"}
        buttons = [ipywidgets.Button(description=names[verdict]) for verdict in VERDICTS]
        back = ipywidgets.Button(description="back")
        current = 0

        def turn_to(number):
            nonlocal current
            current = number
            page.value = self.page(number) if self.pairs else "<p>No pair to rate.</p>"
            state.value = self.told() + (" Run the next cell to count." if self.pairs and self.next() is None else "")

        def rate(verdict):
            if self.pairs:
                try:
                    self.rate(current, verdict)
                except UserError as e:  # raised in a button it would not be seen
                    state.value = str(e)
                    return
                unrated = self.next()
                turn_to(min(current + 1, len(self.pairs) - 1) if unrated is None else unrated)

        for button, verdict in zip(buttons, VERDICTS, strict=True):
            button.on_click(lambda _, verdict=verdict: rate(verdict))
        back.on_click(lambda _: turn_to(max(current - 1, 0)))
        turn_to(self.next() or 0)
        return ipywidgets.VBox([page, ipywidgets.HBox([*buttons, back]), state])

    def show(self):
        """Display the widget; where nothing can be pressed (a headless run, a web page) its first page is shown."""
        from IPython.display import display

        bundle = self.widget()._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        page = self.page(self.next() or 0) if self.pairs else "<p>No pair to rate.</p>"
        note = "<p>In JupyterLab, with a running kernel, three buttons stand below this pair: "
        note += "A is better, B is better, no difference.</p>"
        display({**data, "text/html": page + note, "text/plain": self.told()}, raw=True)


def _read(file):
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:  # an editor may have added a mark, or empty lines
            rows = [row for row in csv.reader(opened) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{file} cannot be read ({e}); move it away to begin a new sheet.") from None
    wrong = [row for row in rows[1:] if len(row) != 2 or row[1] not in VERDICTS]
    if not rows or rows[0] != ["pair", "verdict"] or wrong:
        raise UserError(f"{file} is not a sheet of ratings (columns pair, verdict); move it away to begin a new one.")
    return dict(rows[1:])


def preferred(outcomes):
    """`statistics.Estimate` of the share in which the tuned model was preferred, ties as halves, with `wilson`. A tie
    varies less than a win or a loss, so that with ties the interval is wider than it need be. Raises `ValueError` where
    nothing was rated."""
    outcomes = np.asarray(outcomes, dtype=float)
    low, high = wilson(outcomes.mean() if len(outcomes) else 0.0, len(outcomes))
    return Estimate(float(outcomes.mean()), low, high, len(outcomes))
