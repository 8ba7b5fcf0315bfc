"""Any causal model of transformers gets its own numbers: scores and greedy tokens equal those of its own forward pass."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mipo_nb import generation, models, prompts, scoring, training
from mipo_nb.command import random_models
from mipo_nb.engine import packing, plain_decoding, routes, trainers
from mipo_nb.engine.arguments import without_dropout
from mipo_nb.engine.attention import NAME
from mipo_nb.engine.linear import packed_weights
from mipo_nb.verifiable import grading

SIZE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 1024, "pad_token_id": 0, "eos_token_id": 2,
    "bos_token_id": 1,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 90, "factor": 8.0,
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
    "gpt2": {},  # no name of a norm says that it is one
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16, "num_layers": 4, "num_heads": 4},
    "bart": {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "dropout": 0.0},
    "llama with longrope": {"rope_parameters": LONGROPE, "head_dim": 16},  # frequencies of rows beyond 90 are others
    "recurrent_gemma": {
        "lru_width": 64, "attention_window_size": 64, "logits_soft_cap": 3.0, "block_types": ["recurrent", "attention"],
    },
    "modernbert-decoder": {},  # a layer stands before its head
    "glm4_moe_lite": {  # keys and values that it keeps have two widths
        "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
        "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    },
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
}  # fmt: skip
FAST = {"llama", "qwen2", "qwen3", "gemma", "smollm3", "olmo2"}  # those that packed sequences must not be lost to
CASES = Path(os.environ.get("MIPO_NB_SHARED", "../shared")) / "cases" / "architectures.json"
if CASES.is_file():
    given = json.loads(CASES.read_text(encoding="utf-8"))["models"]
    MODELS |= {name: {**numbers, **MODELS.get(name, {})} for name, numbers in given.items()}  # no window is lost


@pytest.fixture(scope="module", params=MODELS)
def tiny(request):
    """(type, a tiny random model of it in float32)."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(request.param.partition(" ")[0], **{**SIZE, **MODELS[request.param]})
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
    assert routes.enable_packing(model) == (model.config._attn_implementation == NAME)
    assert routes.enable_packing(model) or name not in FAST


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
    assert not routes.enable_packing(model) and not routes.enable_packing(model)
    assert model.config._attn_implementation == before
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "the plain way is taken" in printed


@pytest.mark.parametrize("rope", [{**LONGROPE}, {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}])
def test_a_row_has_its_own_scores_beside_a_longer_one(rope):
    """Rotary frequencies that follow the longest row of a batch."""
    numbers = {"head_dim": 16, "rope_parameters": rope, "max_position_embeddings": 90}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**SIZE, **numbers})).eval()
    starts, ends = rows()
    scored = scoring.continuation_log_probabilities(model, starts, ends)
    for start, end, values in zip(starts, ends, scored, strict=True):
        # transformers' dynamic ones remember an earlier, longer row; beside one they were 0.08 nats off.
        assert values == pytest.approx(own_scores(model, start, end).numpy(), abs=1e-3)


def test_a_model_that_keeps_all_logits_is_scored_at_its_places():
    config = AutoConfig.for_model("xlstm", **{**SIZE, "num_heads": 2, "num_blocks": 2, "embedding_dim": 64})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    starts, ends = rows()
    for start, end, values in zip(
        starts, ends, scoring.continuation_log_probabilities(model, starts, ends), strict=True
    ):
        assert values == pytest.approx(own_scores(model, start, end).numpy(), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_what_files_say_of_sampling_changes_nothing(name):
    """Penalties, beams, forced and forbidden tokens of a model's files."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SIZE, **MODELS[name])).eval()
    starts, sampling = rows()[0], generation.Sampling(temperature=0, max_new_tokens=8)
    as_it_is = plain_decoding.generate(model, starts, sampling, {2})
    said = {"no_repeat_ngram_size": 1, "num_beams": 3, "suppress_tokens": as_it_is[0][0], "repetition_penalty": 2.0}
    for holder in (model, get_peft_model(model, training.lora(2))):
        for number, value in said.items():
            setattr(holder.generation_config, number, value)
        assert plain_decoding.generate(holder, starts, sampling, {2}) == as_it_is
        assert holder.generation_config.num_beams == 3


@pytest.mark.parametrize("adapter", ["on the head", "before the layers"])
def test_an_adapter_that_packed_sequences_pass_by_is_gone_through(adapter, capsys):
    torch.manual_seed(1)
    config = AutoConfig.for_model("llama", **SIZE, head_dim=16, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert routes.enable_packing(model)
    kinds = {
        "on the head": LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"]),
        "before the layers": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    }
    policy = get_peft_model(models._sharing(model), kinds[adapter]).eval()
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    starts, ends = rows()
    for _ in range(2):
        scored = scoring.continuation_log_probabilities(policy, starts, ends)
    for start, end, values in zip(starts, ends, scored, strict=True):
        with torch.no_grad():
            logits = policy(torch.tensor([start + end]), use_cache=False).logits[0, -len(end) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(end)[:, None])[:, 0]
        assert values == pytest.approx(own.numpy(), abs=1e-4)
    assert capsys.readouterr().out.count("an adapter") == 1 and routes.enable_packing(model)


def test_nothing_jitters_in_training():
    numbers = {"num_local_experts": 4, "router_jitter_noise": 0.3, "input_jitter_noise": 0.3, "head_dim": 16}
    model = without_dropout(AutoModelForCausalLM.from_config(AutoConfig.for_model("phimoe", **SIZE, **numbers)))
    tokens = torch.tensor([[*range(3, 40)]])
    with torch.no_grad():
        quiet, learning = (model.train(mode)(tokens, use_cache=False).logits for mode in (False, True))
    assert torch.allclose(quiet, learning, atol=1e-5)


def test_a_forward_pass_that_raises_anything_is_refused(monkeypatch):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE))

    def broken(*args, **kwargs):
        raise KeyError("pieces")

    monkeypatch.setattr(packing, "completion_scores", broken)
    assert not routes.enable_packing(model) and model.config._attn_implementation == "sdpa"


def test_without_an_end_token_a_response_goes_on_to_the_limit():
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE)).eval()
    sampling = generation.Sampling(temperature=0, max_new_tokens=5)
    for route in (generation.continued, generation.generate):
        written = route(model, [[5, 6, 7], [5, 6]], sampling, set())
        assert [(len(tokens), finished) for tokens, finished in written] == [(5, False)] * 2


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # PEFT's, of its own for experts
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT sets it right
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
        learning = [
            p for p in policy.parameters() if p.requires_grad
        ]  # of layers without use, as a decoder's cross-attention
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learning])

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
