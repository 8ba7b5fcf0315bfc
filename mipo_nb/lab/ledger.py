"""Results that took hours, kept in the project itself: a line of `results/NAME.jsonl` for each training; and what several
trainings say together.

A run's folder is for one machine; a ledger is committed. A line says what was computed (`key`), from which commit and
where, by which `rules` for wishes and with weights of which type, and what came out. The `evidence` profile adds the lines
that are missing; every profile shows those that are there. Texts are not kept, so other rules cannot judge them again:
`unlike` says so.
"""

import json
import time
from collections import Counter
from operator import itemgetter

import numpy as np

from mipo_nb import preferences, statistics
from mipo_nb.base import jsonl
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root, write_atomically
from mipo_nb.base.hardware import hardware
from mipo_nb.lab.provenance import git_state, library_versions
from mipo_nb.lab.steps import NOT_NUMBERS, version_of_modules


class Ledger:
    """The file `results/NAME.jsonl` of the checkout; made when the first line is added."""

    def __init__(self, name):
        self.file = project_root() / "results" / f"{name}.jsonl"
        self._state = git_state()  # the code that runs is the code that was there at the start
        self.lines = [line for _, line in jsonl.objects(self.file)] if self.file.exists() else []

    def find(self, key):
        """What was kept under `key`, a dictionary of plain values; None where nothing was."""
        return next((line["value"] for line in self.lines if line["key"] == key), None)

    def add(self, key, value):
        """Keep `value`, which JSON can hold, under `key`, and return it. Raises `UserError` for code or data that is not
        committed: nobody could tell later where the numbers are from."""
        if self._state is None or self._state["dirty"]:
            raise UserError("Commit the code first: a ledger says from which commit each of its numbers comes.")
        libraries = {
            name: v for name, v in library_versions().items() if name in ("torch", "transformers", "trl", "peft")
        }
        origin = {"commit": self._state["commit"][:12], "day": time.strftime("%Y-%m-%d"), "libraries": libraries}
        origin |= {"rules": rules(), "weights": hardware().dtype}
        self.lines.append({"key": key, **origin, "value": value})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)
        self.file.parent.mkdir(exist_ok=True)
        write_atomically(self.file, text)
        return value

    def complete(self, wanted, function, *, step, **common):
        """Add what is lacking of `wanted`, [(key, arguments)]: `function(**arguments, step=step, **common)`, a step of a run
        (`run.step`, and so on a cluster many at once), a line as each result comes. A key whose "negative" is None is the
        untrained model's; where a training is lacking it is measured once more, unless it was by now's rules and in now's
        type: trainings are compared with it (`moved`). Raises `UserError` as `add` does."""
        lacking, trains = [], any("negative" in key and key["negative"] and self.find(key) is None for key, _ in wanted)
        for key, arguments in wanted:
            if trains and key.get("negative", key) is None:
                key = self._by_now(key)
            if self.find(key) is None and key not in (wanted_before for wanted_before, _ in lacking):
                lacking.append((key, arguments))
        grid = [arguments for _, arguments in lacking]
        for number, value in step.arrivals("kept training", function, grid, step=step, **common) if grid else ():
            self.add(lacking[number][0], value)

    def _by_now(self, key):
        """The untrained model's `key`, with now's rules and type where all that is kept under it was measured otherwise."""
        now, dtype = rules(), hardware().dtype
        kept = [line for line in self.lines if line["key"].items() >= key.items()]
        if alike := [line["key"] for line in kept if measure(line) == (now, dtype)]:
            return alike[0]
        return key | {"rules": now} | ({"weights": dtype} if dtype != "bfloat16" else {}) if kept else key


def rules():
    """Hash of the code of the project's rules for wishes, 16 hexadecimal digits; comments and docstrings do not count, nor do
    kinds that users add."""
    return version_of_modules("mipo_nb.preferences", without=(*NOT_NUMBERS, "mipo_nb.wishes.own_kinds"))


def measure(line):
    """What a line can be compared under: its rules (None before they were named) and the type of its weights."""
    return line.get("rules"), line.get("weights", "bfloat16")  # the only type before it was named


def unlike(lines):
    """Sentences that say how many of the lines were measured by other rules than today's, and how many with weights of which
    type if there are several; "" where all are alike."""
    told, others = [], sum(measure(line)[0] != rules() for line in lines)
    if others:
        by = (
            "were measured by earlier rules for wishes, as data/README.md says, and so was what they are compared with."
        )
        told.append(f"{others} of {len(lines)} kept results {by}")
    types = Counter(measure(line)[1] for line in lines)
    if len(types) > 1:
        several = " and ".join(f"{number} in {name}" for name, number in types.most_common())
        told.append(f"Weights were held {several}; each result is compared with the untrained model in its own type.")
    return "\n".join(told)


def moved(views, own, base):
    """`views`, {view: a value for each user}, moved so that their `gains` over `base` are those over `own`: the untrained model
    as it was measured like them (`measure`)."""
    if own is base:
        return views
    told = {view: np.array([views[view], base[view], own[view]], dtype=float) for view in views if view != "users"}
    return {"users": views["users"], **{view: list(each + to - of) for view, (each, to, of) in told.items()}}


def of_users(values, users):
    """[users]: the mean of each user's rows, in the order of their ids, to five digits; None where all are NaN."""
    values, users = np.asarray(values, dtype=float), np.asarray(users)
    means = [values[users == user] for user in sorted(set(users.tolist()))]
    return [None if np.isnan(some).all() else round(float(np.nanmean(some)), 5) for some in means]


def same_seeds(ours, theirs):
    """Those of two arms' trainings, [views] each, whose seeds both have, so that they can be compared one by one."""
    both = {each["seed"] for each in ours} & {each["seed"] for each in theirs}
    return [sorted((e for e in some if e["seed"] in both), key=itemgetter("seed")) for some in (ours, theirs)]


def gains(base, trainings, view):
    """Array [trainings, users]: the change of a view against the untrained model, NaN where a user has no value. `base` and
    each of `trainings` are {view: a value for each user}, as `arms.measured` gives them."""
    return np.array([each[view] for each in trainings], dtype=float) - np.array(base[view], dtype=float)


def changes(base, trainings, views, strata=None):
    """{view: `statistics.over_seeds` of its `gains`}, users and trainings at random, kinds (`wished_kinds`) as designed;
    shares in points, "words" in words. Views that `base` does not have, or that no user has a value of, are left out; kinds
    are not told apart where fewer than two users a kind have one."""
    found = {}
    for view in (view for view in views if view in base):
        factor = 1 if view == "words" else 100
        changed = gains(base, trainings, view) * factor
        if users := int((~np.isnan(changed)).all(axis=0).sum()):
            designed = strata if strata is not None and users >= 2 * strata.shape[1] else None
            found[view] = statistics.over_seeds(changed, strata=designed, unit=factor)
    return found


def levels(base, views):
    """{view: its mean over users}, in per cent, "words" in words."""
    means = {view: np.nanmean(np.array(base[view], dtype=float)) for view in views if view in base}
    return {view: mean * (1 if view == "words" else 100) for view, mean in means.items()}


def wished_kinds(rows):
    """Array [users, kinds], 0 or 1: the kinds that each user of `rows` wished, in the order of their ids, for `changes`;
    None for fewer than two users a kind."""
    wished = {row["user_id"]: {p["kind"] for p in preferences.checkable(row["preferences"])} for row in rows}
    kinds = sorted(set().union(*wished.values()))
    table = np.array([[float(kind in wished[user]) for kind in kinds] for user in sorted(wished)])
    return table if len(wished) >= 2 * len(kinds) > 0 else None
