"""DPO training: the shared-prefix route against TRL's own, with and without 4-bit weights; resume; bad input."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import get_peft_model
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl.trainer import dpo_trainer

from mipo_nb import models, objectives, pairs, scoring, training
from mipo_nb.base.errors import UserError
from mipo_nb.engine import callbacks, checkpoints, early_stopping, own_forward, routes, trainers
from mipo_nb.lab import settings

NAME = "embedded:smollm2-135m"
NUMBERS = {"learning_rate": 1e-3, "beta": 0.1, "epochs": 1, "max_length": 256, "rank": 4, "seed": 1}


@pytest.fixture(scope="module")
def reference(model_and_tokenizer, some_pairs):
    model, tokenizer = model_and_tokenizer
    return training.reference_log_probabilities(model, tokenizer, some_pairs, batch_size=4)


def adapter_of(result):
    from safetensors.torch import load_file

    return load_file(result["adapter"] / "adapter_model.safetensors")


@pytest.mark.model
def test_shared_prefix_scores_equal_separate_rows(model_and_tokenizer, some_pairs, reference):
    model, tokenizer = model_and_tokenizer
    for column, side in enumerate(("chosen", "rejected")):
        apart = scoring.log_probabilities(model, tokenizer, list(some_pairs["prompt"]), pairs.texts(some_pairs, side))
        np.testing.assert_allclose(reference[:, column], apart, rtol=1e-4)


def collate(rows, pad):
    """(input_ids, attention_mask, labels), each [2B, L], in the order TRL has them: all chosen rows, all rejected."""
    whole = [p + c for p, c, _ in rows] + [p + r for p, _, r in rows]
    width = max(map(len, whole))
    ids = torch.tensor([w + [pad] * (width - len(w)) for w in whole])
    mask = torch.tensor([[1] * len(w) + [0] * (width - len(w)) for w in whole])
    labels = ids.masked_fill(mask == 0, -100)
    for row, (start, _, _) in enumerate(rows * 2):
        labels[row, : len(start)] = -100
    return ids, mask, labels


@pytest.mark.model
def test_gradients_equal_those_of_separate_rows(some_pairs):
    """The head's gradient is made in the forward pass; autograd over full logits must give the same."""
    model, tokenizer = models.load(NAME, dtype="float32")
    torch.manual_seed(0)
    policy = get_peft_model(model, training.lora(4))
    assert routes.enable_packing(policy)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    rows = training.tokenize(some_pairs.select(range(3)), tokenizer)
    weights = torch.tensor([0.3, -1.0, 0.7, 1.0, -0.2, 0.5])

    def gradients(sums):
        policy.zero_grad()
        (sums * weights).sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])

    inputs = collate(rows, tokenizer.pad_token_id)
    shared = gradients(trainers.shared_prefix_forward(policy, *inputs).log_probs.sum(1))
    policy.train()
    policy.activation_checkpointing_enable({"use_reentrant": False})
    checkpointed = gradients(trainers.shared_prefix_forward(policy, *inputs).log_probs.sum(1))
    policy.activation_checkpointing_disable()
    torch.testing.assert_close(checkpointed, shared, rtol=1e-4, atol=1e-6)
    logits = policy(input_ids=inputs[0], attention_mask=inputs[1]).logits[:, :-1].log_softmax(-1)
    labels = inputs[2][:, 1:]
    picked = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
    plain = gradients(picked.sum(1))
    assert torch.linalg.norm(shared - plain) < 1e-4 * torch.linalg.norm(plain)


