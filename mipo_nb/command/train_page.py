"""The page that `mipo-nb train` leaves: what training did in words and a figure, then the numbers, then answers to read."""

import base64
import html

from mipo_nb import prompts
from mipo_nb.command.report import HEAD
from mipo_nb.lab import badges, plots

WISHES = ("for the user", "for everyone", "misapplied")
PRICES = ("repetition", "refusal", "echo", "empty", "cut", "words")
_MEANING = {
    "for the user": "Of a user's own wishes the share that answers to this user keep, less the share that answers to "
    "people who did not ask for it keep as well. This is what training is for.",
    "for everyone": "The second of these shares: a style that everybody gets.",
    "misapplied": "Wishes that act where they must not, as in a letter that somebody else is to send.",
    "repetition": "Sequences of four words that the answer had before.",
    "refusal": "Answers that decline.",
    "echo": "Sequences of four words that are copied from what the model was told about the user.",
    "empty": "Answers of which nothing is left.",
    "cut": "Answers that reached the limit of their tokens.",
    "words": "The length of an answer.",
    "held-out": "Pairs made for people of whom training saw none. Had it learned nothing that carries over, the chosen "
    "side would rise more in half of them, with a margin of zero.",
}


def in_words(changes, held_out):
    """A list of sentences: what was gained, and at what price. `changes` are {view: Estimate}, in points; `held_out` is the
    share of held-out pairs whose chosen side rose more, an Estimate in per cent."""
    told, gain = [], changes.get("for the user")
    if gain is None:
        told.append(
            f"No wish here can be checked by a rule. In {held_out:.1f} % of held-out pairs the chosen side rose more than "
            "the rejected one; without anything learned it is half of them."
        )
    elif gain.low > 0 or gain.high < 0:
        more = "more" if gain.low > 0 else "fewer"
        told.append(f"The trained model keeps {more} of a user's wishes, for that user: {gain:+.1f} points.")
    else:
        told.append(
            f"Whether the trained model keeps more of a user's wishes, for that user, is {badges.undecided(gain, 'points')} "
            f"with {gain.n} users: {gain:+.1f} points."
        )
    risen = [f"{view} {changes[view]:+.1f}" for view in ("misapplied", *PRICES[:-1]) if view in changes and changes[view].low > 0]  # fmt: skip
    told.append(f"Its price, in points: {', '.join(risen)}." if risen else "No price rose for sure.")
    return told


def page(rows, changes, held_out, said, how):
    """HTML of a whole page. `rows` are [{"what", "found"}]; `changes` and `held_out` as above; `said` is
    [(row, {name of a model: its answer})]; `how` is what the run says of itself."""
    cells = "".join(f"<tr><td>{html.escape(r['what'])}</td><td>{html.escape(r['found'])}</td></tr>" for r in rows)
    meaning = "".join(
        f"<dt><em>{view}</em></dt><dd>{text}</dd>" for view, text in _MEANING.items() if view in (*changes, "held-out")
    )
    people = "".join(
        f"<h3>{html.escape(row['context'])}</h3><p><em>{html.escape(prompts.in_words(row))}</em></p>"
        + "".join(f"<p><strong>{name}:</strong> {html.escape(text) or '(nothing)'}</p>" for name, text in texts.items())
        for row, texts in said
    )
    note = (
        "Changes are against the untrained model, with 95% intervals over users. This is one training: another seed gives "
        "another one, and notebook 12 measures how far they differ."
    )
    return (
        f"{HEAD}<title>An adapter by MIPO</title><h1>What training did</h1>"
        f"{''.join(f'<p>{html.escape(sentence)}</p>' for sentence in in_words(changes, held_out))}{_figure(changes)}"
        f"<h2>In numbers</h2><table>{cells}</table><p>{note}</p><details><summary>What each of them means</summary>"
        f"<dl>{meaning}</dl></details><h2>Three test users, before and after</h2>{people}"
        f"<h2>How</h2><pre style='white-space:pre-wrap'>{html.escape(how)}</pre></html>"
    )


def _figure(changes):
    shown = {view: change for view, change in changes.items() if view != "words"}
    if not shown:
        return ""
    colours = [plots.COLOURS[0] if view == "for the user" else "0.45" for view in shown]
    fig, ax = plots.figure(1, width=7, height=0.35 * len(shown) + 1)
    plots.intervals(ax, list(shown), list(shown.values()), reference=0, colours=colours)
    ax.set(xlabel="change by training, points", title="The gain, and what it may have cost")
    picture = base64.b64encode(plots.png(fig)).decode()
    alt = "Changes by training in points with 95% intervals, a line for each of these: " + ", ".join(shown)
    return f'<img alt="{alt}" src="data:image/png;base64,{picture}">'
