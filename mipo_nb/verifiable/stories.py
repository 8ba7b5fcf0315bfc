"""Arithmetic stories: word problems of one to three steps in plain language, made from a seed, with their steps known.

Somebody has a number of things, one to three things happen, and a question is asked. The numbers are small, so that
a model of 135 million parameters gets some right: a task on which gains and losses can be seen.
"""

import random
import re

from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.sources import SPLITS, share_of

STEPS = (1, 2, 3)

_PEOPLE = (
    "Ada Bram Chidi Dara Elif Femi Greta Hana Ivo Jun Kaya Luca Mina Noor Otto Pia Quim Rosa Sami Tove Uma Vito Wen Yara Zeno"
).split()
# (what, where, (ways to get more), (ways to have fewer), a holder for many of them)
_THINGS = (
    ("eggs", "in the henhouse", ("collects {n} more {things}", "is handed {n} {things} by a neighbour"),
     ("breaks {n} {things}", "sells {n} {things} at the gate", "fries {n} {things} for breakfast"), "carton"),
    ("books", "on a shelf", ("buys {n} more {things}", "is given {n} {things} by an aunt"),
     ("lends {n} {things} to a friend", "gives {n} {things} to the library"), "crate"),
    ("marbles", "in a pouch", ("wins {n} {things} in a game", "finds {n} {things} under the bed"),
     ("loses {n} {things} in the grass", "trades away {n} {things}"), "jar"),
    ("apples", "in a basket", ("picks {n} more {things}", "gets {n} {things} from the orchard next door"),
     ("eats {n} {things}", "bakes a cake with {n} {things}", "feeds {n} {things} to a horse"), "bag"),
    ("letters", "to deliver", ("is handed {n} more {things} at the station", "finds {n} {things} left in the van"),
     ("delivers {n} {things} before noon", "sends {n} {things} back"), "bundle"),
    ("seedlings", "in the greenhouse", ("plants {n} more {things}", "buys {n} {things} at the market"),
     ("gives {n} {things} to a school", "loses {n} {things} to the snails"), "tray"),
    ("coins", "in a tin", ("earns {n} {things} by washing a car", "finds {n} {things} in an old coat"),
     ("spends {n} {things} on a comic", "drops {n} {things} down a drain"), "roll"),
    ("bread rolls", "in the bakery", ("bakes {n} more {things}", "brings {n} {things} from the other oven"),
     ("sells {n} {things} in the first hour", "burns {n} {things}"), "tray"),
    ("photos", "on a camera", ("takes {n} more {things}", "copies {n} {things} from a friend"),
     ("deletes {n} {things}", "prints and removes {n} {things}"), "album"),
    ("bricks", "in the yard", ("unloads {n} more {things}", "cleans {n} old {things} to use again"),
     ("lays {n} {things} in a wall", "cracks {n} {things}"), "pallet"),
    ("fish", "in a pond", ("puts in {n} young {things}", "saves {n} {things} from a drying ditch"),
     ("moves {n} {things} to the river", "sells {n} {things}"), "tank"),
    ("pencils", "in a drawer", ("buys {n} new {things}", "finds {n} {things} behind the desk"),
     ("gives {n} {things} to the class", "throws away {n} short {things}"), "box"),
)  # fmt: skip
_OPENINGS = ("{who} has {n} {things} {place}.", "There are {n} {things} {place}, and all of them belong to {who}.",
             "This morning {who} counts {n} {things} {place}.")  # fmt: skip
_GROUPS = ("{who} has {a} {holders} with {b} {things} in each.", "In each of {a} {holders} {who} keeps {b} {things}.",
           "{who} fills {a} {holders} and puts {b} {things} into every one.")  # fmt: skip
_LINKS = ("Then {who} ", "Later {who} ", "After that {who} ", "In the afternoon {who} ")
_QUESTIONS = ("How many {things} does {who} have now?", "How many {things} are there now?",
              "What is the number of {things} that {who} has in the end?")  # fmt: skip
_FIRST_QUESTIONS = ("How many {things} does {who} have?", "How many {things} is that altogether?")


