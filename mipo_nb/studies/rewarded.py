"""Trainings on sums that feed on a reward, or on MIPO's pairs: how each is made, and what it did, problem by problem.

Notebook 21 compares them. A training is an arm with a seed, which sets its problems, what is written to them, the
adapter's start and the order. Worked examples and test problems are the same for all.
"""

from dataclasses import asdict, dataclass

import numpy as np

from mipo_nb import generation, mipo, models, pairs, prompts, training
from mipo_nb.engine import checkpoints
from mipo_nb.paper import reasoning as published
from mipo_nb.verifiable import grading, grpo, problems

SYSTEM = "You are a helpful assistant. Solve the problem in a few short steps and end with #### and the number."
PAIRS, CONTROL = "MIPO", "MIPO, sides shuffled"
AS_PUBLISHED = "as published"  # the published reader, one group before an update


@dataclass(frozen=True)
class Arm:
    """A method (a name in `rewards.REWARDS`, `PAIRS`, `CONTROL` or `AS_PUBLISHED`) at a learning rate."""

    method: str
    learning_rate: float


def sheet(s, split, *, n, seed):
    """`n` problems of a split, a list of rows; those of "train" begin behind the worked examples."""
    first = s.n_exemplars if split == "train" else 0
    return list(problems.load(s.task, split, n=first + n, seed=seed))[first:]


def asked(s, rows):
    """The conversations of problems, after worked examples that end in `####` and the answer: so the published reward can
    read what is written."""
    turns = [{"role": "system", "content": SYSTEM}]
    for shown in problems.load(s.task, "train", n=s.n_exemplars, seed=s.seed):
        turns.append({"role": "user", "content": prompts.problem_text(shown)})
        turns.append({"role": "assistant", "content": prompts.worked(shown, published.HASHES)})
    return [[*turns, {"role": "user", "content": prompts.problem_text(row)}] for row in rows]


def sampling(s, greedy=False):
    """How responses are drawn: the likeliest, or from the model's own distribution, uncut and whole, as GRPO draws them."""
    return generation.Sampling(0.0 if greedy else 1.0, 1.0, 0, s.max_new_tokens, s.sampling_batch, "whole")


def preferred(model, tokenizer, s, *, seed, step):
    """MIPO's pairs of one training: responses to its problems, and as rejected ones the same responses, shuffled."""
    rows = sheet(s, "train", n=s.n_train, seed=seed)
    put = asked(s, rows)
    own = step("responses", generation.sample, model, tokenizer, put, generation.Sampling.of(s), seed=seed + 1)
    claims = [grading.read(row, text).value for row, text in zip(rows, own["text"], strict=True)]
    order = pairs.shuffled([None if claim is None else str(claim) for claim in claims], seed=seed)
    sides, sizes = own.to_list(), {"max_length": s.max_length, "at_least": s.batch_size * s.accumulate}
    others = [sides[k] for k in order]
    return pairs.build(rows, sides, others, tokenizer, negative="random_prompt", conversations=put, **sizes)[0]


def trained(model, tokenizer, arm, s, *, seed, step):
    """What `training.train` or `grpo.train` returns: one training of an arm, `s` a run's settings."""
    if arm.method in (PAIRS, CONTROL):
        made = preferred(model, tokenizer, s, seed=seed, step=step)
        made = pairs.swap_sides(made, seed=seed) if arm.method == CONTROL else made
        recipe = training.Recipe.of(s, learning_rate=arm.learning_rate, seed=seed)
        return mipo.train(s.model, model, tokenizer, made, recipe, scoring_batch=s.scoring_batch, step=step)
    rows, alone = sheet(s, "train", n=s.n_train, seed=seed), arm.method == AS_PUBLISHED
    parts = 1 if alone else s.parts
    return step(
        f"GRPO, {arm.method}", grpo.train, s.model, rows, asked(s, rows), reward="published" if alone else arm.method,
        learning_rate=arm.learning_rate, steps=s.steps, group=s.group, batch_size=_in_an_update(arm, s) // parts,
        accumulate=parts, warmup=s.warmup, final_rate=s.final_rate, seed=seed, rank=s.lora_rank,
        max_new_tokens=s.max_new_tokens, **s.weights,
    )  # fmt: skip


def _in_an_update(arm, s):
    return s.group if arm.method == AS_PUBLISHED else s.responses


def written(arm, s):
    """How many responses a training learns from."""
    return s.n_train if arm.method in (PAIRS, CONTROL) else s.steps * _in_an_update(arm, s)


def answered(model, tokenizer, s, split, *, step):
    """{"right": a digit 1 or 0 for each problem, as text, "words": their mean}: a model's likeliest answers."""
    rows = sheet(s, split, n=s.n_dev if split == "dev" else s.n_test, seed=s.seed)
    how = sampling(s, greedy=True)
    texts = list(step("answers", generation.sample, model, tokenizer, asked(s, rows), how, seed=s.seed)["text"])
    graded = grading.graded(rows, texts)
    return {"right": "".join(str(int(right)) for right in graded["right"]), "words": round(graded["words"].mean(), 2)}


