"""Arms of the main job: ways to make pairs and train on them, and what each training did, user by user.

Notebook 14 compares arms on development users; notebook 12 measures the chosen one on test users. A training is one arm
with one seed, which sets the samples of its pairs, the adapter's start and the order of the pairs.
"""

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from operator import itemgetter

import numpy as np

from mipo_nb import evaluation, generation, mipo, models, pairs, prompts, scoring, sources, training
from mipo_nb.engine.checkpoints import full_steps
from mipo_nb.generation import Sampling
from mipo_nb.lab.ledger import measure, moved, of_users, unlike
from mipo_nb.training import Recipe


@dataclass(frozen=True)
class Arm:
    """One way to train: `negative` as in `pairs.NEGATIVES`, pairs in all, and passes over them. With 0 pairs nothing is
    trained, and the method says how the model is asked.

    `restraint`: share of the pairs that teach where a user's context must not act, see `restraining_pairs`. `draws`:
    responses a side, of which the chosen one says most, the rejected one least, about the user's own wish (`selected`).
    `at_limit`: what is left of a response that was cut, as in `generation.Sampling`, None as the run has it.
    `shuffled`: the control, whose sides are exchanged in a random half of the pairs (`pairs.swap_sides`). `method`: a loss
    of TRL's (`training.Recipe`), or what a notebook brings along (`measured_training`); `beta`: its own, None as the run has it.
    """

    negative: str
    learning_rate: float
    pairs: int = 256
    epochs: float = 2
    restraint: float = 0.0
    draws: int = 1
    at_limit: str | None = None
    shuffled: bool = False
    method: str = "sigmoid"
    beta: float | None = None

    @property
    def label(self):
        """The arm in a few words: "random_context 4e-04, 256 pairs x 2, a quarter restraint"."""
        extras = {
            f"{self.restraint:.0%} restraint": self.restraint,
            f"best of {self.draws}": self.draws > 1,
            f"cut responses: {self.at_limit}": self.at_limit,
            "sides shuffled": self.shuffled,
            self.method: self.method != "sigmoid",
            f"β {self.beta or 0:g}": self.beta is not None,
        }
        size = f"{self.negative} {self.learning_rate:.0e}, {self.pairs} pairs x {self.epochs:g}"
        size = size if self.pairs else self.negative
        return ", ".join([size, *(text for text, holds in extras.items() if holds)])


def control_of(arm):
    """The same arm with the sides of a random half of its pairs exchanged: as many steps on the same texts, and nothing
    to learn."""
    return replace(arm, shuffled=True)


# The numbers of a run under which results may stand side by side.
_ALIKE = (
    "model", "four_bit", "system", "with_context", "max_new_tokens", "at_limit", "temperature", "top_p", "top_k", "max_length",
    "beta", "warmup", "final_rate", "lora_rank", "lora_target", "batch_size", "accumulate",
)  # fmt: skip
_IN_KEY = {"at_limit": "arm's at_limit", "beta": "arm's beta"}  # beside the run's own numbers of these names
_LATER = {"method": "sigmoid", "beta": None}  # came after the first lines: so they stand in a key where they differ


def key(arm, s, *, seed, split, draws):
    """What a training's result on one split is kept under (`lab.ledger`), {name: plain value}; `arm` None is the untrained
    model."""
    numbers = {name: getattr(s, name) for name in (*_ALIKE, "n_measured", "n_others")}
    made = asdict(arm) if arm else {"negative": None}
    made = {_IN_KEY.get(n, n): value for n, value in made.items() if n not in _LATER or value != _LATER[n]}
    return {**made, "seed": seed, "split": split, "draws measured": draws, **numbers}


def arm_of(key):
    """The arm of a training's `key`."""
    return Arm(**(_LATER | {n: key[k] for n in (f.name for f in fields(Arm)) if (k := _IN_KEY.get(n, n)) in key}))


def kept(shelf, model, tokenizer, wanted, s, split, *, step, methods=None, among=None):
    """`of_ledger`, after what the ledger lacks of `wanted`, [(arm, seed)], is computed and added (`Ledger.complete`): trainings
    drawn twice, before them the untrained model four times. `methods` as in `measured_training`."""
    trainings = [{"arm": arm, "seed": seed, "draws": [0, 1]} for arm, seed in wanted]
    what = [{"arm": None, "seed": 0, "draws": [0, 1, 2, 3]}, *trainings] if wanted and s.data == sources.OWN else []
    lines = [(key(some["arm"], s, seed=some["seed"], split=split, draws=len(some["draws"])), some) for some in what]
    how = {"model": model, "tokenizer": tokenizer, "s": s, "split": split, "step": step, "methods": methods}
    shelf.complete(lines, measured_training, **how)
    return of_ledger(shelf, s, split, among=among)


