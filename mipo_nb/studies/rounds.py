"""Repeating "sample, pair, train": rounds from one model, with every view of each model on the way (notebooks 42, 46).

A round starts from the model of the round before, a `models.Lineage`. Each sampling, scoring and training is a step of
a run (see `runs.Run.step`), so that what two arms or two notebooks have in common is computed once.
"""

import gc
from dataclasses import dataclass, replace

from mipo_nb import evaluation, generation, pairs, scoring, training
from mipo_nb.base import embedded
from mipo_nb.models import Lineage
from mipo_nb.training import Recipe, train


@dataclass(frozen=True)
class Arm:
    """How rounds are made: new users and prompts each time or the first again; the loss compares with the model as it
    is or with the untrained one; adapters are merged, one after another, or one is trained on; the learning rate."""

    fresh: bool
    renewed: bool
    merged: bool
    rate: float


class Rounds:
    """Rounds of one run. `groups` are the training rows of each round, `test` the rows that are only measured; the
    first `run.settings.n_scored` of these have their likelihoods scored. `model` is the untrained model."""

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
        """The policy of a lineage; the memory of the last policy is given back first."""
        gc.collect()
        return lineage.load(**self.recipe.weights)[0] if lineage.adapters else self.model

    def pairs_of(self, rows, policy, reference_policy, seed, also=()):
        """(the policy's responses to `also`, pairs from its responses to `rows`, their log-probs, in nats, under the
        reference); the last is None where there is less than a batch, as when responses are empty or all alike."""
        s, negative, n = self.run.settings, "random_context", len(also)
        positives = pairs.positive_conversations(rows)
        negatives = pairs.negative_conversations(rows, negative, seed=seed)
        texts = self.respond("responses", policy, [*also, *positives, *negatives], seed)
        replies, chosen, rejected = texts[:n], texts[n : n + len(rows)], texts[n + len(rows) :]
        limits = {"max_length": s.max_length, "at_least": 0}
        preferred, _ = pairs.build(rows, chosen, rejected, self.tokenizer, negative=negative, **limits)
        if len(preferred) < self.recipe.pairs_per_step:
            return replies, preferred, None
        call = (training.reference_log_probabilities, reference_policy, self.tokenizer, preferred)
        return replies, preferred, self.run.step("reference", *call, batch_size=s.scoring_batch)

    def train(self, name, lineage, preferred, reference, rate, seed):
        """One training on from a lineage, a step of the run; what `training.train` returns."""
        recipe = replace(self.recipe, learning_rate=rate, seed=seed)
        return self.run.step(name, train, lineage, preferred, reference, **vars(recipe))

    def viewed(self, texts):
        """{view: [test rows, or the few that are scored]} of a model's responses: those of `_views`, "told"
        is log p(y|x,c) and "PMI" log p(y|x,c) - log p(y|x) under the untrained model, in nats."""
        rows, responses = [self.test[i] for i in self.few], [texts[i] for i in self.few]
        conversations = [row["prompt"] for row in rows], [[row["context"], None] for row in rows]
        call = (scoring.context_matrix, self.model, self.tokenizer, *conversations, responses)
        told, untold = self.run.step("likelihoods", *call, batch_size=self.run.settings.scoring_batch).T
        views = _views(self.test, texts, self.encoder, self.candidates)
        return {**views, "PMI": told - untold, "told": told}

    def how_far(self, policy, texts, told):
        """[few]: log-ratio, in nats, of a policy to the untrained model, whose log-probs are `told`, on its texts."""
        conversations, responses = [self.asked[i] for i in self.few], [texts[i] for i in self.few]
        call = (scoring.log_probabilities, policy, self.tokenizer, conversations, responses)
        return self.run.step("own likelihoods", *call, batch_size=self.run.settings.scoring_batch) - told

    def walk(self, name, arm, seed):
        """(views, lineages, training logs) of an `Arm` with one seed, round by round, the untrained model first. The
        log of a round without a batch of pairs is empty: the model stays as it is. The last views have the "log-ratio"
        of `how_far` too, and all their "texts"."""
        lineage, views, stages, logs = Lineage(self.run.settings.model, merged=arm.merged), [], [], []
        for k in range(len(self.groups)):
            policy, draw = self.opened(lineage), self.run.seed + 1000 * seed + k
            sources = self.groups[k if arm.fresh else 0], policy, policy if arm.renewed else self.model
            texts, preferred, reference = self.pairs_of(*sources, draw, self.asked)
            views.append({**self.viewed(texts), "texts": texts})
            stages.append(lineage)
            logs.append([])
            del policy, sources  # before the training, which loads a model of its own
            if reference is not None:
                result = self.train(
                    f"round {k + 1}, {name}, seed {seed}", lineage, preferred, reference, arm.rate, draw
                )
                logs[-1], lineage = result["log"], lineage.then(result["adapter"])
        policy = self.opened(lineage)
        texts = self.respond("responses", policy, self.asked, self.run.seed + 1000 * seed + len(self.groups))
        views.append({**self.viewed(texts), "texts": texts})
        views[-1]["log-ratio"] = self.how_far(policy, texts, views[-1]["told"])
        return views, [*stages, lineage], logs


def _views(rows, responses, encoder, candidates):
    """{view: array [n]} of one model's responses, without likelihoods: "kept", "identified" (AUC among the `candidates`
    of `candidate_contexts`), "repetition", "refusal", "echo", and "words", NaN where the user asked for few."""
    health = evaluation.text_health(rows, responses)
    return {
        "kept": evaluation.preferences_kept(rows, responses),
        "identified": evaluation.identification(evaluation.identify_by_encoder(encoder, responses, candidates))["auc"],
        "words": health["words"].where(~health["asked_short"]).to_numpy(),
        **{view: health[view].to_numpy() for view in ("repetition", "refusal", "echo")},
    }
