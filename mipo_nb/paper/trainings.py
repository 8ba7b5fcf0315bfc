"""Trainings on the paper's people, and measurements of trained models, as calls that do not need one another.

A model with an adapter in memory does not travel to a worker of a cluster (`lab.names`). So what `run.map` is given names
the untrained model, the adapter's folder, and what to do with both.
"""

import inspect

from mipo_nb import mipo, models, pairs
from mipo_nb.generation import Sampling
from mipo_nb.paper import personal
from mipo_nb.training import Recipe


def trained(model, tokenizer, s, *, seed, step, shuffled=False):
    """What `mipo.train` returns, with its "pairs": MIPO on the run's data, everything drawn from `seed`, or its control
    (`shuffled`), with the sides of a random half exchanged. `s` are a run's settings; errors as `mipo.make_pairs` and
    `mipo.train` raise them."""
    rows = personal.personal_prompts(s.data, "train", n=s.n_pairs, seed=seed)
    recipe, sizes = Recipe.of(s, seed=seed), {"seed": seed, "max_length": s.max_length, "step": step}
    made, _ = mipo.make_pairs(
        model, tokenizer, rows, s.negative, Sampling.of(s), at_least=recipe.pairs_per_step, **sizes
    )
    made = pairs.swap_sides(made, seed=seed) if shuffled else made
    result = mipo.train(s.model, model, tokenizer, made, recipe, scoring_batch=s.scoring_batch, step=step)
    return {**result, "pairs": made}


def measured(function, untrained, adapter, start, folder=None, **arguments):
    """`function(policy, **arguments)`: the policy is `untrained`, loaded as `start`, with the adapter in a folder, or the
    untrained model itself where `adapter` is None. A step's `folder` for partial work goes on to a function that takes one."""
    policy = untrained if adapter is None else models.with_adapter(untrained, adapter, start)
    if "folder" in inspect.signature(function).parameters:
        arguments["folder"] = folder
    return function(policy, **arguments)
