"""MIPO on one page (Nam, Li and Jaques, arXiv 2603.19294): ask twice, and prefer the answer to what was asked.

For a prompt x and what is known of a user, the context c, the untrained model pi_ref answers twice::

    y+ ~ pi_ref(. | x, c)      the real question of the real user: chosen
    y- ~ pi_ref(. | x, c')     somebody else's context, or none, or another prompt: rejected

and DPO (arXiv 2305.18290) trains a policy pi that starts as pi_ref to prefer y+ to y- when it is asked (x, c)::

    loss = -log sigmoid( beta [ log pi(y+|x,c)/pi_ref(y+|x,c) - log pi(y-|x,c)/pi_ref(y-|x,c) ] )

Its minimum is pi*(y|x,c), proportional to p (p / q)^(1 / beta), where p and q are what y+ and y- are drawn from: answers
become likelier by as much as the context made them, that is by their pointwise mutual information with what was asked
(`information.mipo_optimum`; notebook 03 derives it). No labels, no judge and no new data have a part in it.

Below: `make_pairs`, `train`, and `mipo`, which is both. Each takes `step`, which calls a function by a name: `call` just
does it; the `step` of a run (`lab.runs`) keeps what comes out, and finds it again.
"""

from pathlib import Path

from mipo_nb import generation, models, pairs, training
from mipo_nb.base.errors import UserError
from mipo_nb.engine.arguments import require_layers
from mipo_nb.generation import Sampling
from mipo_nb.training import Recipe


def call(name, function, *args, **kwargs):
    """`function(*args, **kwargs)`; the name is for a run, which keeps a step under it."""
    return function(*args, **kwargs)


def make_pairs(
    model, tokenizer, rows, negative="random_context", sampling=None, *, seed=0, max_length=512, at_least=1, step=call
):
    """Ask twice and pair what belongs together: (pairs, counts) of `pairs.build`.

    `rows` are personal prompts (`sources.personal_prompts`), `negative` one of `pairs.NEGATIVES`, `sampling` a
    `generation.Sampling`, by default its own numbers. Pairs have `prompt` (context included), `chosen` and `rejected` as
    message lists, which any trainer of TRL takes. Raises `UserError` as `pairs.negative_conversations`,
    `pairs.build` does, and before sampling where too few prompts leave room for a response; rows that leave none are
    counted as "over-long".
    """
    sampling = sampling or Sampling()
    sides = pairs.positive_conversations(rows), pairs.negative_conversations(rows, negative, seed=seed)
    sizes = {"max_length": max_length, "window": generation.window_of(model), "response": sampling.max_new_tokens}
    fit = pairs.with_room(tokenizer, *sides, **sizes)
    if len(fit) < at_least:  # which sampling would not mend
        needed = f"{at_least} pairs are needed; raise max_length, shorten contexts, add rows or lower batch_size."
        raise UserError(
            f"{len(fit)} of {len(rows)} prompts have room for a response in {max_length} tokens, and {needed}"
        )
    chosen, rejected = [None] * len(rows), [None] * len(rows)
    names = "chosen responses", f"rejected responses {negative}"
    for k, (name, asked, said) in enumerate(zip(names, sides, (chosen, rejected), strict=True), 1):
        put = (model, tokenizer, [asked[i] for i in fit], sampling)
        for i, response in zip(fit, step(name, generation.sample, *put, seed=seed + k), strict=True):
            said[i] = response
    return pairs.build(rows, chosen, rejected, tokenizer, negative=negative, max_length=max_length, at_least=at_least)


def train(
    start, reference_model, tokenizer, preferred, recipe, *, held_out=None, folder=None, report_to="none",
    scoring_batch=16, step=call,
):  # fmt: skip
    """Prefer what was asked: DPO on the pairs `preferred`. Returns what `training.train` returns, "adapter" first.

    `start` is the name of a model or a `models.Lineage`; the loss compares with `reference_model`, as a rule the same one
    untrained. With a `recipe` for all weights (`rank` 0) the trainer scores the reference itself. `held_out` are pairs
    that the training looks at and does not learn from. Raises `UserError` as `training.train` does.
    """

    def reference(name, pairs):
        scored = (training.reference_log_probabilities, reference_model, tokenizer, pairs)
        return step(name, *scored, batch_size=scoring_batch) if recipe.rank else None

    watched = (held_out, reference("held-out reference", held_out)) if held_out and recipe.evaluate_every else None
    learned = (training.train, start, preferred, reference("reference log-probs", preferred))
    return step("training", *learned, folder=folder, held_out=watched, report_to=report_to, **vars(recipe))


def mipo(
    model, rows, recipe, *, folder=None, held_out=None, negative="random_context", sampling=None, report_to="none",
    scoring_batch=16, step=call,
):  # fmt: skip
    """From rows of personal prompts to an adapter: {"adapter": its folder, "log", "pairs", "counts", ...}.

    `model` is the name of one (`models.load`), `recipe` a `Recipe`, `held_out` rows of other users for its
    `evaluate_every` and `patience`; see `make_pairs` and `train`. The adapter lies in `folder`, which must be new or empty,
    or with the `step` of a run in that step's folder. Raises `UserError` as these two do, and for a folder that has
    something in it.
    """
    if step is call:
        if folder is None or (Path(folder).exists() and any(Path(folder).iterdir())):
            raise UserError(f"The adapter needs a folder that is new or empty, not {folder}; name another one.")
        Path(folder).mkdir(parents=True, exist_ok=True)
    untrained, tokenizer = models.load(model, **recipe.weights)
    require_layers(recipe, untrained)
    made = {"seed": recipe.seed, "max_length": recipe.max_length, "step": step}
    asked = (untrained, tokenizer, rows, negative, sampling)
    preferred, counts = make_pairs(*asked, at_least=recipe.pairs_per_step, **made)
    if held_out is not None:
        held_out, _ = make_pairs(untrained, tokenizer, held_out, negative, sampling, **made)
    options = {"folder": folder, "report_to": report_to, "scoring_batch": scoring_batch, "step": step}
    result = train(model, untrained, tokenizer, preferred, recipe, held_out=held_out, **options)
    return {**result, "pairs": preferred, "held_out_pairs": held_out, "counts": counts}


__all__ = ["Recipe", "Sampling", "call", "make_pairs", "mipo", "train"]
