"""Creative prompts and the grid of who is asked what, by counting; differences against those of one prompt alone."""

import numpy as np
import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.paper import diversity
from mipo_nb.studies import creative

PEOPLE = [
    {"user_id": f"u{i}", "context": f"Context {i}.", "prompt": "Old?", "name": "", "preferences": []} for i in range(7)
]
PROMPTS = {"story": ["s0", "s1"], "poem": ["p0", "p1"], "letter": ["l0", "l1"]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_prompts_come_by_kind(split):
    found = creative.prompts(split)
    assert tuple(found) == creative.KINDS and all(len(texts) == 6 for texts in found.values())
    other = creative.prompts("train" if split == "test" else "test")
    assert not {p for texts in found.values() for p in texts} & {p for texts in other.values() for p in texts}


def test_prompts_are_asked_in_turn_and_nothing_else_changes():
    rows = creative.asked(PEOPLE, PROMPTS)
    assert [r["prompt"] for r in rows] == ["s0", "p0", "l0", "s1", "p1", "l1", "s0"]
    assert [{**r, "prompt": "Old?"} for r in rows] == PEOPLE
    assert PEOPLE[0]["prompt"] == "Old?"


def test_a_group_shares_one_prompt_of_each_kind():
    rows = creative.grid(PEOPLE, PROMPTS, groups=2, size=3)
    assert [r["prompt"] for r in rows] == [p for g in "01" for kind in "spl" for p in [kind + g] * 3]
    assert [r["user_id"] for r in rows[:3]] == ["u0", "u1", "u2"] == [r["user_id"] for r in rows[6:9]]
    assert {(r["group"], r["user_id"]) for r in rows} == {(i // 3, f"u{i}") for i in range(6)}
    assert [r["kind"] for r in rows[::3]] == [*creative.KINDS] * 2


def test_too_few_people_or_prompts_are_told():
    with pytest.raises(UserError, match="2 groups of 4 need 8 different users"):
        creative.grid(PEOPLE, PROMPTS, groups=2, size=4)
    with pytest.raises(UserError, match="need 6 different users"):
        creative.grid([PEOPLE[0]] * 6, PROMPTS, groups=2, size=3)
    with pytest.raises(UserError, match="not 3 prompts of each kind"):
        creative.grid(PEOPLE, PROMPTS, groups=3, size=2)


def test_means_per_user_are_in_the_order_of_people():
    rows = [r for r in creative.grid(PEOPLE, PROMPTS, groups=2, size=3) for _ in range(2)]
    values = np.random.default_rng(0).normal(size=(4, len(rows)))
    found = creative.per_user(values, (2, 3, 3, 2))
    assert found.shape == (4, 6)
    for i in range(6):
        own = [r["user_id"] == f"u{i}" for r in rows]
        assert found[:, i] == pytest.approx(values[:, own].mean(1))


def test_differences_are_taken_within_a_prompt():
    shape = (2, 3, 4, 2)
    texts = [f"word{i % 5} kite{i % 7} town{i % 3} over the hill" for i in range(np.prod(shape))]
    v = np.random.default_rng(1).normal(size=(len(texts), 8))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    found = creative.by_prompt(texts, v, shape)
    cube = v.reshape(6, 4, 2, 8)
    for k in range(6):
        assert found["draws"]["spread"][k] == pytest.approx(np.mean([diversity.spread(cube[k, u]) for u in range(4)]))
        assert found["users"]["spread"][k] == pytest.approx(
            np.mean([diversity.spread(cube[k, :, d]) for d in range(2)])
        )
    first = [texts[2 * u] for u in range(4)], [texts[2 * u + 1] for u in range(4)]
    assert found["users"]["self-BLEU"][0] == pytest.approx(np.mean([diversity.self_bleu(some) for some in first]))
    assert {m: x.shape for m, x in found["draws"].items()} == dict.fromkeys(("self-BLEU", "distinct", "spread"), (6,))


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 1, 2, 1)])
def test_one_text_has_no_other_to_differ_from(shape):
    with pytest.raises(UserError, match="set n_draws and group_size"):
        creative.by_prompt(["a", "b"], np.eye(2), shape)
