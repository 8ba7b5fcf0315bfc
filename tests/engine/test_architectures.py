"""Any causal model of transformers gets its own numbers: scores and greedy tokens equal those of its own forward pass."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mipo_nb import generation, scoring
from mipo_nb.engine import packing
from mipo_nb.engine.attention import NAME

SIZE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 1024, "pad_token_id": 0, "eos_token_id": 2,
    "bos_token_id": 1,
}  # fmt: skip
MODELS = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_5_text": {"head_dim": 16},
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 24},
    "gemma2": {"head_dim": 16, "sliding_window": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 48},
    "granite": {"logits_scaling": 8.0, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22},
    "cohere": {"logit_scale": 0.25},
    "stablelm": {},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "opt": {},  # learned positions
}
FAST = {"llama", "qwen2", "qwen3", "gemma", "smollm3", "olmo2"}  # those that packed sequences must not be lost to
CASES = Path(os.environ.get("MIPO_NB_SHARED", "../shared")) / "cases" / "architectures.json"
if CASES.is_file():
    given = json.loads(CASES.read_text(encoding="utf-8"))["models"]
    MODELS |= {name: {**numbers, **MODELS.get(name, {})} for name, numbers in given.items()}  # no window is lost


@pytest.fixture(scope="module", params=MODELS)
def tiny(request):
    """(type, a tiny random model of it in float32)."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(request.param, **SIZE, **MODELS[request.param])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():  # far enough from nothing, so that a wrong mask or head shows
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return request.param, model


def rows():
    """(starts, ends): rows longer than any window, that begin alike at several depths."""
    random = torch.Generator().manual_seed(2)
    draw = lambda n: torch.randint(3, 500, (n,), generator=random).tolist()  # noqa: E731
    common, branches = draw(70), [draw(24), draw(31)]
    starts = [common + branch + draw(k) for branch in branches for k in (0, 3, 12)] + [draw(9)]
    return starts, [draw(5 + k) for k in range(len(starts))]


def own_scores(model, start, end):
    """The model's own forward pass on one sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([start + end]), use_cache=False).logits[0, len(start) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(end)[:, None])[:, 0]


def test_scores_are_those_of_its_own_forward_pass(tiny):
    name, model = tiny
    starts, ends = rows()
    own = [own_scores(model, start, end) for start, end in zip(starts, ends, strict=True)]
    scored = scoring.continuation_log_probabilities(model, starts, ends)
    plain = scoring.padded_log_probabilities(model, starts, ends).split(list(map(len, ends)))
    for route in (scored, plain):
        for values, expected in zip(route, own, strict=True):
            assert torch.as_tensor(values).detach().numpy() == pytest.approx(expected.numpy(), abs=1e-4), name
    assert packing.enable_packing(model) == (model.config._attn_implementation == NAME)
    assert packing.enable_packing(model) or name not in FAST


def test_greedy_tokens_are_those_of_its_own_forward_pass(tiny):
    name, model = tiny
    starts, _ = rows()
    sampling = generation.Sampling(temperature=0, max_new_tokens=12)
    with torch.inference_mode():
        written = generation.continued(model, starts, sampling, {2})
    for start, (tokens, finished) in zip(starts, written, strict=True):
        own = []
        with torch.no_grad():
            while len(own) < 12:
                own.append(int(model(torch.tensor([start + own]), use_cache=False).logits[0, -1].argmax()))
                if own[-1] == 2:
                    break
        assert (tokens, finished) == (own, own[-1] == 2), name


@pytest.mark.parametrize("name", ["granite", "gemma3_text", "lfm2"])
def test_a_model_that_is_refused_stays_as_it_is_and_one_line_says_so(name, capsys):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SIZE, **MODELS[name]))
    before = model.config._attn_implementation
    assert not packing.enable_packing(model) and not packing.enable_packing(model)
    assert model.config._attn_implementation == before
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "the plain way is taken" in printed


def test_a_forward_pass_that_raises_anything_is_refused(monkeypatch):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE))

    def broken(*args, **kwargs):
        raise KeyError("pieces")

    monkeypatch.setattr(packing, "completion_scores", broken)
    assert not packing.enable_packing(model) and model.config._attn_implementation == "sdpa"


def test_without_an_end_token_a_response_goes_on_to_the_limit():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE)).eval()
    sampling = generation.Sampling(temperature=0, max_new_tokens=5)
    for route in (generation.continued, generation.generate):
        written = route(model, [[5, 6, 7], [5, 6]], sampling, set())
        assert [(len(tokens), finished) for tokens, finished in written] == [(5, False)] * 2
