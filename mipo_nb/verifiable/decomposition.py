"""Where a change in accuracy comes from: accuracy as a chain of factors, and a split of its change that adds up exactly."""

from itertools import combinations
from math import factorial

import numpy as np

from mipo_nb.statistics import over_seeds
from mipo_nb.verifiable import answers

# The links of the chain, in order, and the kinds of `answers.KINDS` that fail there. What fails nowhere is right.
STAGES = {
    "on topic": ("off-topic",),
    "readable": ("no answer", "format"),
    "arithmetic": ("arithmetic slip",),
    "reasoning": ("wrong reasoning",),
}


def passed(kinds):
    """Array [..., 4] of 1 and 0: whether responses of these kinds [...] get through each of `STAGES` and all before it.

    The mean of the last column is the accuracy. Raises `ValueError` for a kind that is none of `answers.KINDS`.
    """
    kinds = np.asarray(kinds)
    if unknown := set(kinds.ravel().tolist()) - set(answers.KINDS):
        raise ValueError(f"Unknown kinds {sorted(unknown)}; give those of `reasoning.graded`.")
    fails = np.stack([np.isin(kinds, failures) for failures in STAGES.values()], axis=-1)
    return 1.0 - np.logical_or.accumulate(fails, axis=-1)


def factors(levels):
    """Shares [..., K] that get through each link, among all, as shares among those that came so far; NaN of nothing.

    Their product is the last of the levels (eq-chain of notebook 13).
    """
    levels = np.asarray(levels, dtype=float)
    previous = np.concatenate([np.ones_like(levels[..., :1]), levels[..., :-1]], axis=-1)
    return np.divide(levels, previous, out=np.full_like(levels, np.nan), where=previous > 0)


def split(before, after):
    """[..., K] parts of prod(after) - prod(before), one for each of K factors, which add up to it exactly.

    A factor's part is what the product gains when that factor alone is exchanged, averaged over all orders of exchange:
    Shapley's value (eq-split of notebook 13). A factor that is NaN on one side is taken as on the other: its part is 0.
    """
    before, after = np.broadcast_arrays(np.asarray(before, dtype=float), np.asarray(after, dtype=float))
    old = np.nan_to_num(np.where(np.isnan(before), after, before), nan=1.0)
    new = np.nan_to_num(np.where(np.isnan(after), before, after), nan=1.0)
    count = old.shape[-1]
    parts = np.zeros_like(old)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for exchanged in combinations(others, size):
                unchanged = [j for j in others if j not in exchanged]
                rest = new[..., list(exchanged)].prod(-1) * old[..., unchanged].prod(-1)
                parts[..., i] += weight * (new[..., i] - old[..., i]) * rest
    return parts


def change(after, before):
    """{stage: `Estimate`} of the parts of accuracy after - before, as shares, and "all", their sum.

    `after` are kinds of errors [training seeds, problems]; `before` is the same, row by row, or [problems] where it is
    one model. Intervals hold 95%, problems and trainings at random (`statistics.over_seeds`): a part is a smooth function
    of the shares that get through, so that its error is that of its tangent, a mean over problems and trainings.
    """
    after, before = passed(after), passed(before)
    both = np.concatenate([np.broadcast_to(before, after.shape), after], axis=-1)  # [seeds, problems, 8]
    middle = both.mean((0, 1))
    step = 1e-6 * np.eye(len(middle))
    tangent = (_parts(middle + step) - _parts(middle - step)) / 2e-6  # [8, 5]
    linear = np.round(_parts(middle) + (both - middle) @ tangent, 8)  # what differs by less is the tangent's own error
    return {stage: over_seeds(linear[..., k]) for k, stage in enumerate([*STAGES, "all"])}


def _parts(levels):
    """[..., 5]: the parts of the change, and the change, of shares [..., 8] that get through before and after."""
    old, new = np.split(levels, 2, axis=-1)
    return np.concatenate([split(factors(old), factors(new)), (new - old)[..., -1:]], axis=-1)
