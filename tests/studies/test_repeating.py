"""Rounds one after the other: what each starts from, what it compares with, and a model that cannot go on."""

import dataclasses

import numpy as np
import pytest

from mipo_nb import models, sources
from mipo_nb.lab import runs
from mipo_nb.studies import rounds

MAIN = rounds.Arm(fresh=True, renewed=True, merged=False, rate=1e-3)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    run = runs.start("46_what_a_round_is_made_of", "smoke", output_dir=str(tmp_path_factory.mktemp("runs")))
    s = run.settings
    model, tokenizer = models.load(s.model, device=s.device, dtype=s.dtype)
    people = sources.personal_prompts("train", n=2 * s.n_pairs, data=s.data, seed=0)
    groups = [people.select(range(k * s.n_pairs, (k + 1) * s.n_pairs)) for k in range(2)]
    return rounds.Rounds(run, model, tokenizer, groups, sources.personal_prompts("test", n=4, data=s.data, seed=0))


@pytest.fixture(scope="module")
def main(lab):
    return lab.walk("main", MAIN, 0)


@pytest.mark.model
def test_a_walk_views_every_model_and_trains_each_on_the_last(lab, main):
    views, stages, logs = main
    assert len(views) == len(stages) == 3 and len(logs) == 2 and all(logs)
    assert [len(stage.adapters) for stage in stages] == [0, 1, 1] and stages[1] != stages[2]
    assert all(len(view["texts"]) == len(view["kept"]) == 4 and len(view["PMI"]) == 2 for view in views)
    assert "log-ratio" in views[2] and "log-ratio" not in views[1]
    assert np.abs(views[2]["log-ratio"]).max() > 0


@pytest.mark.model
def test_arms_share_what_they_have_in_common_and_differ_in_what_they_change(lab, main, monkeypatch):
    seen = []
    build = lab.pairs_of

    def seeing(rows, policy, reference_policy, *others):
        seen.append((rows, policy, reference_policy))
        return build(rows, policy, reference_policy, *others)

    monkeypatch.setattr(lab, "pairs_of", seeing)
    for name, value in {"fresh": False, "renewed": False, "merged": True}.items():
        arm = dataclasses.replace(MAIN, **{name: value})
        seen.clear()
        before = len(lab.run.steps)
        _, stages, logs = lab.walk(name, arm, 0)
        first, second = seen
        assert first[1] is first[2] is lab.model and second[1] is not lab.model
        assert (second[2] is lab.model) == (name == "renewed")
        assert (second[0] is lab.groups[0]) == (name == "fresh")
        assert [len(stage.adapters) for stage in stages] == [0, 1, 2 if name == "merged" else 1]
        trainings = [step for step in lab.run.steps[before:] if step["name"].startswith("round")]
        assert [step["found"] for step in trainings] == [True, False] and logs[0] == main[2][0]


@pytest.mark.model
def test_a_model_that_says_nothing_stays_as_it_is_to_the_end(lab, monkeypatch):
    monkeypatch.setattr(lab, "respond", lambda name, policy, conversations, seed: [""] * len(conversations))
    views, stages, logs = lab.walk("main", MAIN, 0)
    assert logs == [[], []] and stages == [rounds.Lineage(lab.run.settings.model)] * 3
    assert len(views) == 3