def problem(rng, steps):
    """One problem of so many steps: {"question", "answer", "task", "steps", "solution"}.

    `steps` is a list of equations as text, in order; `solution` says them and ends in `#### answer`, as GSM8K's do.
    """
    many, place, gains, losses, holder = rng.choice(_THINGS)
    gains, losses = list(gains), list(losses)
    who, other = rng.sample(_PEOPLE, 2)
    words = {"who": who, "things": many, "place": place, "holders": f"{holder}es" if holder == "box" else f"{holder}s"}
    told, done = [], []
    if rng.random() < 0.35:
        a, b = rng.randint(2, 6), rng.randint(2, 9)
        told.append(rng.choice(_GROUPS).format(a=a, b=b, **words))
        done.append((f"{a} x {b}", a * b))
        total = a * b
    else:
        total = rng.randint(3, 20)
        told.append(rng.choice(_OPENINGS).format(n=total, **words))
    kinds = []
    while len(done) < steps:
        last = len(done) == steps - 1
        kind = rng.choice(_possible(total, kinds, last))
        kinds.append(kind)
        n, sign, total_after, text = _event(rng, kind, total, gains, losses, other, words)
        done.append((f"{total} {sign} {n}", total_after))
        told.append(text)
        total = total_after
    asked = _question(rng, kinds, other, words)
    lines = [f"{left} = {value}" for left, value in done]
    return {
        "question": " ".join([*told, asked]),
        "answer": str(total),
        "task": "stories",
        "steps": lines,
        "solution": " ".join(f"{line}." for line in lines) + f" #### {total}",
    }


def _possible(total, before, last):
    """What can happen next: nothing may go below zero, shares come out even, and some things can only end a story."""
    kinds = [k for k in ("gain", "loss") if before.count(k) < 2 and (k == "gain" or total > 3)]
    if last:
        kinds += [k for k in ("compare", "fewer") if k == "compare" or total > 4]
        kinds += ["share"] if any(total % k == 0 and total > k for k in range(2, 7)) else []
        kinds += ["double"] if total <= 25 else []
    return kinds


def _event(rng, kind, total, gains, losses, other, words):
    """(second number, sign, total afterwards, sentence) of something that happens."""
    who, things = words["who"], words["things"]
    if kind == "share":
        n = rng.choice([k for k in range(2, 7) if total % k == 0 and total > k])
        text = rng.choice(
            ("{who} shares them equally among {n} friends.", "{who} packs them into {n} boxes, as many in each.")
        )
        return n, "/", total // n, text.format(n=n, who=who)
    if kind == "double":
        n = rng.randint(2, 4)
        return n, "x", total * n, f"{other} has {n} times as many {things} as {who}."
    if kind == "compare":
        n = rng.randint(2, 12)
        return n, "+", total + n, f"{other} has {n} more {things} than {who}."
    if kind == "fewer":
        n = rng.randint(2, total - 1)
        return n, "-", total - n, f"{other} has {n} fewer {things} than {who}."
    n = rng.randint(2, 12) if kind == "gain" else rng.randint(2, total - 2)
    sentences = gains if kind == "gain" else losses
    phrase = sentences.pop(rng.randrange(len(sentences)))  # the same thing does not happen twice
    text = f"{rng.choice(_LINKS)}{phrase}."
    return n, "+" if kind == "gain" else "-", total + n if kind == "gain" else total - n, text.format(n=n, **words)


def _question(rng, kinds, other, words):
    last = kinds[-1] if kinds else None
    if last == "share":
        return f"How many {words['things']} are there for each?"
    if last in ("double", "compare", "fewer"):
        return f"How many {words['things']} does {other} have?"
    return rng.choice(_QUESTIONS if kinds else _FIRST_QUESTIONS).format(**words)


def problems(split, *, n, seed=0, steps=STEPS):
    """A `datasets.Dataset` of `n` different problems of one split, their numbers of steps in turn.

    A problem's split is a hash of its words, numbers and names left out, so that no question is ever in two of them, nor
    one that differs in those only, whatever the seeds.
    Raises `UserError` for an unknown split or number of steps.
    """
    from datasets import Dataset

    if split not in SPLITS:
        raise UserError(f"Unknown split '{split}'; {did_you_mean(split, SPLITS)}")
    if not steps or set(steps) - set(STEPS):
        raise UserError(f"Stories have {', '.join(map(str, STEPS))} steps, not {steps!r}.")
    rng, rows, seen = random.Random(f"stories-{split}-{seed}"), [], set()
    while len(rows) < n:
        row = problem(rng, steps[len(rows) % len(steps)])
        if _split_of(row["question"]) == split and row["question"] not in seen:
            seen.add(row["question"])
            rows.append(row)
    return Dataset.from_list(rows)


def _split_of(question):
    # A problem and its copies with other numbers and people stay together.
    question = re.sub(rf"\d+|\b(?:{'|'.join(_PEOPLE)})\b", "#", question)
    share = share_of(question)
    return "train" if share < 0.6 else "dev" if share < 0.75 else "test"
