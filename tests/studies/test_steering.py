"""Steering: against its formula on whole distributions, against `generate`, and as nothing at all at strength 0."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoConfig, AutoModelForCausalLM, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mipo_nb import generation, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.engine import decoding
from mipo_nb.studies import steering

CONTEXT = "Ada repairs clocks in a small town. She wants answers in Spanish."
STRENGTHS = [0.5, 2.0]


def tilted(p, q, strength):
    """p (p / q)^strength, normalized, in Python floats."""
    weights = [a * (a / b) ** strength for a, b in zip(p, q, strict=True)]
    return [w / math.fsum(weights) for w in weights]


def logits(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


# --- the formula ---


@given(st.integers(0, 2**31), st.sampled_from([-1.0, -0.3, 0.0, 0.25, 1.0, 3.0]))
def test_scores_give_the_tilted_distribution(seed, strength):
    told, untold = logits(seed, 2, 40)
    found = steering.steered(told, untold, strength).softmax(-1)
    expected = tilted(*(x.double().softmax(-1).tolist() for x in (told, untold)), strength)
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-7)


@given(st.integers(0, 2**31), st.floats(0.1, 3), st.floats(-30, 30), st.floats(-30, 30))
def test_cad_on_logits_and_cos_on_log_probabilities_are_one_distribution(seed, strength, shift, other_shift):
    """Written as each paper writes it. Logits are log-probabilities up to a constant, and a constant cancels."""
    told, untold = logits(seed, 2, 5, 40).double()
    cad = (1 + strength) * (told + shift) - strength * (untold + other_shift)
    with_context, without = told.log_softmax(-1), untold.log_softmax(-1)
    cos = with_context + strength * (with_context - without)
    assert torch.allclose(cad.softmax(-1), cos.softmax(-1), atol=1e-9)
    ours = steering.steered(told, untold, strength).softmax(-1)
    assert torch.allclose(ours.double(), cos.softmax(-1), atol=1e-4)
    assert not torch.allclose(cad, cos)  # the scores themselves differ


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strength_0_is_the_told_reading_and_minus_1_the_untold_one(dtype):
    told, untold = logits(3, 2, 4, 40).to(dtype)
    assert torch.equal(steering.steered(told, untold, 0.0), told.float())
    assert torch.allclose(steering.steered(told, untold, -1.0), untold.float(), atol=1e-5)


def test_equal_readings_cannot_be_steered():
    told = logits(4, 3, 40)
    assert torch.equal(steering.steered(told, told, 7.0), told)


# --- on the model ---


@pytest.fixture(scope="module")
def asked(tokenizer):
    """(told, untold) token ids of four questions, one of them twice; prompts of several lengths."""
    questions = ["What should I do today?", "Name a bird.", "Name a bird.", "How does rain form over the mountains?"]
    told = [prompts.prompt_ids(tokenizer, prompts.messages(q, CONTEXT)) for q in questions]
    return told, [prompts.prompt_ids(tokenizer, prompts.messages(q)) for q in questions]


def by_whole_passes(model, told, untold, written, strength):
    """Steered logits [V] of what comes after `written`, from two passes without any cache, padding or batch."""
    with torch.inference_mode():
        scores = [model(torch.tensor([start + written])).logits[0, -1].double() for start in (told, untold)]
    return (1 + strength) * scores[0] - strength * scores[1]


@pytest.mark.model
@pytest.mark.parametrize("strength", STRENGTHS)
def test_generate_is_steered_by_the_formula_at_every_token(model_and_tokenizer, asked, strength):
    """Also that both readings went on with the token that was drawn: whole passes over what was written agree."""
    model, tokenizer = model_and_tokenizer
    width, pad = max(map(len, asked[0])), tokenizer.eos_token_id
    torch.manual_seed(0)
    out = model.generate(
        torch.tensor([[pad] * (width - len(i)) + i for i in asked[0]]),
        attention_mask=torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in asked[0]]),
        logits_processor=[steering.Steering(model, asked[1], strength)],
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=6, pad_token_id=pad,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    compared = 0
    for row, (told, untold) in enumerate(zip(*asked, strict=True)):
        written = out.sequences[row, width:].tolist()
        for step, scores in enumerate(out.scores):
            if pad in written[:step]:
                break
            wanted = by_whole_passes(model, told, untold, written[:step], strength).softmax(-1)
            assert torch.allclose(scores[row].double().softmax(-1), wanted, atol=1e-4)
            compared += 1
    assert compared > 12


@pytest.mark.model
@pytest.mark.parametrize("strength", [0.0, -1.0, *STRENGTHS])
def test_greedy_tokens_are_those_of_generate(model_and_tokenizer, asked, strength):
    model, tokenizer = model_and_tokenizer
    how, ends = generation.Sampling(temperature=0, max_new_tokens=20), {tokenizer.eos_token_id}
    ours = steering.decode(model, *asked, how, ends, strength)
    processor = steering.Steering(model, asked[1], strength)
    assert ours == generation.generate(model, asked[0], how, ends, [processor])
    plain = [decoding.decode(model, ids, how, ends) for ids in asked]
    assert (ours == plain[0]) == (strength == 0)
    assert (ours == plain[1]) == (strength == -1)


@pytest.mark.model
def test_rows_that_end_leave_both_readings(model_and_tokenizer, asked):
    """With full stops and common words as ends, rows drop out one after another."""
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=0, max_new_tokens=24)
    ends = {tokenizer.eos_token_id} | {tokenizer(t)["input_ids"][0] for t in (".", ",", " de", " a", ":")}
    ours = steering.decode(model, *asked, how, ends, 1.0)
    assert ours == generation.generate(model, asked[0], how, ends, [steering.Steering(model, asked[1], 1.0)])
    assert len({len(row) for row, _ in ours}) > 2 and any(finished for _, finished in ours)


@pytest.mark.model
def test_at_strength_0_the_same_seed_draws_the_same_tokens(model_and_tokenizer, asked):
    model, tokenizer = model_and_tokenizer
    how, ends = generation.Sampling(max_new_tokens=16), {tokenizer.eos_token_id}
    torch.manual_seed(5)
    plain = decoding.decode(model, asked[0], how, ends)
    torch.manual_seed(5)
    assert steering.decode(model, *asked, how, ends, 0.0) == plain
    torch.manual_seed(5)
    assert steering.decode(model, *asked, how, ends, 1.5) != plain


def warped(scores, temperature, top_k, top_p):
    """Probabilities after transformers' own warpers."""
    for warper in (TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)):
        scores = warper(None, scores[None])[0]
    return scores.softmax(-1)


