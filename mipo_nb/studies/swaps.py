"""What a training moves of what a response tells: who the user is, what the user wishes (notebook 40).

All responses are the untrained model's, to test users. Each is scored under the user's own context and under contexts with
one part exchanged, by the model before a training and after it. What a response tells of a part is the difference of the
two log-probabilities, in nats; after training nothing is sampled.
"""

import numpy as np

from mipo_nb import generation, models, pairs, scoring, sources
from mipo_nb.generation import Sampling
from mipo_nb.lab.ledger import of_users

# What is exchanged to ask for a part, as in `pairs.NEGATIVES`.
PARTS = {
    "wish": "random_wish",
    "person": "random_person",
    "context": "missing_context",
    "both": "random_context",
}
RESPONSE = "response"  # the log-probability of the response itself, under the user's own context
SWAPS_SEED = 4041  # draws whose part is taken; the pairs of a training have ten times its seed


def asked(rows):
    """{view: [n] conversations}: the users' own for `RESPONSE`, first, then for each of PARTS that these rows have the
    same with that part exchanged. They depend on the rows alone."""
    possible = pairs.possible_negatives(rows, seed=SWAPS_SEED)
    swapped = {part: possible[negative] for part, negative in PARTS.items() if negative in possible}
    return {RESPONSE: pairs.positive_conversations(rows), **swapped}


def responses(model, tokenizer, rows, s, *, step):
    """[n] lists of token ids: what a model says to `rows`, context included; an empty list where nothing is left of a
    response that was cut."""
    put = (generation.sample, model, tokenizer, pairs.positive_conversations(rows), Sampling.of(s))
    return [list(ids) for ids in step("responses, draw 0", *put, seed=21)["tokens"]]


def information(model, tokenizer, rows, said, s, *, step):
    """{view: [n], nats}: log p(y|x,c) for `RESPONSE`, and for each part log p(y|x,c) - log p(y|x,c'), where c' is c with
    this part exchanged. `said` are the responses y of `rows`, lists of token ids; NaN where one is empty."""
    put, some = asked(rows), [i for i, ids in enumerate(said) if ids]
    conversations = [conversations[i] for conversations in put.values() for i in some]
    scored = (scoring.log_probabilities, model, tokenizer, conversations, [said[i] for i in some] * len(put))
    log_probs = np.full((len(put), len(rows)), np.nan)
    log_probs[:, some] = step("exchanged contexts", *scored, batch_size=s.scoring_batch).reshape(len(put), -1)
    own, *others = log_probs
    return {RESPONSE: own, **{part: own - other for part, other in zip(list(put)[1:], others, strict=True)}}


def measured_training(model, tokenizer, arm, s, *, seed, step, train):
    """{"views": {"users", and for each view a value for each of them}, "pairs", "margin"}: how far one training of an arm
    moved `information` on the same responses, in nats, means over a user's prompts; of the untrained model (`arm` None)
    "views" alone, and they are the levels.

    `train(model, tokenizer, arm, s, seed=, step=)` gives "adapter", "log" and "pairs", as `arms.trained` does. The margin,
    in nats, is that of the last five steps: how much more the chosen side gained than the rejected one.
    """
    rows = sources.personal_prompts("test", n=s.n_measured, data=s.data, seed=s.seed)
    said = responses(model, tokenizer, rows, s, step=step)
    before = information(model, tokenizer, rows, said, s, step=step)
    if arm is None:
        return {"views": _by_user(before, rows)}
    result = train(model, tokenizer, arm, s, seed=seed, step=step)
    policy = models.with_adapter(model, result["adapter"], s.model)
    after = information(policy, tokenizer, rows, said, s, step=step)
    margin = np.mean([entry["rewards/margins"] / s.beta for entry in result["log"][-5:]])
    moved = {view: after[view] - before[view] for view in before}
    return {"views": _by_user(moved, rows), "pairs": len(result["pairs"]), "margin": round(float(margin), 3)}


def _by_user(views, rows):
    users = list(rows["user_id"])
    return {"users": sorted(set(users)), **{view: of_users(values, users) for view, values in views.items()}}
