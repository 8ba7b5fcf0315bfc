"""Several rounds of MIPO from one model, with every view of each model on the way: what notebooks 42 and 46 repeat.

`rounds` has the parts (which weights, one training); here they are put one after the other. Each sampling, scoring and
training is a step of a run (see `runs.Run.step`), so that what two arms or two notebooks have in common is computed once.
"""

import gc
from dataclasses import dataclass

import numpy as np

from mipo_nb import embedded, evaluation, generation, pairs, rounds, scoring, training


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
        self.load = {"device": s.device, "dtype": s.dtype, "four_bit": s.four_bit}
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
        return lineage.load(**self.load)[0] if lineage.adapters else self.model

    def pairs_of(self, rows, policy, reference_policy, seed, also=()):
        """(what the policy says to `also`, pairs from its responses, their log-probabilities under the reference); the last
        is None where there is less than a batch, as when responses are empty or all alike."""
        s = self.run.settings
        told = pairs.positive_conversations(rows)
        other = pairs.negative_conversations(rows, "random_context", seed=seed)
        texts = self.respond("responses", policy, [*also, *told, *other], seed)
        said, chosen, rejected = np.split(np.array(texts, dtype=object), [len(also), len(also) + len(told)])
        made, _ = pairs.build(
            rows, list(chosen), list(rejected), self.tokenizer, negative="random_context", max_length=s.max_length,
            at_least=0,
        )  # fmt: skip
        if len(made) < s.batch_size * s.accumulate:
            return list(said), made, None
        call = (training.reference_log_probabilities, reference_policy, self.tokenizer, made)
        return list(said), made, self.run.step("reference", *call, batch_size=s.scoring_batch)

    def train(self, name, lineage, made, reference, rate, seed):
        """One training from where a lineage stands, kept as it ends; what `rounds.train` returns."""
        s = self.run.settings
        return self.run.step(
            name, rounds.train, lineage, made, reference, learning_rate=rate, beta=s.beta, epochs=s.epochs,
            batch_size=s.batch_size, accumulate=s.accumulate, max_length=s.max_length, rank=s.lora_rank,
            warmup=s.warmup, seed=seed, **self.load,
        )  # fmt: skip

    def viewed(self, texts):
        """{view: [test rows, or the few that are scored]} of a model's responses; "told" is log p(y|x,c) and "PMI"
        log p(y|x,c) - log p(y|x) under the untrained model, in nats."""
        health = evaluation.text_health(self.test, texts)
        some = [self.test[i] for i in self.few]
        both = self.run.step(
            "likelihoods", scoring.context_matrix, self.model, self.tokenizer, [row["prompt"] for row in some],
            [[row["context"], None] for row in some], [texts[i] for i in self.few],
            batch_size=self.run.settings.scoring_batch,
        )  # fmt: skip
        found = evaluation.identify_by_encoder(self.encoder, texts, self.candidates)
        return {
            "kept": evaluation.preferences_kept(self.test, texts),
            "PMI": both[:, 0] - both[:, 1],
            "identified": evaluation.identification(found)["auc"],
            "told": both[:, 0],
            "words": health["words"].where(~health["asked_short"]).to_numpy(),
            **{view: health[view].to_numpy() for view in ("repetition", "refusal", "echo")},
        }

    def how_far(self, policy, texts, told):
        """[few]: log-ratio of a policy's own responses to the untrained model, where theirs is `told`; nats."""
        some = [self.asked[i] for i in self.few], [texts[i] for i in self.few]
        call = (scoring.log_probabilities, policy, self.tokenizer, *some)
        return self.run.step("own likelihoods", *call, batch_size=self.run.settings.scoring_batch) - told

    def walk(self, name, arm, seed):
        """(views, lineages, training logs) of an `Arm` with one seed, round by round, the untrained model first.

        The log of a round without a batch of pairs is empty: the model stays as it is. The last views have the
        "log-ratio" of `how_far` too, and all their "texts".
        """
        lineage, views, stages, logs = rounds.Lineage(self.run.settings.model, merged=arm.merged), [], [], []
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