@pytest.mark.model
def test_draws_follow_the_formula_cut_off_after_steering(model_and_tokenizer, asked):
    """Temperature, top-k and top-p are applied to the steered scores; the other order would draw other tokens."""
    model, tokenizer = model_and_tokenizer
    (told, untold), n, ends = (rows[1] for rows in asked), 1000, {tokenizer.eos_token_id}
    how = generation.Sampling(temperature=0.8, top_p=0.9, top_k=12, max_new_tokens=1)
    share = warped(by_whole_passes(model, told, untold, [], 1.0), 0.8, 12, 0.9)
    support = share.nonzero()[:, 0].tolist()
    torch.manual_seed(0)
    rows = steering.decode(model, [told] * n, [untold] * n, how, ends, 1.0)
    counts = np.bincount([row[0] if row else tokenizer.eos_token_id for row, _ in rows], minlength=len(share))
    assert counts.sum() == n and {*counts.nonzero()[0]} <= set(support) and len(support) > 2
    assert chisquare(counts[support], share[support].numpy() * n).pvalue > 0.001
    with torch.inference_mode():
        plain = warped(model(torch.tensor([told])).logits[0, -1], 0.8, 12, 0.9)
    assert set(plain.nonzero()[:, 0].tolist()) != set(support)
    drawn_from = model.generate(
        torch.tensor([told]), logits_processor=[steering.Steering(model, [untold], 1.0)], do_sample=True,
        temperature=0.8, top_k=12, top_p=0.9, max_new_tokens=1, output_scores=True, return_dict_in_generate=True,
        pad_token_id=tokenizer.eos_token_id,
    ).scores[0][0].double().softmax(-1)  # fmt: skip
    assert torch.allclose(drawn_from, share, atol=1e-4)


@pytest.mark.model
def test_a_processor_serves_one_call(model_and_tokenizer, asked):
    model, tokenizer = model_and_tokenizer
    how, ends = generation.Sampling(temperature=0, max_new_tokens=3), {tokenizer.eos_token_id}
    processor = steering.Steering(model, asked[1], 1.0)
    generation.generate(model, asked[0], how, ends, [processor])
    with pytest.raises(ValueError, match="serves one call of generate"):
        generation.generate(model, asked[0], how, ends, [processor])
    with pytest.raises(ValueError, match="one row per untold prompt"):
        generation.generate(model, asked[0], how, ends, [steering.Steering(model, asked[1][:2], 1.0)])


# --- texts ---

