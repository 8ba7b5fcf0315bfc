"""Any causal model of transformers gets its own numbers: scores and greedy tokens equal those of its own forward pass."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mipo_nb import generation, models, prompts, scoring, training
from mipo_nb.command import random_models
from mipo_nb.engine import packing, trainers
from mipo_nb.engine.arguments import without_dropout
from mipo_nb.engine.attention import NAME
from mipo_nb.engine.linear import packed_weights
from mipo_nb.verifiable import grading

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
    "opt": {},  # learned positions, and it drops a tenth in training
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
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


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT's, of its own for experts
def test_a_training_step_has_the_loss_and_gradients_of_a_plain_computation(tiny, tmp_path):
    """DPO on rows that begin alike, from an adapter that is no longer zero; each sequence by itself, full logits."""
    name, model = tiny
    data, tokenizer = random_models.token_pairs(3, 70, 12, 259, seed=4), random_models.tokenizer()
    numbers = {
        "learning_rate": 1e-3,
        "batch_size": 3,
        "rank": 2,
        "device": "cpu",
        "dtype": "float32",
        "max_length": None,
    }
    arguments = training.dpo_arguments(tmp_path, **numbers)
    how = {"args": arguments, "train_dataset": data, "processing_class": tokenizer, "peft_config": training.lora(2)}
    trainer = trainers.DPO["shared_prefix"](model=without_dropout(copy.deepcopy(model)), **how)
    policy = trainer.model.train()
    torch.manual_seed(3)
    for weights, parameter in policy.named_parameters():
        if "lora_B" in weights:
            torch.nn.init.normal_(parameter, std=0.02)

    def gradients(loss):
        policy.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])

    def plain(row, side):
        start, end = row["prompt_ids"], row[f"{side}_ids"]
        logits = policy(torch.tensor([start + end]), use_cache=False).logits[0, len(start) - 1 : -1].float()
        return logits.log_softmax(-1).gather(-1, torch.tensor(end)[:, None]).sum()

    margins = torch.stack([plain(row, "chosen") - plain(row, "rejected") for row in data])  # its reference is zero
    by_hand = -torch.nn.functional.logsigmoid(0.1 * margins).mean()
    expected = gradients(by_hand)
    with packed_weights(policy):
        loss = trainer.compute_loss(policy, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
        found = gradients(loss)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4), name
    assert torch.linalg.norm(expected) > 1e-4
    assert torch.linalg.norm(found - expected) < 1e-3 * torch.linalg.norm(expected), name


QUESTIONS = [
    {"task": "t", "question": question, "letters": ["A", "B", "C"], "options": options, "answer": "A"}
    for question, options in (
        ("What do bees make?", ["honey", "a dam", "snow"]),
        ("Is it?", ["yes", "no", "it may be"]),
    )
]


def test_scores_of_options_are_those_of_its_own_forward_pass(tiny):
    name, model = tiny
    tokenizer = random_models.tokenizer()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    asked = {
        "letter": lambda row, k: (prompts.problem_messages(row), "The answer is", f" {row['letters'][k]}"),
        "cloze": lambda row, k: (prompts.messages(row["question"]), "", row["options"][k]),
    }
    for form, put in asked.items():
        scored = grading.option_scores(model, tokenizer, QUESTIONS, form)
        for row, values in zip(QUESTIONS, scored, strict=True):
            cells = [put(row, k) for k in range(3)]
            own = [
                own_scores(model, prompts.prompt_ids(tokenizer, told) + encode(opening), encode(option)).sum().item()
                for told, opening, option in cells
            ]
            assert values == pytest.approx(own, abs=1e-3), (name, form)


@pytest.mark.parametrize("name", ["opt", "falcon"])
def test_a_model_as_it_is_loaded_drops_nothing_while_it_trains(name, tmp_path):
    """OPT has its numbers in its layers, Falcon in its configuration; neither has layers of the class Dropout alone."""
    dropping = {"opt": {"dropout": 0.5}, "falcon": {"hidden_dropout": 0.5, "attention_dropout": 0.5, "alibi": False}}
    config = AutoConfig.for_model(name, **{**SIZE, **dropping[name]})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    random_models.tokenizer().save_pretrained(tmp_path)
    own, (loaded, _) = AutoModelForCausalLM.from_pretrained(tmp_path), models.load(str(tmp_path), dtype="float32")
    tokens, differ = torch.tensor([[*range(3, 40)]]), {}
    for which, model in (("own", own), ("loaded", loaded)):
        with torch.no_grad():
            quiet, learning = (model.train(mode)(tokens, use_cache=False).logits for mode in (False, True))
        differ[which] = not torch.allclose(quiet, learning, atol=1e-5)
    assert differ == {"own": True, "loaded": False}
