"""What a model reaches in several draws, before a training and after it (notebook 42).

A wish is reached in k draws where at least one of them keeps it. A training that raises this for one draw and not for many
only says more often what the model said before; one that raises it for many draws has widened what can be had.
"""

from dataclasses import replace

import numpy as np
import torch

from mipo_nb import evaluation, generation, models, pairs, preferences, sources
from mipo_nb.engine.decoding import chances, ends_of
from mipo_nb.generation import Sampling
from mipo_nb.lab.ledger import of_users

VIEWS = ("kept", "for everyone", "for the user")  # as in `evaluation.for_the_user`
HEALTH = ("repetition", "refusal", "empty", "words")


def at_temperature(s, temperature):
    """The settings of a run with another temperature of sampling."""
    return replace(s, numbers={**s.numbers, "temperature": temperature})


def sizes(draws):
    """The numbers of draws that are looked at: 1, 2, 4, and so on up to `draws`."""
    return [2**power for power in range(draws.bit_length())]


def reached(rows, draws, few):
    """{view: array [n]} of one model's responses to `rows`: for each k of `sizes` the VIEWS of the recital-proof wishes of
    which at least one of k draws keeps one, as "kept, best of 4"; "distinct", the different two-word sequences among a
    row's first `few` draws, for more draws repeat more; and HEALTH, means over draws. `draws` are what `sample_draws` returned."""
    matrices = [evaluation.kept_matrix(rows, list(draw["text"])) for draw in draws]
    kinds = matrices[0][0]
    proof = np.array([preferences.proven(kind, rows) for kind in kinds])
    asked = evaluation.asked_matrix(rows, kinds)[:, proof]
    kept = np.stack([matrix[:, proof] for _, matrix in matrices], axis=-1)  # [n, kinds, draws]
    views = {}
    for k in sizes(len(draws)):
        best = evaluation.best_of(kept.reshape(-1, len(draws)), k).reshape(asked.shape)
        views |= {f"{view}, best of {k}": v for view, v in evaluation.for_the_user(asked, best).items()}
    texts = zip(*(list(draw["text"]) for draw in draws[:few]), strict=True)
    views["distinct"] = np.array([evaluation.distinct(of_row) for of_row in texts])
    health = [evaluation.text_health(rows, list(draw["text"])) for draw in draws]
    return views | {name: np.mean([table[name] for table in health], axis=0) for name in HEALTH}


def sample_draws(model, tokenizer, conversations, sampling, *, seeds, folder=None):
    """A list of what `generation.sample` returns for each of `seeds`, up to rounding: several responses to each conversation,
    sooner than one by one, because a conversation is read once for all of them that are drawn in one batch."""
    ids, ends = generation.token_ids(model, tokenizer, conversations, sampling), ends_of(model, tokenizer)
    lots = [(seed, row) for seed in seeds for row in range(len(ids))]

    def respond(numbers, ticks, _):
        drawn = [lots[k] for k in numbers]
        chance = torch.cat([chances(seed, [row], sampling.max_new_tokens) for seed, row in drawn])
        return generation.continued(model, [ids[row] for _, row in drawn], sampling, ends, ticks, chance)

    how = {"seed": seeds[0], "folder": folder}
    responses = generation.in_batches(respond, model, tokenizer, ids * len(seeds), sampling, **how)
    each = [responses[k : k + len(ids)] for k in range(0, len(responses), len(ids))]
    return [generation.at_limit(some, sampling, tokenizer) for some in each]


def measured_training(model, tokenizer, arm, s, *, seed, draws, step, train):
    """{"views": {"users", and for each view of `reached` a value for each test user}}: of one training of an arm, or of the
    untrained model (`arm` None), from so many `draws`. A draw has one seed for all models, so that they share their luck.

    `train(model, tokenizer, arm, s, seed=, step=)` gives "adapter", as `arms.trained` does.
    """
    rows = sources.personal_prompts("test", n=s.n_measured, data=s.data, seed=s.seed)
    policy = model
    if arm is not None:
        adapter = train(model, tokenizer, arm, s, seed=seed, step=step)["adapter"]
        policy = models.with_adapter(model, adapter, s.model)
    put = (sample_draws, policy, tokenizer, pairs.positive_conversations(rows), Sampling.of(s))
    drawn, users = step("responses", *put, seeds=[21 + k for k in range(draws)]), list(rows["user_id"])
    views = {view: of_users(values, users) for view, values in reached(rows, drawn, s.draws).items()}
    return {"views": {"users": sorted(set(users)), **views}}
