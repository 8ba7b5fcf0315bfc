"""The contrastive trainer: layouts, starting values, gradients against plain rows, invariances, resume, bad input."""

import math

import numpy as np
import pytest
import torch
from peft import get_peft_model
from scipy.special import logsumexp
from transformers import TrainerCallback

from mipo_nb import models, objectives, prompts, scoring, training
from mipo_nb.base.errors import UserError
from mipo_nb.engine import callbacks
from mipo_nb.studies import contrastive

NAME = "embedded:smollm2-135m"
NUMBERS = {"learning_rate": 1e-3, "epochs": 1, "max_length": 256, "rank": 4, "seed": 1, "dtype": "float32"}
LN2 = math.log(2)


@pytest.fixture(scope="module")
def games(some_pairs):
    """The six pairs, the other user's conversation beside them."""
    conversations = list(some_pairs["prompt"])
    others = [[conversations[(i + 1) % 6][0], c[1]] for i, c in enumerate(conversations)]
    return some_pairs.add_column("other", others)


@pytest.fixture(scope="module")
def reference(model_and_tokenizer, games):
    return training.reference_log_probabilities(*model_and_tokenizer, games)


def texts(games):
    """Rows as the trainer has them: response texts for message lists."""
    sides = ("chosen", "rejected")
    return [{**row, **{side: row[side][-1]["content"] for side in sides}} for row in games]


def separately(model_and_tokenizer, cells):
    return scoring.log_probabilities(*model_and_tokenizer, *map(list, zip(*cells, strict=True)), batch_size=1)


def system(row, key="prompt"):
    return row[key][0]["content"]


# --- layouts ---


def test_layouts(games):
    rows = texts(games)[:3]
    assert contrastive.chosen_only(rows)[1] == [[(rows[1]["prompt"], rows[1]["chosen"])]]
    assert contrastive.own_conversation(rows)[2] == [
        [(rows[2]["prompt"], rows[2]["chosen"]), (rows[2]["prompt"], rows[2]["rejected"])]
    ]
    (own, other) = contrastive.own_and_other(rows)[1]
    assert own == contrastive.own_conversation(rows)[1][0]
    assert other == [(rows[1]["other"], rows[1]["chosen"]), (rows[1]["other"], rows[1]["rejected"])]
    [game] = contrastive.in_batch(rows)
    for i, host in enumerate(rows):
        for j, row in enumerate(rows):
            conversation, response = game[i][j]
            assert response == row["chosen"] and conversation[-1] == row["prompt"][-1]
            assert conversation[0] == host["prompt"][0]


@pytest.mark.model
@pytest.mark.parametrize("layout", [contrastive.own_conversation, contrastive.own_and_other, contrastive.in_batch])
def test_scores_of_games_equal_those_of_separate_rows(model_and_tokenizer, games, layout):
    model, tokenizer = model_and_tokenizer
    made = layout(texts(games)[:3])
    cells = [cell for game in made for asked in game for cell in asked]
    with torch.inference_mode():
        scores, tokens, read = contrastive.game_scores(model, tokenizer, made)
    np.testing.assert_allclose(scores.flatten(), separately(model_and_tokenizer, cells), rtol=1e-4)
    assert scores.shape == (len(made), len(made[0]), len(made[0][0]))
    lengths = [len(prompts.completion_ids(tokenizer, *cell)) for cell in cells]
    assert tokens[:, None].expand(scores.shape).flatten().tolist() == lengths
    assert read == sum(lengths) + sum(len(prompts.prompt_ids(tokenizer, asked)) for asked, _ in cells)


# --- losses on matrices, where the answer is known ---


@pytest.mark.parametrize("contexts", [2, 5])
def test_where_nothing_can_be_told_apart_every_game_costs_log_n(contexts):
    alike, tokens = torch.full((3, contexts, contexts), -40.0), torch.full((3, contexts), 7)
    for name in ("info_nce", "info_nce_in_batch", "sami", "sami_summed"):
        assert contrastive.OBJECTIVES[name][1](alike, tokens, None, 0.3).item() == pytest.approx(math.log(contexts))


def test_mio_of_an_untrained_policy_is_two_ln_2():
    scores = torch.tensor([[[-40.0, -50.0]], [[-7.0, -3.0]]])
    loss = contrastive.OBJECTIVES["mio"][1](scores, torch.ones(2, 2), scores[:, 0], 0.1)
    assert loss.item() == pytest.approx(2 * LN2)


