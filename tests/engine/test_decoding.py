"""Drawing tokens, and decoding a batch: against exact probabilities and against transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mipo_nb import generation, prompts
from mipo_nb.engine import attention, decoding
from mipo_nb.verifiable import problems


def exact(logits, temperature, top_k, top_p):
    """Probabilities the long way: one token at a time, in Python floats."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or len(logits)]
    weights = [math.exp((logits[i] - logits[order[0]]) / temperature) for i in order]
    total, mass, kept = sum(weights), 0.0, {}
    for token, weight in zip(order, weights, strict=True):
        if mass >= top_p:
            break
        kept[token] = weight / total
        mass += weight / total
    return {token: p / sum(kept.values()) for token, p in kept.items()}


def drawn(logits, n, *how):
    return decoding.draw(torch.tensor(logits, dtype=torch.float32).repeat(n, 1), *how).numpy()


LOGITS = np.random.default_rng(11).normal(0, 1.5, size=30).tolist()


@pytest.mark.parametrize(
    "temperature, top_k, top_p",
    [(1.0, 0, 1.0), (0.7, 10, 0.9), (1.5, 5, 1.0), (0.4, 0, 0.8), (2.0, 25, 0.95), (1, 99, 0.5)],
)
def test_draws_follow_the_exact_probabilities(temperature, top_k, top_p):
    torch.manual_seed(0)
    n = 40_000
    expected = exact(LOGITS, temperature, top_k, top_p)
    counts = np.bincount(drawn(LOGITS, n, temperature, top_k, top_p), minlength=len(LOGITS))
    assert {i for i in range(len(LOGITS)) if counts[i]} <= set(expected)
    often = [t for t, p in expected.items() if p * n >= 5]
    seldom = [t for t in expected if t not in often]
    observed = [counts[t] for t in often] + ([sum(counts[t] for t in seldom)] if seldom else [])
    wanted = [expected[t] * n for t in often] + ([sum(expected[t] for t in seldom) * n] if seldom else [])
    assert chisquare(observed, wanted).pvalue > 0.001


@given(
    st.integers(0, 2**31),
    st.sampled_from([0.3, 0.7, 1.0, 1.8]),
    st.sampled_from([0, 1, 3, 8, 20, 50]),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_the_support_is_that_of_transformers_warpers(seed, temperature, top_k, top_p):
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(seed))
    warped = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        warped = TopKLogitsWarper(top_k)(None, warped)
    if top_p < 1:
        warped = TopPLogitsWarper(top_p)(None, warped)
    share = warped.softmax(-1)[0]
    expected = exact(logits[0].tolist(), temperature, top_k, top_p)
    assert {i for i in range(20) if share[i] > 0} == set(expected)
    assert share[list(expected)].tolist() == pytest.approx(list(expected.values()), abs=1e-5)
    torch.manual_seed(seed)
    seen = set(drawn(logits[0].tolist(), 400, temperature, top_k, top_p).tolist())
    assert seen <= set(expected)
    assert {t for t, p in expected.items() if p > 0.06} <= seen  # missed with probability below 1e-10


@given(st.integers(1, 4), st.integers(2, 12))
def test_one_token_is_drawn_per_row_and_greedy_takes_the_likeliest(rows, vocabulary):
    scores = torch.randn(rows, vocabulary)
    before = scores.clone()
    found = decoding.draw(scores, 1.0, 0, 1.0)
    assert found.shape == (rows,) and (found >= 0).all() and (found < vocabulary).all()
    assert torch.equal(decoding.draw(scores, 0, 5, 0.9), scores.argmax(-1))
    assert torch.equal(scores, before)


def test_the_most_likely_token_is_certain_with_one_choice_or_a_small_mass():
    best = int(np.argmax(LOGITS))
    assert set(drawn(LOGITS, 200, 1.0, 1, 1.0)) == {best}
    assert set(drawn(LOGITS, 200, 1.0, 0, 0.01)) == {best}


def test_impossible_tokens_are_never_drawn_and_low_precision_is_read():
    scores = torch.tensor([[0.0, float("-inf"), 1.0, float("-inf")]], dtype=torch.bfloat16).repeat(500, 1)
    assert set(decoding.draw(scores, 1.0, 4, 1.0).tolist()) == {0, 2}


def test_a_chance_takes_the_likeliest_tokens_that_sum_to_it():
    scores = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(6, 1)
    chance = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 1 - 2**-53], dtype=torch.double)
    assert decoding.draw(scores, 1.0, 3, 1.0, chance).tolist() == [1, 1, 1 + 1, 2, 0, 0]
    assert decoding.draw(scores, 1.0, 3, 0.75, chance).tolist() == [1, 1, 1, 2, 2, 2]  # of 0.8, the least is cut off
    assert decoding.draw(scores, 1.0, 0, 1.0, chance).tolist() == [0, 1, 1, 2, 2, 2]  # uncut, in the order of numbers


def test_chances_are_those_of_the_row_alone():
    whole, some = (decoding.chances([(7, row) for row in rows], n) for rows, n in ((range(5), 40), ([3, 1], 12)))
    assert torch.equal(some, whole[[3, 1], :12]) and whole.unique().numel() == 200
    assert not torch.equal(whole, decoding.chances([(8, row) for row in range(5)], 40))


def test_rows_are_drawn_each_from_its_own_scores():
    scores = torch.full((3, 5), -50.0)
    scores[[0, 1, 2], [4, 0, 2]] = 50.0
    assert decoding.draw(scores, 1.0, 3, 0.9).tolist() == [4, 0, 2]


