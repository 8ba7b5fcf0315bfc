"""TRL's losses read a model's own forward pass: through whatever stands at its head, and with positions that skip padding."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from mipo_nb import pairs, training
from mipo_nb.command import random_models
from mipo_nb.engine import own_forward, routes
from mipo_nb.studies import distillation
from mipo_nb.verifiable import grpo, rewards

SIZE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1,
}  # fmt: skip
HEADS = {
    "llama": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "recurrent_gemma": {"lru_width": 64, "logits_soft_cap": 3.0, "block_types": ["recurrent", "attention"]},
    "modernbert-decoder": {},
}


def tiny(name, **numbers):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**SIZE, **numbers}), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()


def own_scores(model, start, end):
    with torch.no_grad():
        logits = model(torch.tensor([start + end]), use_cache=False).logits[0, len(start) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(end)[:, None])[:, 0]


def drawn(*lengths, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 250, (n,), generator=draw).tolist() for n in lengths]


@pytest.mark.parametrize("name", HEADS)
def test_what_a_loss_reads_are_the_models_own_scores(name):
    own = tiny(name, **HEADS[name])
    model = copy.deepcopy(own)
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    add_fused_lm_head(model, outputs=outputs)
    starts, ends = drawn(12, 20), drawn(9, 5, seed=1)
    longest = max(len(s) + len(e) for s, e in zip(starts, ends, strict=True))
    pad = [longest - len(s) - len(e) for s, e in zip(starts, ends, strict=True)]
    ids = torch.tensor([s + e + [0] * n for s, e, n in zip(starts, ends, pad, strict=True)])
    mask = torch.tensor([[1] * (longest - n) + [0] * n for n in pad])
    labels = ids.masked_fill(mask == 0, -100)
    for row, start in enumerate(starts):
        labels[row, : len(start)] = -100
    called = own_forward.under_losses(model, model)
    assert (called is model) == (name in ("llama", "gemma2"))
    read = called(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        found = read.log_probs[row][labels[row, 1:] != -100]
        assert found.detach().numpy() == pytest.approx(own_scores(own, start, end).numpy(), abs=1e-4)
    unscored = labels[:, 1:] == -100
    assert not any(getattr(read, what)[unscored].any() for what in outputs) and (read.entropy[~unscored] > 0).all()
    read.log_probs.sum().backward()
    assert all(
        p.grad is not None for p in model.parameters() if p.ndim > 1 and p is not model.get_input_embeddings().weight
    )


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt", "llama", "bloom"])
def test_padding_on_the_left_counts_as_no_word(name):
    numbers = {"gpt_neo": {"attention_types": [[["global"], 2]], "num_layers": 2, "num_heads": 4}}.get(name, {})
    model = tiny(name, **numbers)
    starts, ends = drawn(9, 21), drawn(6, 6, seed=1)
    ids = torch.tensor([[0] * (21 - len(s)) + s + e for s, e in zip(starts, ends, strict=True)])
    mask = torch.tensor([[0] * (21 - len(s)) + [1] * (len(s) + 6) for s in starts])
    with torch.no_grad():
        logits = own_forward.padded_on_the_left(model, model)(input_ids=ids, attention_mask=mask).logits[:, -7:-1]
    found = logits.log_softmax(-1).gather(-1, ids[:, -6:, None])[..., 0]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert found[row].numpy() == pytest.approx(own_scores(model, start, end).numpy(), abs=1e-4)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT sets it right
@pytest.mark.parametrize("trainer", ["GRPO", "self-distillation"])
def test_trainers_that_pad_on_the_left_score_each_row_as_it_is(trainer, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(training, "carry_through", lambda trainer, folder: made.append(trainer) or {})
    monkeypatch.setattr(routes, "packs_by_default", lambda model: False)  # as on a GPU
    monkeypatch.setitem(rewards.REWARDS, "short", lambda r: [-float(len(text)) for text in r.texts])
    shape = {"model_type": "gpt2", "hidden_size": 64, "vocab_size": 259, "n_layer": 2, "n_head": 4}
    folder = random_models.write(tmp_path / "model", shape)
    told = [
        {"prompt": "What now?", "context": "Ana sails."},
        {"prompt": "Where to?", "context": "Ben rows, and reads."},
    ]
    asked = pairs.positive_conversations(told)
    numbers = {"learning_rate": 1e-3, "rank": 2, "dtype": "float32", "device": "cpu", "seed": 1, "max_new_tokens": 6}
    if trainer == "GRPO":
        problem = {
            "question": "2 + 2?",
            "answer": "4",
            "letters": [],
            "options": [],
            "solution": "",
            "checker": "number",
        }
        how = {"reward": "short", "steps": 1, "group": 2, "batch_size": 4}
        grpo.train(folder, [problem] * 2, asked, folder=tmp_path / "out", **how, **numbers)
    else:
        rows = Dataset.from_list([{"prompt": one, "context": "x"} for one in asked])
        distillation.train(folder, rows, folder=tmp_path / "out", batch_size=2, **numbers)
    [trained] = made
    policy, (starts, ends) = trained.model.eval(), (drawn(9, 21), drawn(6, 6, seed=1))
    ids = torch.tensor([[0] * (21 - len(s)) + s + e for s, e in zip(starts, ends, strict=True)])
    mask = torch.tensor([[0] * (21 - len(s)) + [1] * (len(s) + 6) for s in starts])
    with torch.no_grad():
        if trainer == "GRPO":
            found = trained._get_per_token_logps_and_entropies(policy, ids, mask, 6)[0]
        else:
            found = trained._forward_logits(policy, ids, mask, 6).log_softmax(-1).gather(-1, ids[:, -6:, None])[..., 0]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert found[row].numpy() == pytest.approx(own_scores(policy, start, end).numpy(), abs=1e-4)
