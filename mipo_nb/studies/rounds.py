"""Repeating "sample, pair, train": rounds from one model, with every view of each model on the way (notebooks 42, 46).

A round starts from the model that the last one made, a `models.Lineage`. Each sampling, scoring and training is a step of
a run (see `runs.Run.step`), so that what two arms or two notebooks have in common is computed once.
"""

import gc
import math
from dataclasses import dataclass, replace

import numpy as np

from mipo_nb import evaluation, generation, pairs, scoring, training
from mipo_nb.base import embedded
from mipo_nb.models import Lineage
from mipo_nb.training import Recipe, train


@dataclass(frozen=True)
class Arm:
    """How rounds are made: new users and prompts each time or the first ones again; the loss compares with the model as it
    stands or with the untrained one; adapters are merged, one by one, or one is trained on; the learning rate."""

    fresh: bool
    renewed: bool
    merged: bool
    rate: float


class Rounds:
    """Rounds of one run. `groups` are the training rows of each round, `test` the rows that are only measured, of which the
    first `run.settings.n_scored` have their likelihoods scored; `model` is the untrained model."""

    def __init__(self, run, model, tokenizer, groups, test):
        s = run.settings
        self.run, self.model, self.tokenizer, self.groups, self.test = run, model, tokenizer, groups, test
        self.asked = pairs.positive_conversations(test)
        self.few = list(range(min(s.n_scored, len(test))))
        self.recipe = Recipe.of(s, learning_rate=1.0)  # each arm has its own rate
        self.sampling = generation.Sampling(s.temperature, s.top_p, s.top_k, s.max_new_tokens, s.sampling_batch)
        self.encoder = embedded.SentenceEncoder(s.device)
        self.candidates = evaluation.candidate_contexts(test, s.n_candidates, seed=run.seed)

    def respond(self, name, policy, conversations, seed):
        """Response texts of a policy, one per conversation."""
        call = (generation.sample, policy, self.tokenizer, conversations, self.sampling)
        return list(self.run.step(name, *call, seed=seed)["text"])

    def opened(self, lineage):
        """The policy of a lineage; the last one's memory is given back first."""
        gc.collect()
        return lineage.load(**self.recipe.weights)[0] if lineage.adapters else self.model

    def pairs_of(self, rows, policy, reference_policy, seed, also=()):
        """(what the policy says to `also`, pairs from its responses, their log-probabilities under the reference); the last
        is None where there is less than a batch, as when responses are empty or all alike."""
        s = self.run.settings
        own = pairs.positive_conversations(rows)
        other = pairs.negative_conversations(rows, "random_context", seed=seed)
        texts = self.respond("responses", policy, [*also, *own, *other], seed)
        replies, chosen, rejected = np.split(np.array(texts, dtype=object), [len(also), len(also) + len(own)])
        preferred, _ = pairs.build(
            rows, list(chosen), list(rejected), self.tokenizer, negative="random_context", max_length=s.max_length,
            at_least=0,
        )  # fmt: skip
        if len(preferred) < self.recipe.pairs_per_step:
            return list(replies), preferred, None
        call = (training.reference_log_probabilities, reference_policy, self.tokenizer, preferred)
        return list(replies), preferred, self.run.step("reference", *call, batch_size=s.scoring_batch)

    def train(self, name, lineage, preferred, reference, rate, seed):
        """One training from where a lineage stands, kept as it ends; what `training.train` returns."""
        recipe = replace(self.recipe, learning_rate=rate, seed=seed)
        return self.run.step(name, train, lineage, preferred, reference, **vars(recipe))

    def viewed(self, texts):
        """{view: [test rows, or the few that are scored]} of a model's responses: those of `evaluation.views`, "told" is
        log p(y|x,c) and "PMI" log p(y|x,c) - log p(y|x) under the untrained model, in nats."""
        scored = [self.test[i] for i in self.few]
        both = self.run.step(
            "likelihoods", scoring.context_matrix, self.model, self.tokenizer, [row["prompt"] for row in scored],
            [[row["context"], None] for row in scored], [texts[i] for i in self.few],
            batch_size=self.run.settings.scoring_batch,
        )  # fmt: skip
        views = evaluation.views(self.test, texts, self.encoder, self.candidates)
        return {**views, "PMI": both[:, 0] - both[:, 1], "told": both[:, 0]}

    def how_far(self, policy, texts, told):
        """[few]: log-ratio of a policy's own responses to the untrained model, where theirs is `told`; nats."""
        scored = [self.asked[i] for i in self.few], [texts[i] for i in self.few]
        call = (scoring.log_probabilities, policy, self.tokenizer, *scored)
        return self.run.step("own likelihoods", *call, batch_size=self.run.settings.scoring_batch) - told

    def walk(self, name, arm, seed):
        """(views, lineages, training logs) of an `Arm` with one seed, round by round, the untrained model first.

        The log of a round without a batch of pairs is empty: the model stays as it is. The last views have the
        "log-ratio" of `how_far` too, and all their "texts".
        """
        lineage, views, stages, logs = Lineage(self.run.settings.model, merged=arm.merged), [], [], []
        last = len(self.groups)
        for k in range(last + 1):
            policy, draw = self.opened(lineage), self.run.seed + 1000 * seed + k
            if k < last:
                rows, reference_policy = self.groups[k if arm.fresh else 0], policy if arm.renewed else self.model
                said, made, reference = self.pairs_of(rows, policy, reference_policy, draw, self.asked)
            else:
                said = self.respond("responses", policy, self.asked, draw)
            views.append(self.viewed(said) | {"texts": said})
            if k == last:
                views[-1]["log-ratio"] = self.how_far(policy, said, views[-1]["told"])
            stages.append(lineage)
            del policy
            if k < last and reference is None:
                logs.append([])
            elif k < last:
                result = self.train(f"round {k + 1}, {name}, seed {seed}", lineage, made, reference, arm.rate, draw)
                logs.append(result["log"])
                lineage = lineage.then(result["adapter"])
        return views, stages, logs


def best_of(values, n):
    """Array [rows]: expected best of `n` draws without replacement, from all the draws `values` [rows, N] of each row.

    Unbiased for the best of n fresh draws: E = sum_i v_(i) C(i-1, n-1) / C(N, n) over the values in rising order. For
    values 0 and 1 it is pass@n (Chen et al. 2021, arXiv 2107.03374). Raises `ValueError` for n outside 1 to N.
    """
    values = np.sort(np.asarray(values, dtype=float), axis=1)
    size = values.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"The best of {n} cannot be had from {size} draws.")
    weights = np.array([math.comb(i, n - 1) / math.comb(size, n) for i in range(size)])  # of whole numbers of any size
    return values @ weights