def test_info_nce_looks_down_the_columns_and_sami_both_ways():
    """Response 0 is likelier everywhere: no help in finding contexts, a disturbance in finding responses."""
    game = torch.tensor([[[-10.0, -30.0], [-13.0, -27.0]]])
    tokens = torch.tensor([[4, 8]])
    by_context = math.log1p(math.exp(-3))
    assert contrastive.OBJECTIVES["info_nce"][1](game, tokens, None, 1.0).item() == pytest.approx(by_context)
    by_response = (math.log1p(math.exp(-20)) + math.log1p(math.exp(14))) / 2
    summed = contrastive.OBJECTIVES["sami_summed"][1](game, tokens, None, 1.0).item()
    assert summed == pytest.approx((by_context + by_response) / 2)
    m = np.array([[-2.5, -3.75], [-3.25, -3.375]])  # per token
    rows, columns = (logsumexp(m, axis=axis) - np.diag(m) for axis in (1, 0))
    per_token = contrastive.OBJECTIVES["sami"][1](game, tokens, None, 1.0).item()
    assert per_token == pytest.approx((rows.mean() + columns.mean()) / 2)


# --- through the trainer ---


def first_loss(games, reference, tmp_path, objective, beta):
    """What the trainer logs for one batch of all pairs under the untrained policy."""
    result = contrastive.train(
        NAME, games, reference, objective=objective, beta=beta, batch_size=6, folder=tmp_path, **NUMBERS
    )
    return result["log"][0]["loss"]


@pytest.mark.model
@pytest.mark.parametrize("objective, start", [("mio", 2 * LN2), ("info_nce", LN2), ("info_nce_in_batch", math.log(6))])
def test_starting_values(games, reference, tmp_path, objective, start):
    """MIO has a reference, which the untrained policy equals; the other two have none: one context for everybody."""
    if objective != "mio":
        one = {"prompt": [games[0]["prompt"][0]]}
        games = games.map(lambda row: {"prompt": [*one["prompt"], row["prompt"][1]]})
        games = games.remove_columns("other").add_column("other", list(games["prompt"]))
    assert first_loss(games, reference, tmp_path, objective, 0.5) == pytest.approx(start, rel=1e-4)


@pytest.mark.model
def test_sft_without_the_models_template_reads_and_learns_plain_text(model_and_tokenizer, games, reference, tmp_path):
    """The rows spelt out as "User: ... Assistant: ...", scored one by one."""
    model, tokenizer = model_and_tokenizer
    nats, count = 0.0, 0
    for row in texts(games):
        asked = "User: " + "\n".join(turn["content"] for turn in row["prompt"]) + "\nAssistant: "
        start = tokenizer(asked)["input_ids"]
        end = tokenizer(row["chosen"] + tokenizer.eos_token)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1].log_softmax(-1)
        nats, count = nats - logits.gather(-1, torch.tensor(end)[:, None]).sum().item(), count + len(end)
    assert first_loss(games, reference, tmp_path, "sft_plain", 1.0) == pytest.approx(nats / count, rel=1e-3)
    assert "<|im_start|>" in tokenizer.apply_chat_template(games[0]["prompt"], tokenize=False)


@pytest.mark.model
def test_a_recipe_names_the_objective(model_and_tokenizer, games, tmp_path):
    asked, recipe = [], training.Recipe(loss="info_nce", beta=0.3, batch_size=6, **NUMBERS)

    def step(name, function, *args, **kwargs):
        asked.append(name)
        return function(*args, **kwargs, **({"folder": tmp_path / name} if name == "training" else {}))

    found = contrastive.prefer(NAME, *model_and_tokenizer, games, recipe, step=step)
    numbers = {"objective": "info_nce", "beta": 0.3, "batch_size": 6, "folder": tmp_path / "plain", **NUMBERS}
    plain = contrastive.train(NAME, games, np.zeros((6, 2)), **numbers)
    assert asked == ["reference log-probs", "training"] and found["log"][0]["loss"] == plain["log"][0]["loss"]