def of_ledger(shelf, s, split, *, among=None):
    """(views of the untrained model, {Arm: [views of each training and its "seed", in their order]}) of a ledger's lines under
    this run's numbers and on the same users, of the arms `among` alone where given; (None, {}) without any, or for users not
    the project's own. Gains are over the untrained model measured alike (`lab.ledger.moved`); what was not is told."""
    alike = {"split": split, **{name: getattr(s, name) for name in _ALIKE}}
    lines = [line for line in shelf.lines if line["key"].items() >= alike.items()] if s.data == sources.OWN else []
    bases = [line for line in lines if line["key"]["negative"] is None]
    trainings = [line for line in lines if (k := line["key"])["negative"] and (among is None or arm_of(k) in among)]
    if told := unlike(trainings):
        print(told)
    untrained, found = {measure(line): line["value"]["views"] for line in bases}, {}
    base = untrained[next(how for how in untrained if how[0] == bases[-1].get("rules"))] if bases else None
    for line in trainings if base else ():
        views, key = line["value"]["views"], line["key"]
        if views["users"] == base["users"]:
            own = moved(views, untrained.get(measure(line), base), base)
            found.setdefault(arm_of(key), []).append({"seed": key["seed"], **own})
    return base, {arm: sorted(some, key=itemgetter("seed")) for arm, some in found.items()}


def preferred(model, tokenizer, arm, s, *, seed, step):
    """The pairs of one training of an arm, a `datasets.Dataset`; `s` are a run's settings."""
    from datasets import concatenate_datasets

    n_restraint, sampling = round(arm.pairs * arm.restraint), Sampling.of(s)
    if arm.at_limit:
        sampling = replace(sampling, at_limit=arm.at_limit)
    rows = sources.personal_prompts("train", n=arm.pairs - n_restraint, data=s.data, seed=seed)
    if arm.draws > 1:
        found = selected(model, tokenizer, rows, arm, sampling, s, seed=seed, step=step)
    else:
        sizes = {"seed": 10 * seed, "max_length": s.max_length, "step": step}
        found, _ = mipo.make_pairs(model, tokenizer, rows, arm.negative, sampling, **sizes)
    if arm.method != "sigmoid":
        found = with_rows(found, rows, pairs.negative_conversations(rows, arm.negative, seed=10 * seed))
    if n_restraint:
        more = restraining_pairs(model, tokenizer, n_restraint, sampling, s.max_length, seed=seed, step=step)
        found = concatenate_datasets([found, more])
    return pairs.swap_sides(found, seed=seed) if arm.shuffled else found


def with_rows(found, rows, conversations):
    """Pairs with what other methods read of the `rows` that they were made from: the user's `context`, and `other`, the
    conversation that the rejected side was sampled from. `conversations` are those of all rows."""
    numbers = [int(pair_id.rpartition("-")[2]) for pair_id in found["pair_id"]]
    found = found.add_column("context", [rows[k]["context"] for k in numbers])
    return found.add_column("other", [conversations[k] for k in numbers])


def restraining_pairs(model, tokenizer, n, sampling, max_length, *, seed, step):
    """Pairs that teach where a user's context must not act, on the project's training prompts for others.

    The prompt has the user's context; chosen is what the model says without it, rejected what it says with it: the
    sides of `missing_context` exchanged, so that what the context does to the response becomes less likely there.
    """
    rows = sources.prompts_for_others("train", n=n, seed=seed)
    without = pairs.negative_conversations(rows, "missing_context")
    asked = {"with": pairs.positive_conversations(rows), "without": without}
    said = {
        name: step(f"restraint, {name} context", generation.sample, model, tokenizer, put, sampling, seed=10 * seed + k)
        for k, (name, put) in enumerate(asked.items(), 3)
    }
    return pairs.build(rows, said["without"], said["with"], tokenizer, negative="restraint", max_length=max_length)[0]


def selected(model, tokenizer, rows, arm, sampling, s, *, seed, step):
    """Pairs of the best and worst of `arm.draws` responses a side, by log p(y|x,b,w) - log p(y|x,b): what a response says
    about the user's own wish w beyond the biography b, in nats, without any label."""
    asked = {"chosen": pairs.positive_conversations(rows)}
    asked["rejected"] = pairs.negative_conversations(rows, arm.negative, seed=10 * seed)
    kept = {}
    for side, best, first in (("chosen", np.argmax, 1), ("rejected", np.argmin, 101)):
        seeds = [1000 * seed + k for k in range(first, first + arm.draws)]
        put = (generation.sample_draws, model, tokenizer, asked[side], sampling)
        drawn = step(f"{side} responses", *put, seeds=seeds)
        told = rows["context"], rows["biography"]
        log_probs = [
            [scoring.context_matrix(model, tokenizer, list(map(prompts.asked, rows)), [[c] for c in contexts], list(draw["text"]), batch_size=s.scoring_batch)[:, 0] for contexts in told]
            for draw in drawn
        ]  # fmt: skip
        nats = np.array([with_wish - without for with_wish, without in log_probs])
        kept[side] = [drawn[k][i] for i, k in enumerate(best(nats, axis=0))]
    return pairs.build(rows, *kept.values(), tokenizer, negative=arm.negative, max_length=s.max_length)[0]