@pytest.fixture(scope="module")
def conversations(tokenizer):
    """Token ids: three prompts after one context, one of them twice, one prompt without context, one long, one short."""
    context = "Ada repairs clocks in a small town. She wants answers of at most 20 words."
    asked = [
        "What should I do today?",
        "Name a bird.",
        "What should I do today?",
        "How does rain form in the mountains?",
    ]
    return [prompts.prompt_ids(tokenizer, prompts.messages(q, context)) for q in asked] + [
        prompts.prompt_ids(tokenizer, prompts.messages(q)) for q in ("Hi", "Name a bird that lives by the sea. " * 6)
    ]


@pytest.mark.model
@pytest.mark.parametrize("tokens", [1, 2, 24])
def test_greedy_tokens_are_those_of_generate(model_and_tokenizer, conversations, tokens):
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=0, max_new_tokens=tokens)
    ours = decoding.decode(model, conversations, how, {tokenizer.eos_token_id})
    assert ours == generation.generate(model, conversations, how, {tokenizer.eos_token_id})


@pytest.fixture(scope="module")
def alike(tokenizer):
    """Token ids of conversations that begin with the same worked examples; two are equal, one is the others' beginning."""
    rows = list(problems.load("stories-1", "train", n=8, seed=0))
    asked = [prompts.prompt_ids(tokenizer, prompts.problem_messages(row, rows[:3])) for row in [*rows[3:], rows[3]]]
    shared = next(k for k in range(len(asked[0])) if len({tuple(ids[: k + 1]) for ids in asked}) > 1)
    return [*asked, asked[0][:shared]]


@pytest.mark.model
@pytest.mark.parametrize("which", [slice(None), slice(0, 1), slice(6, 7), [0, 5]])
def test_what_all_rows_begin_with_is_kept_once_and_the_tokens_are_those_of_generate(model_and_tokenizer, alike, which):
    model, tokenizer = model_and_tokenizer
    rows = alike[which] if isinstance(which, slice) else [alike[k] for k in which]
    how = generation.Sampling(temperature=0, max_new_tokens=24)
    ends = {tokenizer.eos_token_id} | {tokenizer(t)["input_ids"][0] for t in (".", " =")}
    assert decoding.decode(model, rows, how, ends) == generation.generate(model, rows, how, ends)
    kept = decoding.Continuation(model, rows, 24)
    assert bool(kept.shared) == (len(rows) > 1)
    if kept.shared:
        length = kept.shared["shared"][0][0].shape[-2]
        assert length == len(rows[0] if len(set(map(tuple, rows))) == 1 else alike[-1]) >= decoding._SHARED
        assert kept.cache.layers[0].keys.shape[-2] == max(map(len, rows)) - length + 24


@pytest.mark.model
def test_one_token_sees_what_all_share_and_its_own_row():
    """Against whole rows of keys and values, in plain attention, for grouped heads and for as many as queries."""
    g = torch.Generator().manual_seed(0)
    for heads, groups in ((6, 2), (4, 4)):
        query = torch.randn(5, heads, 1, 8, generator=g)
        shared = [torch.randn(groups, 7, 8, generator=g) for _ in range(2)]
        own = [torch.randn(5, groups, 4, 8, generator=g) for _ in range(2)]
        hides = torch.zeros(5, 1, 1, 4)
        hides[2, ..., :3] = hides[4] = float("-inf")
        whole = [torch.cat([s.expand(5, -1, -1, -1), o], 2).repeat_interleave(heads // groups, 1) for s, o in zip(shared, own, strict=True)]  # fmt: skip
        mask = torch.cat([torch.zeros(5, 1, 1, 7), hides], -1)
        expected = torch.nn.functional.scaled_dot_product_attention(query, *whole, attn_mask=mask)
        assert torch.allclose(attention._decoded(query, *own, hides, None, shared), expected, atol=1e-6)


@pytest.mark.model
def test_rows_that_end_leave_and_the_others_go_on_as_they_would(model_and_tokenizer, conversations):
    """With full stops and common words as ends, rows drop out one after another."""
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=0, max_new_tokens=30)
    ends = {tokenizer.eos_token_id} | {tokenizer(t)["input_ids"][0] for t in (".", ",", " the", " and", ":")}
    ours = decoding.decode(model, conversations, how, ends)
    assert ours == generation.generate(model, conversations, how, ends)
    assert len({len(row) for row, _ in ours}) > 2 and any(finished for _, finished in ours)
    assert all((row[-1] in ends) == finished and not ends & set(row[:-1]) for row, finished in ours)


@pytest.mark.model
def test_first_tokens_follow_the_models_probabilities(model_and_tokenizer, conversations):
    """A conversation many users share is read once and sampled n times; each sample is a draw of its own."""
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=1.0, top_p=0.9, top_k=12, max_new_tokens=1)
    with torch.inference_mode():
        logits = model(torch.tensor([conversations[1]])).logits[0, -1]
    expected = exact(logits.tolist(), 1.0, 12, 0.9)
    torch.manual_seed(0)
    n = 4000
    rows = decoding.decode(model, [conversations[1]] * n, how, {tokenizer.eos_token_id})
    counts = np.bincount([row[0] for row, _ in rows], minlength=len(logits))
    assert counts.sum() == n and {*counts.nonzero()[0]} <= set(expected)
    often = [t for t, p in expected.items() if p * n >= 5]
    assert chisquare([*counts[often], n - counts[often].sum() + 1e-9],
                     [*(expected[t] * n for t in often), n - sum(expected[t] * n for t in often) + 1e-9]).pvalue > 0.001  # fmt: skip