@pytest.mark.model
@pytest.mark.parametrize("objective", ["info_nce", "sami", "sami_summed"])
def test_first_loss_is_that_of_separately_scored_rows(model_and_tokenizer, games, reference, tmp_path, objective):
    _, tokenizer = model_and_tokenizer
    cells = [
        (row[asked], row[side])
        for row in texts(games)
        for asked in ("prompt", "other")
        for side in ("chosen", "rejected")
    ]
    m = separately(model_and_tokenizer, cells).reshape(-1, 2, 2)
    if objective == "sami":
        tokens = [len(prompts.completion_ids(tokenizer, *cell)) for cell in cells]
        m = m / np.reshape(tokens, m.shape)
    m, true = 0.1 * m, 0.1 * np.diagonal(m, axis1=1, axis2=2)
    by_context, by_response = (logsumexp(m, axis=1) - true).mean(), (logsumexp(m, axis=2) - true).mean()
    expected = by_context if objective == "info_nce" else (by_context + by_response) / 2
    assert first_loss(games, reference, tmp_path, objective, 0.1) == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def policy():
    """A policy that has left its reference."""
    model, tokenizer = models.load(NAME, dtype="float32")
    torch.manual_seed(0)
    policy = get_peft_model(model, training.lora(4))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return policy, tokenizer


@pytest.mark.model
@pytest.mark.parametrize("objective", contrastive.OBJECTIVES)
def test_gradients_equal_those_of_a_plain_computation(policy, games, reference, objective):
    """Whole rows one by one, full logits, and the loss written out with logsumexp and softplus."""
    policy, tokenizer = policy
    rows, beta = texts(games)[:3], 0.2
    layout, loss = contrastive.OBJECTIVES[objective]
    made, stored = layout(rows), torch.tensor(reference[:3])

    def gradients(value):
        policy.zero_grad()
        value.backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])

    scores, tokens, _ = contrastive.game_scores(policy, tokenizer, made)
    ours = gradients(loss(scores, tokens, stored, beta))

    def plain(cell):
        start, end = prompts.prompt_ids(tokenizer, cell[0]), prompts.completion_ids(tokenizer, *cell)
        logits = policy(input_ids=torch.tensor([start + end])).logits[0, :-1].log_softmax(-1)
        picked = logits.gather(-1, torch.tensor((start + end)[1:])[:, None])[len(start) - 1 :, 0]
        return picked.mean() if objective == "sami" else picked.sum()

    m = beta * torch.stack([torch.stack([torch.stack([plain(c) for c in asked]) for asked in game]) for game in made])
    if objective == "sft_plain":
        by_hand = -(m / beta).sum() / tokens.sum()
    elif objective == "mio":
        t = m[:, 0] - beta * stored
        by_hand = (torch.log1p(torch.exp(-t[:, 0])) + torch.log1p(torch.exp(t[:, 1]))).mean()
    else:
        true = m.diagonal(dim1=1, dim2=2)
        by_context, by_response = (m.logsumexp(1) - true).mean(), (m.logsumexp(2) - true).mean()
        by_hand = by_context if "info_nce" in objective else (by_context + by_response) / 2
    expected = gradients(by_hand)
    assert torch.linalg.norm(expected) > 1e-3
    assert torch.linalg.norm(ours - expected) < 1e-3 * torch.linalg.norm(expected)


@pytest.mark.model
def test_the_order_of_a_batch_and_what_is_alike_in_it_do_not_matter(policy, games):
    policy, tokenizer = policy
    rows = texts(games)

    def loss(objective, rows):
        layout, of = contrastive.OBJECTIVES[objective]
        with torch.no_grad():
            scores, tokens, _ = contrastive.game_scores(policy, tokenizer, layout(rows))
        return of(scores, tokens, None, 0.3).item()

    for objective in ("info_nce", "info_nce_in_batch", "sami", "sami_summed"):
        assert loss(objective, rows[::-1]) == pytest.approx(loss(objective, rows), rel=1e-4)
    # A pair seen from its other side is the same game.
    turned = [
        {**r, "prompt": r["other"], "other": r["prompt"], "chosen": r["rejected"], "rejected": r["chosen"]}
        for r in rows
    ]
    for objective in ("info_nce", "sami", "sami_summed"):
        assert loss(objective, turned) == pytest.approx(loss(objective, rows), rel=1e-4)