@pytest.mark.model
@pytest.mark.parametrize("four_bit, accumulate", [(False, 2), (True, 1)], ids=["float32, accumulated", "nf4"])
def test_both_routes_train_alike_for_twelve_steps(some_pairs, tokenizer, tmp_path, four_bit, accumulate):
    model, _ = models.load(NAME, dtype="float32", four_bit=four_bit)
    reference = training.reference_log_probabilities(model, tokenizer, some_pairs)
    call = {**NUMBERS, "learning_rate": 2e-4, "epochs": 2 * accumulate, "batch_size": 1, "accumulate": accumulate}
    results = {
        route: training.train(
            NAME,
            some_pairs,
            reference,
            dtype="float32",
            four_bit=four_bit,
            route=route,
            folder=tmp_path / route,
            **call,
        )
        for route in training.ROUTES
    }
    shared, trl = (results[route]["log"] for route in training.ROUTES)
    assert len(shared) == 12
    for ours, theirs in zip(shared, trl, strict=True):
        for metric in ("loss", "logps/chosen", "logps/rejected", "entropy", "logits/chosen", "mean_token_accuracy"):
            assert ours[metric] == pytest.approx(theirs[metric], rel=1e-4 if not four_bit else 2e-3), metric
    # On a CPU, bitsandbytes scores 4-bit weights in evaluation mode with another kernel than it trains them with: the
    # stored reference is then a few hundredths of a nat off.
    assert shared[0]["loss"] == pytest.approx(math.log(2), rel=1e-4 if not four_bit else 1e-2)
    assert results["trl"]["initial_adapter"] == results["shared_prefix"]["initial_adapter"]