QUESTIONS = ["Name a bird.", "What should I do today?", "Name a tree."]
TOLD = [prompts.messages(q, CONTEXT) for q in QUESTIONS]
UNTOLD = [prompts.messages(q) for q in QUESTIONS]
HOW = generation.Sampling(temperature=0, max_new_tokens=12, batch_size=2)


@pytest.mark.model
def test_texts_come_in_the_order_asked_for_and_are_found_again(model_and_tokenizer, tmp_path):
    model, tokenizer = model_and_tokenizer
    rows = steering.sample(model, tokenizer, TOLD, UNTOLD, HOW, strength=1.0, seed=1, folder=tmp_path)
    alone = [
        steering.sample(model, tokenizer, [a], [b], HOW, strength=1.0, seed=1)[0]
        for a, b in zip(TOLD, UNTOLD, strict=True)
    ]
    assert rows.to_list() == alone
    assert len(list(tmp_path.glob("batch-*.json"))) == 2
    (tmp_path / "batch-0000.json").write_text(
        '[{"text": "Kept.", "tokens": [5], "finished": true}, {"text": "Kept.", "tokens": [5], "finished": true}]'
    )
    again = steering.sample(model, tokenizer, TOLD, UNTOLD, HOW, strength=1.0, seed=1, folder=tmp_path)
    assert sum(a == {"text": "Kept.", "tokens": [5], "finished": True} for a in again) == 2
    assert sum(a == b for a, b in zip(again, rows, strict=True)) == 1


def test_rows_that_must_not_be_padded_are_steered_one_by_one():
    """Positions that are counted from the first column: padding would move the shorter rows."""
    shape = {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 300}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("bart", **shape)).eval()
    told, untold = [[5, 6, 7, 8, 9, 10], [11, 12]], [[5, 6], [11, 12, 13]]
    greedy = generation.Sampling(temperature=0, max_new_tokens=6)
    one_by_one = [steering.decode(model, [a], [b], greedy, {2}, 1.0)[0] for a, b in zip(told, untold, strict=True)]
    assert steering.decode(model, told, untold, greedy, {2}, 1.0) == one_by_one


@pytest.mark.model
def test_a_model_that_cannot_share_prefixes_is_steered_by_generate(model_and_tokenizer):
    from mipo_nb import models
    from mipo_nb.engine import routes

    ours = steering.sample(*model_and_tokenizer, TOLD, UNTOLD, HOW, strength=1.0, seed=1)
    plain, tokenizer = models.load("embedded:smollm2-135m", dtype="float32")
    plain.set_attn_implementation("eager")
    assert not routes.enable_packing(plain)
    theirs = steering.sample(plain, tokenizer, TOLD, UNTOLD, HOW, strength=1.0, seed=1)
    assert theirs.to_list() == ours.to_list()


@pytest.mark.model
@pytest.mark.parametrize(
    "untold, strength, told_so",
    [
        (UNTOLD[:2], 1.0, "3 conversations to steer towards and 2 to steer away from"),
        (UNTOLD, math.nan, "must be a finite number, not nan"),
        (UNTOLD, math.inf, "must be a finite number, not inf"),
        ([*UNTOLD[:2], prompts.messages("why? " * 9000)], 1.0, "The prompt that ends with'why? why?"),
    ],
)
def test_mistakes_are_told_before_anything_is_sampled(model_and_tokenizer, tmp_path, untold, strength, told_so):
    with pytest.raises(UserError, match=told_so):
        steering.sample(*model_and_tokenizer, TOLD, untold, HOW, strength=strength, seed=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


# --- divergences ---


@pytest.mark.model
def test_divergences_by_hand(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    response, candidates = "A robin, red and brown.", [(0.0, 1.0), (1.0, 1.0), (0.5, 0.7)]
    args = (model, model, tokenizer, TOLD[:1], UNTOLD[:1], [response], candidates)
    [found] = steering.divergences(*args)
    told, untold = (prompts.prompt_ids(tokenizer, c) for c in (TOLD[0], UNTOLD[0]))
    ids, by_hand = prompts.completion_ids(tokenizer, TOLD[0], response), []
    for t in range(len(ids)):
        p = by_whole_passes(model, told, untold, ids[:t], 0.0).softmax(-1)
        others = ((by_whole_passes(model, told, untold, ids[:t], a) / h).softmax(-1) for a, h in candidates)
        by_hand.append([(p * (p / other).log()).sum().item() for other in others])
    assert found == pytest.approx(np.mean(by_hand, axis=0), rel=1e-3, abs=1e-5)
    assert found[0] == pytest.approx(0, abs=1e-6) and found[1] > 0.01
