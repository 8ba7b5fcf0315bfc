"""What walks say (notebook 41): a view at each look, its change, and arms side by side. A walk is what `rounds.walk` gives, and
`results/rounds.jsonl` keeps.

Each walk has training and test rows of its own, so that walks are independent, and intervals are Student's over walks.
Arms are compared seed by seed, on the same rows. Of one walk alone the interval is over its test rows.
"""

import numpy as np

from mipo_nb import statistics
from mipo_nb.lab.ledger import unlike

NATS = ("information", "apart")


def at(walk, view, when):
    """Array, points or nats: a view of a walk at a look (0 is untrained) by row, or the share that was silent in a round (0 is
    the first)."""
    silent = view in walk["rounds"][0]
    values = [walk["rounds"][when][view]] if silent else walk["looks"][when][view]
    return np.array(values, dtype=float) * (1 if view in (*NATS, "words") else 100)


def course(walk, view):
    """Array: the mean of a view at each look, or in each round; NaN for a round without a training."""
    n = len(walk["rounds" if view in walk["rounds"][0] else "looks"])
    return np.array([_middle(at(walk, view, k)) for k in range(n)])


def mean_course(walks, view):
    """Array: the mean over {seed: walk} of each `course`."""
    return np.array([_middle(values) for values in zip(*(course(walk, view) for walk in walks.values()), strict=True)])


def _middle(values):
    """Mean without NaNs; NaN where there is nothing else."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def mean(differences, unit=100.0):
    """`statistics.Estimate` of a list of arrays, one for each walk: over walks, or over the rows of a single one. NaNs are left
    out; None where nothing is left."""
    values = np.array(list(map(_middle, differences))) if len(differences) > 1 else differences[0]
    return statistics.over_seeds(values[None], unit=unit) if np.isfinite(values).any() else None


def change(walks, view, later=-1, earlier=0):
    """Estimate of the change of a view between two looks (or rounds) of {seed: walk}."""
    differences = [at(walk, view, later) - at(walk, view, earlier) for walk in walks.values()]
    return mean(differences, 1.0 if view in NATS else 100.0)


def minus(ours, theirs, view, when=-1):
    """Estimate of one arm minus another, {seed: walk} each, over the seeds that both have; None where there is none."""
    both = [seed for seed in ours if seed in theirs]
    differences = [at(ours[seed], view, when) - at(theirs[seed], view, when) for seed in both]
    return mean(differences, 1.0 if view in NATS else 100.0) if both else None


# --- what is kept in results/rounds.jsonl ---

# The numbers of a run under which walks may stand side by side.
_ALIKE = (
    "model", "four_bit", "system", "with_context", "task", "n_exemplars", "n_people", "n_problems", "n_pairs", "n_test", "rounds",
    "draws", "n_scored", "n_candidates", "max_new_tokens", "problem_tokens", "at_limit", "temperature", "top_p", "top_k",
    "max_length", "beta", "learning_rate", "epochs", "warmup", "final_rate", "lora_rank", "lora_target", "batch_size",
    "accumulate", "reward_rate", "responses", "group",
)  # fmt: skip


def key(world, arm, s, *, seed):
    """What a walk is kept under (`lab.ledger`), {name: plain value}."""
    return {"world": world, "arm": arm, "seed": seed, "sheets": s.seed, **{name: getattr(s, name) for name in _ALIKE}}


def of_ledger(shelf, s):
    """{world: {arm: {seed: walk}}} of the lines under this run's numbers. Says which were measured by other rules."""
    alike, found = {"sheets": s.seed, **{name: getattr(s, name) for name in _ALIKE}}, {}
    lines = [line for line in shelf.lines if line["key"].items() >= alike.items()]
    if told := unlike([line for line in lines if line["key"]["world"] == "people"]):
        print(told)
    for line in sorted(lines, key=lambda line: line["key"]["seed"]):
        place = line["key"]
        found.setdefault(place["world"], {}).setdefault(place["arm"], {})[place["seed"]] = line["value"]
    return found
