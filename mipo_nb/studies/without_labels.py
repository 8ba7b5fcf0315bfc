"""Problems without labels (notebook 13): pairs of a problem's own response and another problem's, and what a training on
them did, problem by problem.

A training's seed draws its problems, their responses, the adapter's start and the order of the pairs. The worked examples
before each problem and the test problems are the same for all.
"""

from dataclasses import asdict, dataclass

import numpy as np

from mipo_nb import generation, mipo, models, pairs, prompts, scoring
from mipo_nb.generation import Sampling
from mipo_nb.training import Recipe
from mipo_nb.verifiable import answers, corruptions, grading, problems


@dataclass(frozen=True)
class Arm:
    """One way to train on problems of a `task`: at a `learning_rate`, None for the untrained model. `shuffled` is the
    control, whose sides are exchanged in a random half of the pairs (`pairs.swap_sides`)."""

    task: str
    learning_rate: float | None = None
    shuffled: bool = False


# --- problems ---

TEST_SEED = 13  # draws the test problems; no choice was made on these


def examples(task, s):
    """The worked examples of a task; none where its data have no solutions."""
    return [row for row in problems.load(task, "train", n=s.n_exemplars) if row["solution"]]


def practice(task, s, seed):
    """The problems of one training: `s.n_pairs` of the task's training rows, none of them a worked example."""
    rows = problems.load(task, "train", n=s.n_pairs + s.n_exemplars, seed=1 + seed)
    shown = {row["question"] for row in examples(task, s)}
    return [row for row in rows if row["question"] not in shown][: s.n_pairs]


def tested(task, s):
    """The test problems of a task, as many as the run's numbers say."""
    return list(problems.load(task, "test", n=_size(task, s), seed=TEST_SEED))


def _size(task, s):
    return s.n_test if task == s.task else dict(s.real)[task]


def asked(rows, s):
    """The conversations of problems of one task, each after the worked examples."""
    shown = examples(rows[0]["task"], s)
    return [prompts.problem_messages(row, shown) for row in rows]


# --- one training ---


def random_prompt_pairs(model, tokenizer, task, s, *, seed, step):
    """(problems, their own responses, pairs): chosen is a problem's own response, rejected that of another problem, none
    of which claims the same answer. What is right has no part in it."""
    rows = practice(task, s, seed)
    own = step("responses", generation.sample, model, tokenizer, asked(rows, s), Sampling.of(s), seed=seed)
    claims = [grading.read(row, text).value for row, text in zip(rows, own["text"], strict=True)]
    order = pairs.shuffled([None if claim is None else str(claim) for claim in claims], seed=seed)
    made, _ = pairs.build(
        rows, own, [own[k] for k in order], tokenizer, negative="random_prompt", max_length=s.max_length,
        at_least=s.batch_size * s.accumulate, conversations=asked(rows, s),
    )  # fmt: skip
    return rows, own, made


