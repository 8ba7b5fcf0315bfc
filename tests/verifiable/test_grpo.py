"""GRPO on our forward pass: the numbers of TRL's own, what is written, learning, resuming, bad input."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, get_scheduler
from trl import GRPOTrainer

from mipo_nb import models, prompts, training
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models
from mipo_nb.engine import callbacks, checkpoints, decoding, trainers
from mipo_nb.verifiable import grpo, problems, rewards

NAME = "embedded:smollm2-135m"
NUMBERS = {
    "learning_rate": 3e-3, "steps": 4, "batch_size": 8, "group": 4, "max_new_tokens": 10, "rank": 4, "seed": 1,
    "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    return list(problems.load("stories-1", "train", n=6, seed=0))


@pytest.fixture(scope="module")
def asked(rows):
    return [prompts.problem_messages(row) for row in rows]


def short(responses):
    """A reward that is easy to learn."""
    return [-float(len(text)) for text in responses.texts]


@pytest.fixture
def trainer(monkeypatch, rows, asked, tmp_path):
    """A trainer as `grpo.train` makes it, caught before it trains; its adapter is not zero."""
    caught = []
    monkeypatch.setattr(training, "carry_through", lambda trainer, folder: caught.append(trainer))
    grpo.train(NAME, rows, asked, reward="verifiable", folder=tmp_path, **NUMBERS)
    torch.manual_seed(0)
    for name, parameter in caught[0].model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return caught[0]


@pytest.mark.model
def test_log_probs_entropies_and_gradients_are_those_of_trl(trainer, asked, tokenizer):
    starts = [prompts.prompt_ids(tokenizer, conversation) for conversation in (asked[0], asked[0], asked[1])]
    ends = [tokenizer(text)["input_ids"] for text in ("The answer is 7.", "It is 12, I think so.", "Six.")]
    width, room = max(map(len, starts)), max(map(len, ends))
    ids, mask = torch.zeros(3, width + room, dtype=torch.long), torch.zeros(3, width + room, dtype=torch.long)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):  # padded to the left and to the right
        ids[row, width - len(start) : width + len(end)] = torch.tensor(start + end)
        mask[row, width - len(start) : width + len(end)] = 1
    kept, weight = mask[:, -room:].bool(), torch.linspace(-1, 1, 3 * room).view(3, room)
    found = []
    for method in (trainer._get_per_token_logps_and_entropies, super(type(trainer), trainer)._get_per_token_logps_and_entropies):  # fmt: skip
        log_probs, entropy, _ = method(trainer.model, ids, mask, room, compute_entropy=True)
        trainer.model.zero_grad()
        (log_probs * weight)[kept].sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])
        found.append((log_probs[kept].detach(), entropy[kept].detach(), gradient))
    for ours, theirs in zip(*found, strict=True):
        assert torch.linalg.norm(ours - theirs) < 1e-3 * torch.linalg.norm(theirs)


@pytest.mark.model
def test_trl_reads_the_prompt_that_we_do_and_responses_end_where_they_end(trainer, asked, tokenizer):
    ids = trainer._tokenize_prompts([asked[0]] * 4)[0]
    assert ids == [prompts.prompt_ids(tokenizer, asked[0])] * 4
    torch.manual_seed(3)
    written, logps = trainer._generate_single_turn(ids, None, {}, 4)
    torch.manual_seed(3)
    assert trainer._generate_single_turn(ids, None, {}, 4)[0] == written and logps is None
    assert len(written) == 4 and all(1 <= len(tokens) <= NUMBERS["max_new_tokens"] + 1 for tokens in written)
    for tokens in written:
        assert tokenizer.eos_token_id not in tokens[:-1]
        assert tokens[-1] == tokenizer.eos_token_id or len(tokens) == NUMBERS["max_new_tokens"]


@pytest.mark.model
def test_it_learns_watches_goes_on_from_its_checkpoint_and_starts_as_dpo_does(
    rows, asked, some_pairs, tmp_path, monkeypatch
):
    monkeypatch.setitem(rewards.REWARDS, "short", short)
    call = {"reward": "short", "beta": 0.01, "held_out": rows[:2], "held_out_conversations": asked[:2], "watch": 2, **NUMBERS}  # fmt: skip
    whole = grpo.train(NAME, rows, asked, folder=tmp_path / "whole", **call)
    log = whole["log"]
    assert [entry["step"] for entry in whole["held_out"]] == [0, 2, 4]
    assert all(0 <= entry["eval_rewards/accuracy/mean"] <= 1 for entry in whole["held_out"])
    assert log[0]["kl"] == pytest.approx(0, abs=1e-3) and log[-1]["kl"] > 1e-3
    assert log[0]["learning_rate"] == pytest.approx(NUMBERS["learning_rate"])  # no step is lost to a warm-up
    assert log[-1]["rewards/reward/mean"] > log[0]["rewards/reward/mean"]
    assert "accuracy" in " ".join(log[0])

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks, "reporting", Interrupt)
        patch.setattr(callbacks, "EVERY", 0)
        grpo.train(NAME, rows, asked, folder=tmp_path / "partial", **call)
    assert list((tmp_path / "partial" / "checkpoints").glob("checkpoint-*"))
    resumed = grpo.train(NAME, rows, asked, folder=tmp_path / "partial", **call)
    for metric in ("loss", "rewards/reward/mean", "grad_norm"):
        assert [e[metric] for e in resumed["log"]] == pytest.approx([e[metric] for e in log], rel=1e-4)

    reference = np.zeros((len(some_pairs), 2))
    common = {"learning_rate": 1e-3, "rank": 4, "seed": 1, "dtype": "float32"}
    dpo = training.train(
        NAME, some_pairs, reference, beta=0.1, epochs=1, batch_size=6, max_length=256, folder=tmp_path, **common
    )
    assert dpo["initial_adapter"] == whole["initial_adapter"]


@pytest.mark.parametrize(("warmup", "final_rate", "full"), [(0.0, 1.0, 40), (0.25, 1.0, 34.5), (0.0, 0.0, 20.5)])
def test_warmup_and_final_rate_are_numbers_of_a_training(tmp_path, warmup, final_rate, full):
    """Rates of the schedule that transformers makes of them, over 40 steps, as shares of the highest."""
    recipe = training.Recipe(learning_rate=1e-3, warmup=warmup, final_rate=final_rate, device="cpu", dtype="float32")
    given = grpo._arguments(tmp_path, recipe, 40, 4, 10, 0, 0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    options = {"num_warmup_steps": given.get_warmup_steps(40), "num_training_steps": 40}
    schedule = get_scheduler(given.lr_scheduler_type, optimizer, scheduler_specific_kwargs=given.lr_scheduler_kwargs, **options)  # fmt: skip
    rates = []
    for _ in range(40):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert sum(rates) == pytest.approx(full) and given.max_steps == 40


@pytest.mark.model
def test_the_next_round_starts_with_the_adapter_of_the_last(trainer, rows, asked, tmp_path, monkeypatch):
    trainer.model.save_pretrained(tmp_path / "adapter")
    checkpoints.name_base(tmp_path / "adapter")
    caught = []
    monkeypatch.setattr(training, "carry_through", lambda trainer, folder: caught.append(trainer.model))
    for start in (models.Lineage(NAME), models.Lineage(NAME).then(tmp_path / "adapter")):
        grpo.train(start, rows, asked, reward="verifiable", folder=tmp_path, **NUMBERS)
    fresh, continued = map(checkpoints.adapter_hash, caught)
    assert continued == checkpoints.adapter_hash(trainer.model) != fresh


@pytest.mark.model
def test_where_nothing_is_ever_right_nothing_is_learned(rows, asked, tmp_path):
    """Ten tokens leave no room for a number after ####: every group is silent, and the gradient is zero."""
    log = grpo.train(NAME, rows, asked, reward="published", folder=tmp_path, **{**NUMBERS, "steps": 2})["log"]
    assert [entry["frac_reward_zero_std"] for entry in log] == [1, 1]
    assert [entry["grad_norm"] for entry in log] == [0, 0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reward": "verifyable"}, "did you mean 'verifiable'"),
        ({"group": 3}, "no whole number of groups of 3"),
        ({"group": 1}, "a group has two at least"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(rows, asked, tmp_path, changes, message):
    assert issubclass(trainers.SharedPrefixGRPOTrainer, GRPOTrainer)
    call = {"reward": "verifiable", **NUMBERS, **changes}
    with pytest.raises(UserError, match=message):
        grpo.train("embedded:nothing", rows, asked, folder=tmp_path, **call)
    assert not list(tmp_path.iterdir())


@pytest.mark.model
def test_rewards_are_those_of_the_untrained_model(trainer, rows, asked, model_and_tokenizer):
    """With an adapter that is not zero: the reward is what the model without it gives, not what the policy would."""
    untrained, tokenizer = model_and_tokenizer
    texts = ["She has 7 eggs. The answer is 7.", "Five."]
    kept = rewards.Responses(untrained, tokenizer, rows[:2], asked[:2], texts)
    tuned = rewards.Responses(trainer.model, tokenizer, rows[:2], asked[:2], texts)
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    call = {"completions": completions, "completion_ids": [[5], [6]], "part": ["train"] * 2, "number": [0, 1]}
    learned, _ = grpo._reward_functions("information", [trainer.model], tokenizer, {"train": (rows, asked)})
    given, own, other = learned(**call), rewards.information(kept), rewards.information(tuned)
    assert given == pytest.approx(own, abs=1e-3) and np.abs(np.subtract(own, other)).max() > 0.01


def trained_on(texts, model, folder, monkeypatch, **changes):
    """What `grpo.train` returns where the responses to one problem are `texts`, and the batches that it learned from."""
    tokenizer, batches = models.load_tokenizer(model), []
    ids = [tokenizer(text)["input_ids"] for text in texts]
    monkeypatch.setattr(decoding, "decode", lambda *call: [(tokens, False) for tokens in ids])
    monkeypatch.setitem(rewards.REWARDS, "short", short)
    name = "_generate_and_score_completions"
    own = getattr(trainers.SharedPrefixGRPOTrainer, name)
    spy = lambda self, inputs: batches.append(own(self, inputs)) or batches[-1]  # noqa: E731
    monkeypatch.setattr(trainers.SharedPrefixGRPOTrainer, name, spy)
    row = {"question": "2 + 2?", "answer": "4", "letters": [], "options": [], "solution": "", "checker": "number"}
    numbers = {**NUMBERS, "steps": 1, "batch_size": 4, "beta": 0.1, "device": "cpu", **changes}
    asked = [prompts.messages("What is 2 + 2?")]
    found = grpo.train(model, [row], asked, reward="short", folder=folder, **numbers)
    return found, batches[0]


def test_nothing_is_learned_from_a_response_that_thinks_aloud(tmp_path, monkeypatch, capsys, caplog):
    model = random_models.write(tmp_path / "tiny", "tiny")
    kinds = {"a": "<think>aaaa", "b": "<think>bbbb", "spoken": "I say: bbbb"}
    found = {}
    for kind, said in kinds.items():
        with monkeypatch.context() as patch:
            found[kind] = trained_on(["Four.", "It is 4.", "Four", said], model, tmp_path / kind, patch)
    adapters = {kind: result["final_adapter"] for kind, (result, _) in found.items()}
    assert adapters["a"] == adapters["b"] != adapters["spoken"]
    assert adapters["a"] != found["a"][0]["initial_adapter"]  # and from the others something is
    assert [result["thinking"] for result, _ in found.values()] == [1, 1, 0]
    assert capsys.readouterr().out.count("think aloud, from which nothing was learned: 1.") == 2
    lengths, batch = -torch.tensor([5.0, 8.0, 4.0]), found["a"][1]
    assert batch["completion_mask"].sum(1).tolist() == [5, 8, 4, 0] and batch["num_items_in_batch"] == 17
    expected = (lengths - lengths.mean()) / (lengths.std() + 1e-4)  # among those that are learned from
    torch.testing.assert_close(batch["advantages"], torch.tensor([*expected.tolist(), 0.0]))
    assert not caplog.records


def test_where_all_think_aloud_the_policy_stays_as_it_is(tmp_path, monkeypatch):
    model = random_models.write(tmp_path / "tiny", "tiny")
    found, _ = trained_on(["<think>", "a</think>", "<think>b", "<thought>"], model, tmp_path / "run", monkeypatch)
    assert found["thinking"] == 4 and found["final_adapter"] == found["initial_adapter"]
