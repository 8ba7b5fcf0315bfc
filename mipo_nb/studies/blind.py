"""A sheet on which a person rates pairs of responses blind: sides hidden, ratings kept in a file, counted with an interval.

What is kept is a verdict per pair, by a hash of the pair; which side was the tuned model stands nowhere in the file.
"""

import csv
import html
import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mipo_nb.base.errors import UserError, did_you_mean
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
    found = [
        (row["context"], row["prompt"], before, after)
        for row, before, after in zip(rows, base, tuned, strict=True)
        if before.strip() and after.strip() and before.strip() != after.strip()
    ]
    rng = random.Random(f"blind-{seed}")
    found = rng.sample(found, min(n, len(found)))
    sides = [("A", "B")[i % 2] for i in range(len(found))]
    rng.shuffle(sides)
    return [
        Pair(context, prompt, *((after, before) if side == "A" else (before, after)), side)
        for (context, prompt, before, after), side in zip(found, sides, strict=True)
    ]


class Sheet:
    """Ratings of `pairs` in the CSV `file`, which is read now and written anew, in one move, at each rating.

    Ratings of other pairs in the file stay there and are not counted. Raises `UserError` for a file of another form.
    """

    def __init__(self, pairs, file):
        self.pairs, self.file = list(pairs), Path(file)
        self._kept = _read(self.file) if self.file.exists() else {}

    def verdict(self, number):
        """The verdict on a pair, None where there is none yet."""
        return self._kept.get(self.pairs[number].key)

    def rate(self, number, verdict):
        """Keep a verdict on a pair, "A", "B" or "same"; a later one replaces it. Raises `UserError` for another word."""
        if verdict not in VERDICTS:
            raise UserError(f"Unknown verdict '{verdict}'; {did_you_mean(verdict, VERDICTS)}")
        there = _read(self.file) if self.file.exists() else {}  # another sheet may have written since
        kept = {**self._kept, **there, self.pairs[number].key: verdict}
        written = io.StringIO(newline="")
        csv.writer(written, lineterminator="\n").writerows([("pair", "verdict"), *kept.items()])
        write_atomically(self.file, written.getvalue())
        self._kept = kept

    @property
    def rated(self):
        """Numbers of the pairs that have a verdict."""
        return [k for k in range(len(self.pairs)) if self.verdict(k)]

    def next(self):
        """Number of the first pair without a verdict, None where all have one."""
        return next((k for k in range(len(self.pairs)) if not self.verdict(k)), None)

    def outcomes(self):
        """Array [rated pairs]: 1 where the tuned model's response was preferred, 0 where the other's, 1/2 for "same"."""
        return np.array(
            [0.5 if self.verdict(k) == "same" else float(self.verdict(k) == self.pairs[k].tuned) for k in self.rated]
        )

    def page(self, number):
        """HTML of a pair: the user, the prompt, and the two responses side by side, without names."""
        pair = self.pairs[number]
        a, b = (html.escape(text).replace("\n", "<br>") for text in (pair.a, pair.b))
        given = f", rated: {self.verdict(number)}" if self.verdict(number) else ""
        return (
            f"<p><b>Pair {number + 1} of {len(self.pairs)}</b>{given}</p><p><em>{html.escape(pair.context)}</em><br>"
            f"<b>{html.escape(pair.prompt)}</b></p><table style='width:100%; table-layout:fixed'><tr><th style='text-align:left'>A</th>"
            f"<th style='text-align:left'>B</th></tr><tr><td style='text-align:left; vertical-align:top'>{a}</td>"
            f"<td style='text-align:left; vertical-align:top'>{b}</td></tr></table>"
        )

    def told(self):
        """One sentence: how many pairs are rated, and nothing of how."""
        return f"{len(self.rated)} of {len(self.pairs)} pairs rated."

    def widget(self):
        """The sheet as an `ipywidgets` box: a page, a button per verdict, one to go back, and how far one is."""
        import ipywidgets

        page, state = ipywidgets.HTML(), ipywidgets.Label()
        names = {"A": "A is better", "B": "B is better", "same": "no difference"}
        buttons = [ipywidgets.Button(description=names[verdict]) for verdict in VERDICTS]
        back = ipywidgets.Button(description="back")
        place = [0]

        def turn_to(number):
            place[0] = number
            page.value = self.page(number) if self.pairs else "<p>No pair to rate.</p>"
            state.value = self.told() + (" Run the next cell to count." if self.pairs and self.next() is None else "")

        def rate(verdict):
            if self.pairs:
                try:
                    self.rate(place[0], verdict)
                except UserError as e:  # raised in a button it would not be seen
                    state.value = str(e)
                    return
                following = self.next()
                turn_to(min(place[0] + 1, len(self.pairs) - 1) if following is None else following)

        for button, verdict in zip(buttons, VERDICTS, strict=True):
            button.on_click(lambda _, verdict=verdict: rate(verdict))
        back.on_click(lambda _: turn_to(max(place[0] - 1, 0)))
        turn_to(self.next() or 0)
        return ipywidgets.VBox([page, ipywidgets.HBox([*buttons, back]), state])

    def show(self):
        """Display the widget; where nothing can be pressed (a headless run, a web page) its first page stands there."""
        from IPython.display import display

        shown = self.widget()._repr_mimebundle_()
        data = shown[0] if isinstance(shown, tuple) else shown
        first = self.page(self.next() or 0) if self.pairs else "<p>No pair to rate.</p>"
        note = "<p>In JupyterLab, with a running kernel, three buttons stand below this pair: A is better, B is better, no difference.</p>"
        display({**data, "text/html": first + note, "text/plain": self.told()}, raw=True)


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
    """`statistics.Estimate` of the share in which the tuned model was preferred, ties as halves, with `wilson`.

    A tie varies less than a win or a loss, so that with ties the interval is wider than it need be. Raises `ValueError`
    where nothing was rated.
    """
    outcomes = np.asarray(outcomes, dtype=float)
    low, high = wilson(outcomes.mean() if len(outcomes) else 0.0, len(outcomes))
    return Estimate(float(outcomes.mean()), low, high, len(outcomes))