@pytest.mark.model
def test_accumulated_batches_are_one_large_batch(games, reference, tmp_path):
    call = {"objective": "sami", "beta": 1.0, **NUMBERS}
    whole = contrastive.train(NAME, games, reference, batch_size=6, folder=tmp_path / "whole", **call)
    parts = contrastive.train(NAME, games, reference, batch_size=2, accumulate=3, folder=tmp_path / "parts", **call)
    for metric in ("loss", "grad_norm", "num_tokens"):
        assert parts["log"][0][metric] == pytest.approx(whole["log"][0][metric], rel=1e-3), metric


@pytest.mark.model
def test_a_training_starts_as_dpo_does_goes_on_from_its_checkpoint_and_lowers_its_loss(
    games, reference, tmp_path, monkeypatch
):
    call = {"objective": "info_nce", "beta": 0.3, "batch_size": 3, **NUMBERS, "epochs": 6}
    whole = contrastive.train(NAME, games, reference, folder=tmp_path / "whole", **call)

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 9:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks, "reporting", Interrupt)
        patch.setattr(callbacks, "EVERY", 0)
        contrastive.train(NAME, games, reference, folder=tmp_path / "partial", **call)
    assert list((tmp_path / "partial" / "checkpoints").glob("checkpoint-*"))
    resumed = contrastive.train(NAME, games, reference, folder=tmp_path / "partial", **call)
    for metric in ("loss", "num_tokens"):
        assert [e[metric] for e in resumed["log"]] == [e[metric] for e in whole["log"]]
    losses = [e["loss"] for e in whole["log"]]
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
    dpo = training.train(
        NAME, games.remove_columns("other"), reference, beta=0.1, batch_size=6, folder=tmp_path, **NUMBERS
    )
    assert dpo["initial_adapter"] == whole["initial_adapter"]


# --- the losses that TRL has ---


@pytest.mark.model
@pytest.mark.parametrize("loss", ["ipo", "sft"])
def test_losses_of_trl_on_both_routes_and_by_hand(model_and_tokenizer, some_pairs, reference, tmp_path, loss):
    """The stored reference is moved, so that the first margin is not 0."""
    call = {"beta": 0.5, "batch_size": 6, **NUMBERS, "epochs": 2, "loss": loss}
    moved = reference + np.linspace(-8, 5, 12).reshape(6, 2)
    logs = {
        route: training.train(NAME, some_pairs, moved, route=route, folder=tmp_path / route, **call)["log"]
        for route in training.ROUTES
    }
    for ours, theirs in zip(logs["shared_prefix"], logs["trl"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    rows = training.tokenize(some_pairs, model_and_tokenizer[1])
    tokens = torch.tensor([[len(plus), len(minus)] for _, plus, minus in rows])
    policy, stored = torch.tensor(reference), torch.tensor(moved)
    if loss == "sft":
        by_hand = objectives.sft_loss(policy[:, 0], tokens[:, 0])
    else:
        by_hand = objectives.ipo_loss(*(policy / tokens).T, *(stored / tokens).T, 0.5).mean()
        assert abs(by_hand - 1 / (4 * 0.5**2)) > 0.1
    assert logs["shared_prefix"][0]["loss"] == pytest.approx(by_hand.item(), rel=1e-4)


@pytest.mark.model
def test_ipo_of_an_untrained_policy_is_its_goal_squared(some_pairs, reference, tmp_path):
    call = {"beta": 0.5, "batch_size": 6, **NUMBERS, "loss": "ipo"}
    log = training.train(NAME, some_pairs, reference, folder=tmp_path, **call)["log"]
    assert log[0]["loss"] == pytest.approx(1 / (4 * 0.5**2), rel=1e-4)


# --- bad input ---


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"objective": "infonce"}, "did you mean 'info_nce'"),
        ({"batch_size": 4, "accumulate": 2}, "fewer than one batch of 8"),
        ({}, "whom the rejected side was written for"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(some_pairs, tmp_path, changes, message):
    call = {"objective": "sami", "beta": 1.0, "batch_size": 2, **NUMBERS, **changes}
    with pytest.raises(UserError, match=message):
        contrastive.train("embedded:nothing", some_pairs, np.zeros((6, 2)), folder=tmp_path, **call)
    assert not list(tmp_path.iterdir())


def test_several_processes_are_refused_whose_gradients_nobody_would_average(some_pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as accelerate and torchrun set it
    test_bad_input_is_refused_before_anything_is_loaded(some_pairs, tmp_path, {}, "by one process")
