"""Arithmetic stories: word problems of one to three steps in plain language, made from a seed, with their steps known.

Somebody has a number of things, one to three things happen, and a question is asked. The numbers are small, so that
a model of 135 million parameters gets some right: a task on which gains and losses can be seen.
"""

import random
import re

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.base.splits import share_of
from mipo_nb.sources import SPLITS

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
_SHARES = ("{who} shares them equally among {n} friends.", "{who} packs them into {n} boxes, as many in each.")
_QUESTIONS = ("How many {things} does {who} have now?", "How many {things} are there now?",
              "What is the number of {things} that {who} has in the end?")  # fmt: skip
_FIRST_QUESTIONS = ("How many {things} does {who} have?", "How many {things} is that altogether?")


def problem(rng, steps):
    """One problem of so many steps: {"question", "answer", "task", "steps", "solution"}.

    `steps` is a list of equations as text, in order; `solution` says them and ends in `#### answer`, as GSM8K's do.
    """
    things, place, gains, losses, holder = rng.choice(_THINGS)
    gains, losses = list(gains), list(losses)  # phrases that have not been used yet
    who, other = rng.sample(_PEOPLE, 2)
    words = {"who": who, "things": things, "place": place, "holders": "boxes" if holder == "box" else f"{holder}s"}
    sentences, equations = [], []
    if rng.random() < 0.35:
        a, b = rng.randint(2, 6), rng.randint(2, 9)
        total = a * b
        sentences.append(rng.choice(_GROUPS).format(a=a, b=b, **words))
        equations.append(f"{a} x {b} = {total}")
    else:
        total = rng.randint(3, 20)
        sentences.append(rng.choice(_OPENINGS).format(n=total, **words))
    kinds = []
    while len(equations) < steps:
        kinds.append(rng.choice(_possible(total, kinds, last=len(equations) == steps - 1)))
        n, sign, total_after, sentence = _event(rng, kinds[-1], total, gains, losses, other, words)
        sentences.append(sentence)
        equations.append(f"{total} {sign} {n} = {total_after}")
        total = total_after
    question = " ".join([*sentences, _question(rng, kinds, other, words)])
    solution = " ".join(f"{equation}." for equation in equations) + f" #### {total}"
    return {"question": question, "answer": str(total), "task": "stories", "steps": equations, "solution": solution}


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
        return n, "/", total // n, rng.choice(_SHARES).format(n=n, who=who)
    if kind == "double":
        n = rng.randint(2, 4)
        return n, "x", total * n, f"{other} has {n} times as many {things} as {who}."
    if kind == "compare":
        n = rng.randint(2, 12)
        return n, "+", total + n, f"{other} has {n} more {things} than {who}."
    if kind == "fewer":
        n = rng.randint(2, total - 1)
        return n, "-", total - n, f"{other} has {n} fewer {things} than {who}."
    n = rng.randint(2, 12 if kind == "gain" else total - 2)
    phrases = gains if kind == "gain" else losses
    phrase = phrases.pop(rng.randrange(len(phrases)))  # the same thing does not happen twice
    sentence = f"{rng.choice(_LINKS)}{phrase}.".format(n=n, **words)
    return (n, "+", total + n, sentence) if kind == "gain" else (n, "-", total - n, sentence)


def _question(rng, kinds, other, words):
    last = kinds[-1] if kinds else None
    if last == "share":
        return f"How many {words['things']} are there for each?"
    if last in ("double", "compare", "fewer"):
        return f"How many {words['things']} does {other} have?"
    return rng.choice(_QUESTIONS if kinds else _FIRST_QUESTIONS).format(**words)


def problems(split, *, n, seed=0, steps=STEPS):
    """A `datasets.Dataset` of `n` different problems of one split, their numbers of steps in turn.

    A hash of a problem's words, without numbers and names, decides its split: whatever the seeds, no two splits share a
    question or its copies with other numbers and names. Raises `UserError` for an unknown split or number of steps.
    """
    from datasets import Dataset

    require_known("split", split, SPLITS)
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