def right(line):
    """Array [problems] of 1 and 0: what `answered` kept as text."""
    return np.array([float(digit) for digit in line["right"]])


def measured(model, tokenizer, arm, s, *, seed, split, step):
    """What a line of the ledger keeps: `answered`, and of a training its full steps, and of a reward the share of groups that
    were silent. `arm` None is the untrained model."""
    if arm is None:
        return answered(model, tokenizer, s, split, step=step)
    result = trained(model, tokenizer, arm, s, seed=seed, step=step)
    found = answered(models.with_adapter(model, result["adapter"], s.model), tokenizer, s, split, step=step)
    found["full steps"] = round(checkpoints.full_steps(result["log"], arm.learning_rate), 2)
    if arm.method not in (PAIRS, CONTROL):
        found["silent groups"] = silent(result)
    return found


def silent(result):
    """Share of the groups of a training by reward whose responses all earned the same."""
    return round(float(np.mean([entry["frac_reward_zero_std"] for entry in result["log"]])), 4)


# --- what is kept in results/rewards.jsonl ---

# The numbers of a run under which results may stand side by side.
_ALIKE = (
    "model", "four_bit", "task", "n_exemplars", "n_train", "n_dev", "n_test", "max_new_tokens", "temperature", "top_p", "top_k",
    "max_length", "beta", "warmup", "final_rate", "epochs", "lora_rank", "lora_target", "batch_size", "accumulate", "group",
    "responses", "parts", "steps",
)  # fmt: skip


def key(arm, s, *, seed, split):
    """What one result is kept under (`lab.ledger`), {name: plain value}."""
    made = asdict(arm) if arm else {"method": None, "learning_rate": None}
    return {**made, "seed": seed, "split": split, "sheet": s.seed, **{name: getattr(s, name) for name in _ALIKE}}


def kept(shelf, model, tokenizer, arm, s, *, seeds, split, step=None):
    """{seed: what `measured` gave} of a `lab.ledger.Ledger`, for those of `seeds` that it has. With a `step` those that it
    lacks are computed and added; without one nothing is computed."""
    places = {seed: key(arm, s, seed=seed, split=split) for seed in seeds}
    if step:
        lines = [(place, {"seed": seed}) for seed, place in places.items()]
        how = {"model": model, "tokenizer": tokenizer, "arm": arm, "s": s, "split": split}
        shelf.complete(lines, measured, step=step, **how)
    return {seed: value for seed, place in places.items() if (value := shelf.find(place)) is not None}


def best_rate(method, s, score):
    """(rate, whether the best lies inside, {rate: score} of all tried): along the run's `ladder` from its middle, until the
    rates on both sides of the best were tried. `score(Arm)` is a number, or None where it is not known: then rate is None."""
    scores, best = {}, len(s.ladder) // 2
    while True:
        for rung in range(max(0, best - 1), min(best + 2, len(s.ladder))):
            if rung not in scores:
                scores[rung] = score(Arm(method, s.ladder[rung]))
        if None in scores.values():
            return None, False, {}
        if (top := max(sorted(scores), key=scores.get)) == best:
            tried = {s.ladder[rung]: scores[rung] for rung in sorted(scores)}
            return s.ladder[best], 0 < best < len(s.ladder) - 1, tried
        best = top


def deciding(shelf, model, tokenizer, s, *, step=None):
    """(the untrained model's line, {method: `best_rate`}, {method: {seed: line}}) of the trainings that the settings `s` name,
    as far as the ledger has them; with a `step` those that it lacks are computed first, in the order of `s.kept`.

    The rates of the verifiable reward and of MIPO are chosen by the share of right answers to development problems, over
    trainings by the sweep's seeds. The control takes MIPO's, the other rewards that of the verifiable one.
    """

    def lines(arm, seeds, split):
        return kept(shelf, model, tokenizer, arm, s, seeds=seeds, split=split, step=step)

    def score(arm):
        found = lines(arm, s.sweep_seeds, "dev")
        whole = found and len(found) == len(s.sweep_seeds)
        return float(np.mean([right(line).mean() for line in found.values()])) if whole else None

    chosen, trainings = {method: best_rate(method, s, score) for method in ("verifiable", PAIRS)}, {}
    for group in s.kept:
        for seed in s.kept_seeds:
            for method in group:
                rate = chosen[PAIRS if method in (PAIRS, CONTROL) else "verifiable"][0]
                if rate and (line := lines(Arm(method, rate), [seed], "test")):
                    trainings.setdefault(method, {}).update(line)
    return lines(None, [0], "test").get(0), chosen, trainings