@pytest.mark.model
def test_loss_by_hand_is_the_loss_that_trl_logs(model_and_tokenizer, some_pairs, reference, tmp_path):
    """After the last step the loss of the whole set, written out, agrees with TRL's evaluation of it."""
    _, tokenizer = model_and_tokenizer
    result = training.train(
        NAME, some_pairs, reference, batch_size=6, dtype="float32", route="trl", folder=tmp_path, **NUMBERS
    )
    logged = result["log"][0]
    by_hand = objectives.dpo_loss(*torch.tensor(np.concatenate([reference, reference], axis=1)).T, beta=0.1)
    assert logged["loss"] == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert logged["rewards/margins"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.model
def test_training_goes_on_from_its_last_checkpoint(some_pairs, reference, tmp_path, monkeypatch):
    many = some_pairs.select([0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
    stored = reference[[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
    call = {"batch_size": 1, "dtype": "float32", **NUMBERS}
    whole = training.train(NAME, many, stored, folder=tmp_path / "whole", **call)

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 9:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks, "reporting", Interrupt)
        patch.setattr(callbacks, "EVERY", 0)
        training.train(NAME, many, stored, folder=tmp_path / "partial", **call)
    assert not (tmp_path / "partial" / "adapter").exists()
    resumed = training.train(NAME, many, stored, folder=tmp_path / "partial", **call)
    assert [e["loss"] for e in resumed["log"]] == [e["loss"] for e in whole["log"]]
    for name, tensor in adapter_of(whole).items():
        assert torch.equal(tensor, adapter_of(resumed)[name]), name


def test_a_checkpoint_waits_ten_seconds_and_until_its_cost_is_earned(monkeypatch):
    """Steps of 4 seconds, and writing takes 2: the third step has taken ten, and then 30 are to pass."""
    now, saved = 0.0, []
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now)
    saving, control = callbacks.saving(), SimpleNamespace()
    saving.on_train_begin(None, None, control)
    for step in range(1, 13):
        now += 4
        saving.on_step_end(None, None, control)
        if control.should_save:
            saved.append(step)
            now += 2
            saving.on_save(None, None, control)
    assert saved == [3, 11]


@pytest.mark.model
@pytest.mark.parametrize("stored", [True, False], ids=["given", "computed by the trainer"])
def test_weights_are_hashed_only_where_the_trainer_computes_the_reference(
    some_pairs, reference, tmp_path, monkeypatch, stored
):
    hashed = []
    monkeypatch.setattr(dpo_trainer, "hash_module", lambda module: hashed.append(module) or str(tmp_path))
    whole = training.train(
        NAME, some_pairs, reference if stored else None, batch_size=6, dtype="float32", folder=tmp_path, **NUMBERS
    )
    assert len(hashed) == (not stored)
    assert whole["log"][0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.model
def test_fewer_pairs_than_a_batch_is_refused(some_pairs, reference, tmp_path):
    with pytest.raises(UserError, match="fewer than one batch of 8"):
        training.train(NAME, some_pairs, reference, batch_size=8, folder=tmp_path, **NUMBERS)
    assert not list(tmp_path.iterdir())


def test_unknown_route_is_refused(tmp_path):
    with pytest.raises(UserError, match="shared_prefix, trl"):
        training.train(NAME, [None] * 8, None, batch_size=8, route="fast", folder=tmp_path, **NUMBERS)


@pytest.mark.parametrize("profile", settings.profile_names())
def test_every_profile_makes_a_valid_configuration(profile, tmp_path):
    n = settings.profile_numbers(profile, None)
    made = training.dpo_arguments(
        tmp_path,
        learning_rate=n["learning_rate"],
        beta=n["beta"],
        epochs=n["epochs"],
        batch_size=n["batch_size"],
        accumulate=n["accumulate"],
        max_length=n["max_length"],
        seed=0,
        device="cpu",
        dtype="bfloat16",
        warmup=n["warmup"],
        final_rate=n["final_rate"],
    )
    assert made.beta == n["beta"] and made.adam_beta2 == 0.95


def rates(steps, **schedule):
    """The learning rates, as shares of the highest, that a trainer takes at each of `steps`."""
    from transformers.optimization import get_scheduler

    numbers = {"learning_rate": 1.0, "batch_size": 1, "seed": 0, "device": "cpu", "dtype": "float32"}
    given = training.trainer_arguments("", training.Recipe(**numbers, **schedule))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(
        given["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=math.ceil(given["warmup_steps"] * steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=given["lr_scheduler_kwargs"],
    )
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_the_paper_schedule_rises_for_3_percent_and_ends_at_a_tenth():
    theirs = rates(100, warmup=0.03, final_rate=0.1)
    assert theirs.index(max(theirs)) == 3 and max(theirs) == 1.0
    assert theirs[-1] == pytest.approx(0.1, abs=1e-3) and min(theirs[3:]) >= 0.1
    ours = rates(100)
    assert ours.index(max(ours)) == 10 and ours[-1] < 0.01


# --- all weights ---

LITTLE = {"learning_rate": 5e-7, "beta": 0.1, "epochs": 1, "batch_size": 6, "max_length": 256, "dtype": "float32"}


@pytest.fixture(scope="module")
def fully_tuned(some_pairs, tmp_path_factory):
    """Two steps of full fine-tuning at the paper's learning rate, both on all six pairs."""
    folder = tmp_path_factory.mktemp("full")
    numbers = {**LITTLE, "epochs": 2, "warmup": 0.0, "final_rate": 0.1, "seed": 1}
    return folder, training.train(NAME, some_pairs, None, rank=0, folder=folder, **numbers)


@pytest.mark.model
def test_full_fine_tuning_begins_at_ln_2_and_moves_every_weight(model_and_tokenizer, reference, fully_tuned):
    folder, result = fully_tuned
    first, second = result["log"]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-5) and second["loss"] < first["loss"] - 1e-5
    assert [first["logps/chosen"], first["logps/rejected"]] == pytest.approx(reference.mean(0).tolist(), rel=1e-4)
    assert 5e-7 >= first["learning_rate"] > second["learning_rate"] >= 0.499e-7
    tuned, _ = models.load(NAME, dtype="float32", adapter=result["adapter"])
    before = dict(model_and_tokenizer[0].named_parameters())
    moved = {name: (p - before[name]).abs().max().item() for name, p in tuned.named_parameters()}
    assert len(moved) == len(before) > 200
    assert all(0 < most < 2e-6 for most in moved.values())  # a step of Adam is at most about the rate
    assert {p.name for p in folder.iterdir()} == {"model"}  # no checkpoints are left


@pytest.mark.model
def test_full_fine_tuning_is_the_same_by_both_routes(some_pairs, fully_tuned, tmp_path):
    """The second step sees what the first one did to all weights, head and embeddings included."""
    numbers = {**LITTLE, "epochs": 2, "warmup": 0.0, "final_rate": 0.1, "seed": 1}
    apart = training.train(NAME, some_pairs, None, rank=0, route="trl", folder=tmp_path, **numbers)
    for ours, theirs in zip(fully_tuned[1]["log"], apart["log"], strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        assert math.log(2) - ours["loss"] == pytest.approx(math.log(2) - theirs["loss"], rel=0.02, abs=1e-5)
        for name in ("logps/chosen", "logps/rejected", "entropy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


@pytest.mark.model
def test_a_fully_tuned_model_is_found_again_with_the_same_numbers(model_and_tokenizer, some_pairs, fully_tuned):
    """As the base model's successor, and as a model of its own by the folder's name."""
    _, result = fully_tuned
    tuned, tokenizer = models.load(NAME, dtype="float32", adapter=result["adapter"])
    alone, own = models.load(str(result["adapter"]), dtype="float32")
    call = {"batch_size": 4}
    found = training.reference_log_probabilities(tuned, tokenizer, some_pairs, **call)
    np.testing.assert_array_equal(found, training.reference_log_probabilities(alone, own, some_pairs, **call))
    assert models.fingerprint(tuned) != models.fingerprint(model_and_tokenizer[0])
    base = training.reference_log_probabilities(*model_and_tokenizer, some_pairs, **call)
    assert not np.array_equal(found, base)


@pytest.mark.model
def test_two_steps_at_the_paper_rate_do_far_less_than_one_of_our_adapter(some_pairs, reference, fully_tuned, tmp_path):
    """The mean change of log-probs in nats, of the same six pairs."""
    ours = training.train(
        NAME, some_pairs, reference, rank=16, folder=tmp_path, **{**LITTLE, "learning_rate": 4e-4, "warmup": 0.0}
    )

    def change(result):
        tuned, tokenizer = models.load(NAME, dtype="float32", adapter=result["adapter"])
        return np.abs(
            training.reference_log_probabilities(tuned, tokenizer, some_pairs, batch_size=4) - reference
        ).mean()

    full, adapter = change(fully_tuned[1]), change(ours)
    assert 0.001 < full < adapter / 2, (full, adapter)


@pytest.mark.model
def test_a_step_of_the_paper_rate_would_be_lost_in_bfloat16(model_and_tokenizer):
    """Why full fine-tuning holds its weights in float32."""
    weights = torch.cat([p.detach().flatten()[::97] for p in model_and_tokenizer[0].parameters()]).bfloat16()
    assert (weights + torch.tensor(5e-7, dtype=torch.bfloat16) != weights).float().mean() < 0.02


def test_all_weights_in_4_bits_are_refused(tmp_path):
    with pytest.raises(UserError, match="4-bit weights cannot be trained themselves"):
        training.train(NAME, [None] * 8, None, rank=0, four_bit=True, folder=tmp_path, **LITTLE)


@pytest.mark.model
def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no adapter in "):
        models.load(NAME, adapter=tmp_path)


def test_the_papers_numbers_by_name():
    """Nam, Li and Jaques (arXiv 2603.19294), as their code has it: Adam, clip, decay, schedule; LoRA as QLoRA has it."""
    recipe = training.Recipe(
        learning_rate=5e-7, beta=0.1, batch_size=4, max_length=15360, rank=0, warmup=0.03, final_rate=0.1, seed=42,
        device="cpu", dtype="bfloat16",
    )  # fmt: skip
    arguments = {**training.trainer_arguments("", recipe), **training.dpo_numbers(recipe)}
    paper = {
        "learning_rate": 5e-7, "beta": 0.1, "num_train_epochs": 1, "max_length": 15360, "bf16": True, "fp16": False,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.0, "max_grad_norm": 1.0, "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "seed": 42,
        "data_seed": 42, "loss_type": "sigmoid", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    assert {name: arguments[name] for name in paper} == paper
    adapter = training.lora(16)
    assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (16, 32, 0.0)
    assert adapter.target_modules == "all-linear"


@pytest.mark.model
@pytest.mark.parametrize("four_bit", [False, True], ids=["16 bits", "4 bits"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_learn_are_float32_and_the_others_stay(four_bit, dtype):
    """TRL casts the adapter of a quantized model to bf16; so does this test, whatever the model."""
    from peft import get_peft_model

    model, _ = models.load(NAME, dtype=dtype, four_bit=four_bit)
    policy = get_peft_model(model, training.lora(4))
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    frozen = {name: p.dtype for name, p in policy.named_parameters() if not p.requires_grad}
    checkpoints.hold_in_float32(policy)
    assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}
    assert {name: p.dtype for name, p in policy.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.model
@pytest.mark.parametrize("four_bit", [False, True], ids=["16 bits", "4 bits"])
def test_a_trainer_learns_in_float32(some_pairs, reference, tmp_path, monkeypatch, four_bit):
    types = []

    class Noting(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            types.append({p.dtype for p in model.parameters() if p.requires_grad})

    monkeypatch.setattr(callbacks, "reporting", Noting)
    call = {**NUMBERS, "dtype": "bfloat16", "four_bit": four_bit, "device": "cpu"}
    training.train(NAME, some_pairs, reference, batch_size=3, folder=tmp_path, **call)
    assert len(types) >= 2 and all(kinds == {torch.float32} for kinds in types)


@pytest.mark.model
def test_the_first_of_a_few_steps_is_not_lost(some_pairs, reference, tmp_path):
    call = {**NUMBERS, "dtype": "float32", "device": "cpu", "warmup": 0.5}
    log = training.train(NAME, some_pairs, reference, batch_size=2, folder=tmp_path, **call)["log"]
    assert log[0]["learning_rate"] == pytest.approx(NUMBERS["learning_rate"])
    full = checkpoints.full_steps(log, NUMBERS["learning_rate"])
    assert 1 < full < len(log)  # a cosine from 1 down


def test_half_a_checkpoint_is_no_checkpoint(tmp_path):
    for step, state in ((1, '{"global_step": 1}'), (2, '{"global_st'), (3, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        if state:
            (folder / "trainer_state.json").write_text(state)
    assert checkpoints.last(tmp_path) == str(tmp_path / "checkpoint-1")
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-1"]


@pytest.mark.model
def test_a_training_stops_where_held_out_pairs_no_longer_gain(some_pairs, reference, tmp_path):
    """A rate at which a few steps spoil what was learned; the adapter is the best one, not the last."""
    numbers = {**NUMBERS, "learning_rate": 0.05, "batch_size": 2, "epochs": 8, "dtype": "float32"}
    watching = {"evaluate_every": 1, "patience": 2, "held_out": (some_pairs, reference)}
    result = training.train(NAME, some_pairs, reference, folder=tmp_path, **numbers, **watching)
    margins = [look["eval_rewards/margins"] for look in result["held_out"]]
    best = int(np.argmax(margins))
    assert len(margins) == min(best + 3, 24) and result["best"] == {"step": best + 1, "margin": margins[best]}
    assert result["adapter"] == tmp_path / "best"
    policy, tokenizer = models.load(NAME, dtype="float32", adapter=result["adapter"])
    after = training.reference_log_probabilities(policy, tokenizer, some_pairs, batch_size=4)
    assert ((after - reference) @ [1, -1]).mean() * NUMBERS["beta"] == pytest.approx(margins[best], rel=1e-3)


@pytest.mark.model
def test_without_held_out_pairs_nothing_is_looked_at(some_pairs, reference, tmp_path):
    numbers = {**NUMBERS, "batch_size": 3, "evaluate_every": 1, "patience": 1}
    result = training.train(NAME, some_pairs, reference, folder=tmp_path, **numbers)
    assert result["held_out"] == [] and "best" not in result


@pytest.mark.model
def test_an_adapter_can_be_put_on_some_layers_only(some_pairs, reference, tmp_path):
    numbers = {**NUMBERS, "batch_size": 3, "lora_target": "q_proj, v_proj", "checkpointing": True}
    result = training.train(NAME, some_pairs, reference, folder=tmp_path, **numbers)
    assert {name.split(".")[-3] for name in adapter_of(result)} == {"q_proj", "v_proj"}


def test_a_training_reports_to_what_is_there_only(some_pairs, tmp_path):
    with pytest.raises(UserError, match="cannot report to 'nowhere' here"):
        training.train(NAME, some_pairs, None, folder=tmp_path, report_to="nowhere", batch_size=2, **NUMBERS)


@pytest.mark.parametrize(
    "numbers", [{"patience": 1}, {"patience": 1, "evaluate_every": 1, "rank": 0}, {"evaluate_every": -1}]
)
def test_patience_needs_looks_and_an_adapter(numbers):
    with pytest.raises(UserError):
        training.Recipe(**{**NUMBERS, **numbers})


@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes_call_the_model_that_averages_their_gradients(monkeypatch, processes):
    monkeypatch.setattr(routes, "enable_packing", lambda model: True)
    monkeypatch.setattr(own_forward, "under_losses", lambda model, base: model)
    around, trainer = object(), trainers.SharedPrefixDPOTrainer.__new__(trainers.SharedPrefixDPOTrainer)
    trainer.accelerator = SimpleNamespace(num_processes=processes, unwrap_model=lambda model: "inside")
    called = trainer._forward(around)
    assert (called is around) == (processes > 1)


def test_a_look_after_the_stop_changes_nothing(tmp_path):
    """A trainer that begins anew makes one step before it stops again."""
    seen = {"step": 3, "margin": 0.5, "worse": [4, 5]}
    (tmp_path / "best.json").write_text(json.dumps(seen))
    stopping, control = early_stopping.EarlyStopping(tmp_path, 2), TrainerControl()
    stopping.on_train_begin(None, TrainerState(), control)
    assert control.should_training_stop
    better = {"eval_rewards/margins": 9.0}  # would be saved, were it the look of a training that goes on
    stopping.on_evaluate(None, TrainerState(global_step=6), control, metrics=better)
    assert stopping.seen() == seen and control.should_training_stop


@pytest.mark.model
def test_a_killed_training_knows_again_that_it_had_stopped(some_pairs, reference, tmp_path):
    """What is killed after its last look, with a checkpoint there, does not train on; nor does one of half an epoch."""
    numbers = {**NUMBERS, "learning_rate": 0.05, "batch_size": 2, "epochs": 8, "dtype": "float32"}
    watching = {"evaluate_every": 1, "patience": 2, "held_out": (some_pairs, reference)}
    first = training.train(NAME, some_pairs, reference, folder=tmp_path, **numbers, **watching)
    seen = (tmp_path / "best.json").read_text()
    again = training.train(NAME, some_pairs, reference, folder=tmp_path, **numbers, **watching)
    assert again["best"] == first["best"] and again["adapter"] == first["adapter"]
    assert (tmp_path / "best.json").read_text() == seen
    half = {**numbers, "epochs": 2 / 3, "learning_rate": 1e-4}
    short = training.train(NAME, some_pairs, reference, folder=tmp_path / "half", **half, **{**watching, "patience": 9})
    assert len(short["log"]) == 2 == len(short["held_out"])


@pytest.mark.parametrize("module", ["trainers", "self_distillation"])
def test_a_version_of_trl_without_what_is_overridden_is_refused_when_it_is_imported(module):
    """In a process of its own, one method after the other taken away before our module is imported."""
    taken = {
        "trainers": ("trl.DPOTrainer._compute_loss", "trl.GRPOTrainer._generate_single_turn"),
        "self_distillation": ("trl.experimental.sdft.sdft_trainer.SDFTTrainer._generate",),
    }[module]
    code = f"""
import importlib, sys, types, pydoc
from mipo_nb.base.errors import UserError
for path in {taken!r}:
    owner, name = pydoc.locate(path.rpartition(".")[0]), path.rpartition(".")[2]
    holder = next(kind for kind in owner.__mro__ if name in vars(kind))
    method = getattr(holder, name)
    delattr(holder, name)
    try:
        importlib.import_module("mipo_nb.engine.{module}")
    except UserError as e:
        print(e)
    setattr(holder, name, method)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    names = [".".join(path.split(".")[-2:]) for path in taken]
    lines = [f"This version of TRL has no {name}; install trl>=1.16,<1.17." for name in names]
    assert done.stdout.splitlines() == lines, done.stderr