def trained(model, tokenizer, arm, s, *, seed, step):
    """What `training.train` returns for one training of an arm, with its "pairs"."""
    data = random_prompt_pairs(model, tokenizer, arm.task, s, seed=seed, step=step)[2]
    data = pairs.swap_sides(data, seed=seed) if arm.shuffled else data
    recipe = Recipe.of(s, learning_rate=arm.learning_rate, seed=seed)
    learned = mipo.train(s.model, model, tokenizer, data, recipe, scoring_batch=s.scoring_batch // 2, step=step)
    return {**learned, "pairs": data}


def told_apart(log, beta):
    """{"margin" in nats, "told apart", a share} over the last quarter of a training's steps. With one epoch a batch is new
    when its loss is computed."""
    last = log[-max(1, len(log) // 4) :]
    means = {name: float(np.mean([entry[f"rewards/{name}"] for entry in last])) for name in ("margins", "accuracies")}
    return {"margin": round(means["margins"] / beta, 3), "told apart": round(means["accuracies"], 3)}


# --- what a model does ---


def measured(policy, tokenizer, task, s, *, step):
    """What a model does with the test problems of a task, as JSON can hold it.

    "answers": a digit for each problem, the place in `answers.KINDS` of what becomes of the likeliest response (0 is
    right). For stories also "drawn", the same of sampled responses to the first `s.n_drawn`, and "links", log-odds in nats
    of the right solutions of the first `s.n_links` against each corrupted one (`corruptions`). For multiple choice only
    "picked": 1 where the likeliest option is the right one.
    """
    rows = tested(task, s)
    if rows[0]["letters"]:
        scores = step(
            "options, cloze", grading.option_scores, policy, tokenizer, rows, "cloze", batch_size=s.scoring_batch
        )
        return {"picked": "".join(str(int(credit == 1)) for credit in grading.picked(rows, scores, "likelihood"))}
    found = {"answers": _kinds(policy, tokenizer, rows, s, Sampling.of(s, temperature=0.0), step)}
    if task in problems.STORIES:
        found["drawn"] = _kinds(policy, tokenizer, rows[: s.n_drawn], s, Sampling.of(s), step)
        log_odds = link_log_odds(policy, tokenizer, rows[: s.n_links], s, step=step)
        found["links"] = {link: np.round(values, 3).tolist() for link, values in log_odds.items()}
    return found


def _kinds(policy, tokenizer, rows, s, how, step):
    said = step("answers", generation.sample, policy, tokenizer, asked(rows, s), how, seed=31)["text"]
    return "".join(str(answers.KINDS.index(kind)) for kind in grading.graded(rows, said)["kind"])


def link_log_odds(policy, tokenizer, rows, s, *, step):
    """{link: [n]}: log p(right solution) - log p(the same with this link broken), in nats, after the worked examples."""
    names = ("right", *corruptions.LINKS)
    texts = [each[name] for each in corruptions.broken(rows) for name in names]
    conversations = [conversation for conversation in asked(rows, s) for _ in names]
    scored = (scoring.log_probabilities, policy, tokenizer, conversations, texts)
    right, *rest = step("links", *scored, batch_size=s.scoring_batch).reshape(len(rows), -1).T
    return {link: right - other for link, other in zip(corruptions.LINKS, rest, strict=True)}


VIEWS = ("right", "on topic", "right when drawn", *corruptions.LINKS)


def view(value, name):
    """Array [n]: a view of what `measured` gives, 1 or 0 for each problem, or nats for a link."""
    if name in corruptions.LINKS:
        return np.array(value["links"][name])
    if "picked" in value:
        return np.array(list(value["picked"])) == "1"
    kinds = np.array(list(value["drawn" if name == "right when drawn" else "answers"]), dtype=int)
    return kinds != answers.KINDS.index("off-topic") if name == "on topic" else kinds == answers.KINDS.index("right")


def gains(base, trainings, name):
    """Array [trainings, problems]: the change of a view against the untrained model; shares from -1 to 1, links in nats."""
    return np.array([view(each, name) for each in trainings], dtype=float) - view(base, name)


# --- trainings that are kept ---

# The numbers of a run under which results may stand side by side.
_ALIKE = (
    "model", "four_bit", "max_new_tokens", "at_limit", "temperature", "top_p", "top_k", "max_length", "beta", "epochs",
    "warmup", "final_rate", "lora_rank", "lora_target", "batch_size", "accumulate", "n_exemplars", "n_pairs",
)  # fmt: skip


def key(arm, s, *, seed):
    """What a training's result is kept under (`lab.ledger`), {name: plain value}."""
    sizes = {
        "n_test": _size(arm.task, s),
        "n_drawn": s.n_drawn,
        "n_links": s.n_links,
    }
    negative = None if arm.learning_rate is None else "random_prompt"
    return {"negative": negative, **asdict(arm), "seed": seed, **sizes, **{name: getattr(s, name) for name in _ALIKE}}


def measured_training(model, tokenizer, arm, s, *, seed, step):
    """What `measured` gives after one training of an arm, with what `told_apart` says of it; of the untrained model the
    former alone."""
    if arm.learning_rate is None:
        return measured(model, tokenizer, arm.task, s, step=step)
    result = trained(model, tokenizer, arm, s, seed=seed, step=step)
    policy = models.with_adapter(model, result["adapter"], s.model)
    return {**measured(policy, tokenizer, arm.task, s, step=step), **told_apart(result["log"], s.beta)}


def kept(shelf, model, tokenizer, wanted, s, *, step):
    """`of_ledger`, after what a `lab.ledger.Ledger` lacks of `wanted`, [(arm, seed)], is computed and added to it, a line
    for each training, with the untrained model of each task first."""
    untrained = dict.fromkeys((Arm(arm.task), 0) for arm, _ in wanted)
    lines = [(key(arm, s, seed=seed), {"arm": arm, "seed": seed}) for arm, seed in [*untrained, *wanted]]
    shelf.complete(lines, measured_training, model=model, tokenizer=tokenizer, s=s, step=step)
    return of_ledger(shelf, s)


def of_ledger(shelf, s):
    """{task: (what the untrained model did, {Arm: [what each training did, and its "seed", in their order]})}: the lines of a ledger under this
    run's numbers, on the same test problems as the untrained model's last line."""
    alike = {name: getattr(s, name) for name in _ALIKE}
    lines = [(line["key"], line["value"]) for line in shelf.lines if line["key"].items() >= alike.items()]
    bases = {k["task"]: (k, value) for k, value in lines if k["negative"] is None}
    found = {task: (value, {}) for task, (_, value) in bases.items()}
    for k, value in sorted(lines, key=lambda line: line[0]["seed"]):
        base = bases.get(k["task"], ({}, None))[0]
        if k["negative"] and all(k[name] == base.get(name) for name in ("n_test", "n_drawn", "n_links")):
            arm = Arm(k["task"], k["learning_rate"], k["shuffled"])
            found[k["task"]][1].setdefault(arm, []).append({**value, "seed": k["seed"]})
    return found