def trained(model, tokenizer, arm, s, *, seed, step, methods=None):
    """What `training.train` returns for one training of an arm, with its "pairs"; `methods` as in `measured_training`."""
    data, train = preferred(model, tokenizer, arm, s, seed=seed, step=step), (methods or {}).get(arm.method, mipo.train)
    own = {"loss": arm.method, "beta": s.beta if arm.beta is None else arm.beta}
    recipe = Recipe.of(s, learning_rate=arm.learning_rate, epochs=arm.epochs, seed=seed, **own)
    return {**train(s.model, model, tokenizer, data, recipe, scoring_batch=s.scoring_batch, step=step), "pairs": data}


def people(split, s):
    """(rows of the split's open prompts, rows of prompts for others or None) that a run measures."""
    rows = sources.personal_prompts(split, n=s.n_measured, data=s.data, seed=s.seed)
    return rows, sources.prompts_for_others(split, n=s.n_others, data=s.data, seed=s.seed)


def answers(model, tokenizer, rows, s, *, draws, step, first=21, ask=None):
    """What a model says to `rows`, context included: a list of what `generation.sample` returns, one for each of the
    numbers `draws`. A draw has one seed for all models and each row its own random numbers: models share their luck.
    `ask(model, tokenizer, rows, s)` gives another function to call with seeds, and its arguments before them."""
    plain = (generation.sample_draws, model, tokenizer, pairs.positive_conversations(rows), Sampling.of(s))
    put = ask(model, tokenizer, rows, s) if ask else plain
    return step("responses", *put, seeds=[first + k for k in draws])


def measured(model, tokenizer, split, s, *, draws, step, ask=None):
    """{view: list, a value for each user of `split`, in the order of "users"}: what one model does, over the numbers
    `draws`. The views of `evaluation.measured` on the split's open prompts, and "misapplied" on prompts for others."""
    rows, others = people(split, s)
    found, how = {"users": sorted(set(rows["user_id"]))}, {"draws": draws, "step": step, "ask": ask}
    for view, values in evaluation.measured(rows, answers(model, tokenizer, rows, s, **how)).items():
        found[view] = of_users(values, rows["user_id"])
    if others is not None:
        said = answers(model, tokenizer, others, s, first=31, **how)
        misapplied = np.mean([evaluation.misapplied(others, list(draw["text"])) for draw in said], axis=0)
        found["misapplied"] = of_users(misapplied, others["user_id"])
    return found


def measured_training(model, tokenizer, arm, s, *, seed, split, draws, step, methods=None):
    """{"views": as in `measured`, "pairs": how many, "full steps", and for DPO "margin" of the last steps in nats}: one
    training, measured; where nothing is trained (`arm` None, or of 0 pairs) the views alone. `methods` {name: function}
    are those beyond TRL's losses: called like `mipo.train`, or with 0 pairs with the arm, then as `answers` says."""
    if arm is None or not arm.pairs:
        ask = partial(methods[arm.method], arm) if arm else None
        return {"views": measured(model, tokenizer, split, s, draws=draws, step=step, ask=ask)}
    result = trained(model, tokenizer, arm, s, seed=seed, step=step, methods=methods)
    policy = models.with_adapter(model, result["adapter"], s.model)
    views = measured(policy, tokenizer, split, s, draws=draws, step=step)
    steps = round(full_steps(result["log"], arm.learning_rate), 2)
    margins = [entry["rewards/margins"] / s.beta for entry in result["log"][-5:] if arm.method == "sigmoid"]
    margin = {"margin": round(float(np.mean(margins)), 3)} if margins else {}
    return {"views": views, "pairs": len(result["pairs"]), "full steps": steps, **margin}


def on_held_out_pairs(model, policy, tokenizer, arm, s, *, seed, step):
    """(margins [n], users [n]) in nats on pairs of development users, made as the arm makes them: how much more training
    raised the chosen side than the rejected one. Needs no rule: above 0 in half of the pairs where nothing was learned."""
    rows = sources.personal_prompts("dev", n=s.n_held_out, data=s.data, seed=seed)
    sizes = {"seed": seed + 10, "max_length": s.max_length, "step": step}
    data, _ = mipo.make_pairs(model, tokenizer, rows, arm.negative, Sampling.of(s), **sizes)
    before, after = (
        step("held-out log-probs", training.reference_log_probabilities, m, tokenizer, data, batch_size=s.scoring_batch)
        for m in (model, policy)
    )
    return (after - before) @ np.array([1.0, -1.0]), list(data["user_id"])
