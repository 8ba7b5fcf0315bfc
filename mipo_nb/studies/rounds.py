"""Repeating "sample, pair, train" in two worlds, beside GRPO (notebook 41): what falls silent, and what comes of it.

A *walk* is one arm with one seed: rounds on the same few training rows, and after each a look at test rows of its own. It is
the unit of every interval (`walks`). The two worlds, "people" and "sums", share all but the functions that come first here.
"""

import random

import numpy as np

from mipo_nb import evaluation, generation, information, models, pairs, preferences, prompts, scoring, sources, training
from mipo_nb.generation import Sampling
from mipo_nb.training import Recipe
from mipo_nb.verifiable import grading, grpo, problems

ARMS = ("renewed", "control", "kept", "GRPO")
SILENT = 0.05  # of a pair's weight in DPO's gradient: below it a pair teaches next to nothing
SHEETS = 4  # that one shuffle of the rows gives
HEALTH = ("repetition", "empty", "echo", "words")


# --- the two worlds ---


def sheet(world, s, seed):
    """(training rows, test rows), lists: the halves of a sheet, which share no prompt; walks 2k and 2k + 1 exchange them.
    No row is in two sheets of a shuffle. Training takes the first few rows of its half."""
    number, other = divmod(seed, 2)
    shuffle, place = divmod(number, SHEETS)
    few, size = (
        s.n_people if world == "people" else s.n_problems,
        len(sources.own_users("train")),
    )  # no user comes twice
    if world == "people":
        rows = list(sources.personal_prompts("train", n=size, seed=s.seed + shuffle))
    else:
        shown = {row["question"] for row in exemplars(s)}
        rows = [r for r in problems.load(s.task, "train", n=size, seed=s.seed + shuffle + 1) if text(r) not in shown]
    texts = list(dict.fromkeys(map(text, rows)))
    first = set(texts[: len(texts) // 2])
    halves = [[row for row in rows if (text(row) in first) == which] for which in (True, False)]
    own, others = (half[place * s.n_test :][: s.n_test] for half in (halves[::-1] if other else halves))
    return own[:few], others


def text(row):
    """What a row asks."""
    return row["prompt"] if "preferences" in row else row["question"]


def exemplars(s):
    """The worked examples that stand before each sum."""
    return list(problems.load(s.task, "train", n=s.n_exemplars, seed=s.seed))


def asked(world, rows, s):
    """The conversations of rows: with the user's context, or after worked examples."""
    if world == "people":
        return pairs.positive_conversations(rows)
    shown = exemplars(s)
    return [prompts.problem_messages(row, shown) for row in rows]


def against(world, rows, s, *, seed):
    """What the rejected sides are sampled from: another user's context, or another problem, one for each row."""
    if world == "people":
        return pairs.negative_conversations(rows, "random_context", seed=seed)
    rng = random.Random(f"another-{seed}")
    return asked(world, [rng.choice([o for o in rows if text(o) != text(row)]) for row in rows], s)


def credit(world, rows, texts):
    """Array [n], 0 to 1: whether the sum is right; or the share of the user's recital-proof wishes that is kept, NaN for a
    user who has none."""
    if world == "sums":
        return grading.graded(rows, texts)["right"].to_numpy(dtype=float)
    kinds, kept = evaluation.kept_matrix(rows, texts)
    proof = np.array([preferences.proven(kind, rows) for kind in kinds])
    wished = evaluation.asked_matrix(rows, kinds) & proof
    with np.errstate(invalid="ignore"):
        return (wished & kept).sum(1) / wished.sum(1)


def _sampling(world, s):
    return Sampling.of(s, max_new_tokens=s.max_new_tokens if world == "people" else s.problem_tokens)


# --- what is measured ---


def weights(margins, beta):
    """Array: the weight of each pair in DPO's gradient, sigma(-beta margin), of margins in nats: a half where nothing was
    learned of it yet, near 0 where the policy tells the sides apart beyond its reference."""
    return 1 / (1 + np.exp(np.clip(beta * np.asarray(margins, dtype=float), -700, 700)))


def silent(margins, beta):
    """Share of the pairs with a weight below `SILENT`."""
    return round(float((weights(margins, beta) < SILENT).mean()), 4)


def look(policy, tokenizer, world, rows, s, *, seed, step):
    """What a policy does with test rows, as JSON can hold it: lists by row, {"right in one", "right in four" (in as many draws as
    the run has), of the first rows "information" and "apart", in nats, and "repetition", "empty", "echo", "words"}; "said" is
    the first response."""
    many = [row for row in rows for _ in range(s.draws)]
    drawn = (generation.sample, policy, tokenizer, asked(world, many, s), _sampling(world, s))
    texts = list(step("test responses", *drawn, seed=seed)["text"])
    right, few = credit(world, many, texts).reshape(-1, s.draws), rows[: s.n_scored]
    scored = (scoring.log_probabilities, policy, tokenizer, *_candidates(world, few, texts[:: s.draws], s))
    scores = step("own and other prompts", *scored, batch_size=s.scoring_batch).reshape(len(few), -1)
    views = {"right in one": right.mean(1), "right in four": evaluation.best_of(right, s.draws)}
    views["information"] = scores[:, 0] - information.log_marginal(scores)
    views["apart"] = scores[:, 0] - information.log_marginal(scores[:, 1:])
    plain = [row if world == "people" else {"context": text(row), "preferences": []} for row in many]
    health = evaluation.text_health(plain, texts)
    views |= {name: health[name].to_numpy().reshape(-1, s.draws).mean(1) for name in HEALTH}
    listed = {name: [None if np.isnan(v) else round(float(v), 3) for v in values] for name, values in views.items()}
    return {**listed, "said": texts[0]}


def _candidates(world, rows, said, s):
    """(conversations, responses): each response under its own prompt (people: context), then under those of the rows after it."""
    width, n, own = s.n_candidates, len(rows), asked(world, rows, s)
    others = [[(i + j) % n for j in range(width)] for i in range(n)]
    if world == "people":
        put = [prompts.messages(prompts.asked(rows[i]), rows[j]["context"]) for i in range(n) for j in others[i]]
    else:
        put = [own[j] for i in range(n) for j in others[i]]
    return put, [response for response in said[:n] for _ in range(width)]


# --- one walk ---


def walk(model, tokenizer, world, arm, s, *, seed, step):
    """One arm with one seed, as JSON can hold it: {"looks": what `look` gives, first of the untrained model, "rounds": of each
    its "pairs", how many, and "start" and "end", the share that is silent; of GRPO "groups", the share of these; and "right in
    training", of the round's own responses}. A model whose responses make less than a batch of pairs stays as it is."""
    rows, test = sheet(world, s, seed)
    lineage, policy, found = models.Lineage(s.model), model, {"rounds": [], "looks": []}
    for k in range(s.rounds + 1):
        if lineage.adapter:
            policy = models.with_adapter(model, lineage.adapter, s.model)
        found["looks"].append(look(policy, tokenizer, world, test, s, seed=7000 + seed, step=step))
        if k < s.rounds:
            how = {"s": s, "draw": 1000 * (seed + 1) + k, "step": step}
            if arm == "GRPO":
                lineage, told = _rewarded(lineage, world, rows, **how)
            else:
                lineage, told = _preferring(model, policy, lineage, tokenizer, world, arm, rows, **how)
            found["rounds"].append(told)
    return found


def _rewarded(lineage, world, rows, *, s, draw, step):
    """(lineage, what is told of it) after a round of GRPO, on as many responses as MIPO samples for its pairs."""
    tokens, steps = _sampling(world, s).max_new_tokens, 2 * s.n_pairs // s.responses
    result = step(
        "GRPO", grpo.train, lineage, rows, asked(world, rows, s), reward="verifiable", learning_rate=s.reward_rate,
        steps=steps, batch_size=s.responses, group=s.group, max_new_tokens=tokens, warmup=s.warmup, final_rate=s.final_rate,
        seed=draw, rank=s.lora_rank, **s.weights,
    )  # fmt: skip
    told = {"groups": "frac_reward_zero_std", "right in training": "rewards/reward/mean"}
    means = {name: round(float(np.mean([entry[key] for entry in result["log"]])), 4) for name, key in told.items()}
    return lineage.then(result["adapter"]), means


def preferred(policy, tokenizer, world, rows, s, *, seed, step):
    """(pairs, share of the chosen responses that is right): chosen is what the policy says to a row, rejected what it says to
    another one (`against`). A pair whose sides claim the same number would reject what it chooses, and is left out."""
    rows = [rows[i % len(rows)] for i in range(s.n_pairs)]
    put = [*asked(world, rows, s), *against(world, rows, s, seed=seed)]
    drawn = step("responses", generation.sample, policy, tokenizer, put, _sampling(world, s), seed=seed).to_list()
    chosen, rejected = drawn[: len(rows)], drawn[len(rows) :]
    right = round(float(np.nanmean(credit(world, rows, [side["text"] for side in chosen]))), 4)
    if world == "sums":
        for row, one, other in zip(rows, chosen, rejected, strict=True):
            claims = [grading.read(row, side["text"]).value for side in (one, other)]
            if claims[0] is not None and claims[0] == claims[1]:
                other |= {"text": one["text"], "tokens": one["tokens"]}  # `build` leaves out sides of one text
    sizes = {"max_length": s.max_length, "conversations": put[: len(rows)]}
    return pairs.build(rows, chosen, rejected, tokenizer, negative=f"another, {world}", **sizes, at_least=0)[0], right


def _preferring(model, policy, lineage, tokenizer, world, arm, rows, *, s, draw, step):
    """(lineage, what is told of it) after a round of MIPO."""
    made, right = preferred(policy, tokenizer, world, rows, s, seed=draw, step=step)
    told, recipe = {"pairs": len(made), "right in training": right}, Recipe.of(s, seed=draw)
    if len(made) < recipe.pairs_per_step:
        return lineage, {**told, "start": None, "end": None}
    made = pairs.swap_sides(made, seed=draw) if arm == "control" else made

    def scored(of):
        call = (training.reference_log_probabilities, of, tokenizer, made)
        return step("log-probs of the pairs", *call, batch_size=s.scoring_batch)

    before = scored(policy)
    reference = scored(model) if arm == "kept" else before
    result = step("training", training.train, lineage, made, reference, **vars(recipe))
    after = scored(models.with_adapter(model, result["adapter"], s.model))
    for name, of in (("start", before), ("end", after)):
        told[name] = silent((of - reference) @ np.array([1.0, -1.0]), s.beta)
    return lineage.then(result["adapter"]), told
