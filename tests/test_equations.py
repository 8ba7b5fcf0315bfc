"""Every displayed equation of the notebooks, by its id, checked against a closed form, an enumeration or an invariant."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from mipo_nb import evaluation, information, objectives, statistics
from mipo_nb.lab.notebooks import collection
from mipo_nb.paper import diversity, win_rates
from mipo_nb.studies import creative, rounds, steering, without_labels
from mipo_nb.verifiable import decomposition

DISPLAYED = re.compile(r'(?:<a id="(eq-[a-z-]+)"></a>\s*)?\$\$.+?\$\$', re.DOTALL)
TESTED = {}


def equation(name):
    """Says that a test checks the equation of this id."""

    def mark(function):
        TESTED[name] = function.__name__
        return function

    return mark


def displayed():
    """[(notebook, id or None)] of every displayed equation, in order."""
    return [
        (name, found[1])
        for name, notebook in collection().items()
        for cell in notebook.content.cells
        if cell.cell_type == "markdown"
        for found in DISPLAYED.finditer(cell.source)
    ]


def test_every_displayed_equation_has_an_id_of_its_own_and_a_test():
    names = [name for _, name in displayed()]
    assert None not in names, [notebook for notebook, name in displayed() if name is None]
    assert len(names) == len(set(names))
    assert set(names) == set(TESTED)


def numbers(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).uniform(-80, -40, shape))


def world(seed=0, users=3, responses=5):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(responses), size=users), rng.dirichlet(np.ones(responses))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@equation("eq-bradley-terry")
def test_only_differences_of_rewards_count():
    reward = np.array([1.0, 3.0, -2.0])
    wins = sigmoid(reward[:, None] - reward[None, :])
    assert wins + wins.T == pytest.approx(1)  # one of the two wins
    strength = np.exp(reward + 7)  # Bradley and Terry's own form; a constant cancels
    assert wins == pytest.approx(strength[:, None] / (strength[:, None] + strength[None, :]))


@equation("eq-dpo")
def test_dpo_in_probabilities():
    a, b, c, d = numbers(4, 6)
    beta = 0.3
    chosen, rejected = ((x - y).exp() ** beta for x, y in ((a, c), (b, d)))
    assert torch.allclose(objectives.dpo_loss(a, b, c, d, beta), -(chosen / (chosen + rejected)).log())


@equation("eq-dpo-log-ratios")
def test_dpo_of_notebook_11_is_that_of_notebook_03():
    policy, reference = numbers(2, 6), numbers(2, 6, seed=1)
    ratio = policy - reference
    by_hand = -torch.log(torch.sigmoid(0.1 * (ratio[0] - ratio[1])))
    assert torch.allclose(by_hand, objectives.dpo_loss(*policy, *reference, 0.1))


@equation("eq-posterior")
def test_who_was_chosen_by_counting():
    """Both orders of every pair of responses, in a world of five."""
    (p, *_), q = world()
    for a in range(len(q)):
        for b in range(len(q)):
            first, second = p[a] * q[b], p[b] * q[a]
            assert first / (first + second) == pytest.approx(sigmoid(np.log(p[a] / q[a]) - np.log(p[b] / q[b])))


@equation("eq-infonce-two")
def test_info_nce_of_two_is_dpo():
    policy, reference = numbers(2, 6), numbers(2, 6, seed=1)
    critic = 0.4 * (policy - reference)
    assert torch.allclose(objectives.info_nce_loss(critic.T), objectives.dpo_loss(*policy, *reference, 0.4))


def expected_loss(reward, p, q):
    """-log sigmoid of the difference of rewards [..., Y], averaged over y+ ~ p and y- ~ q, for each prompt."""
    difference = reward[..., :, None] - reward[..., None, :]
    return (p[..., :, None] * q[..., None, :] * np.logaddexp(0, -difference)).sum((-2, -1))


@equation("eq-loss-bound")
@pytest.mark.parametrize("seed", range(3))
def test_ln_2_minus_the_loss_is_at_most_the_divergence(seed):
    """For any critic; for rejected sides that anybody was asked for, the divergence is the information on average."""
    p, other = world(seed)
    critics = [np.random.default_rng(seed).normal(scale=scale, size=p.shape) for scale in (0.1, 1, 9)]
    for q in (p.mean(0), other):
        best = np.log(p / q)
        for critic in (best, 0.3 * best, best + critics[0], *critics):
            shown = np.log(2) - expected_loss(critic, p, q)
            assert (shown <= information.divergence(p, q) + 1e-12).all()
            assert (shown <= np.log(2) - expected_loss(best, p, q) + 1e-12).all()
        assert (np.log(2) - expected_loss(best, p, q) > 0).all()
    assert information.divergence(p, p.mean(0)).mean() == pytest.approx(information.mutual_information(p))


@equation("eq-objective")
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_optimum_maximizes_pmi_less_the_way_from_the_reference(beta):
    """Any other policy falls short by beta times its divergence from the optimum; the reward is read off the optimum."""
    p = world()[0]
    pmi, best = np.log(p / p.mean(0)), information.mipo_optimum(p, p.mean(0), beta)

    def objective(policy):
        return (policy * pmi).sum(1) - beta * information.divergence(policy, p)

    for policy in (p, world(seed=5)[0], information.mipo_optimum(p, p.mean(0), 2 * beta)):
        assert objective(best) - objective(policy) == pytest.approx(beta * information.divergence(policy, best))
    assert (objective(best) > objective(p)).all()
    constant = pmi - beta * np.log(best / p)  # beta log Z, whatever the response
    assert constant == pytest.approx(np.broadcast_to(constant[:, :1], p.shape))
    assert expected_loss(beta * np.log(best / p), p, p) == pytest.approx(expected_loss(pmi, p, p))  # where it cancels


@equation("eq-optimum")
@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("negative", ["marginal", "other"])
def test_no_other_policy_has_a_lower_expected_loss(beta, negative):
    """The gradient of the exact expected loss vanishes at the formula, and only there: the loss is convex in the table."""
    p, q = world()
    q = p.mean(0) if negative == "marginal" else q
    best = torch.tensor(np.log(information.mipo_optimum(p, q, beta))).requires_grad_()

    def loss(policy):
        ratio = policy.log_softmax(-1) - torch.tensor(p).log()
        margin = beta * (ratio[:, :, None] - ratio[:, None, :])
        pairs = torch.tensor(p)[:, :, None] * torch.tensor(q)[None, None, :]
        return -(pairs * torch.nn.functional.logsigmoid(margin)).sum()

    (slope,) = torch.autograd.grad(loss(best), best)
    assert slope.abs().max() < 1e-12
    away = best.detach() + torch.randn(best.shape, generator=torch.Generator().manual_seed(0), dtype=best.dtype)
    assert loss(away) > loss(best) + 1e-3


@equation("eq-chosen-falls")
def test_samples_of_the_reference_are_likeliest_under_it():
    p, other = world()[0], world(seed=1)[0]
    assert (p * np.log(other / p)).sum(1) == pytest.approx(-information.divergence(p, other))
    assert (information.divergence(p, other) > 0).all()


@equation("eq-any-sampler")
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_samples_of_another_temperature_can_gain_without_any_memory(temperature):
    p, other = world()[0], world(seed=1)[0]
    drawn = p ** (1 / temperature) / (p ** (1 / temperature)).sum(1, keepdims=True)
    found = (drawn * np.log(other / p)).sum(1)
    assert found == pytest.approx(information.divergence(drawn, p) - information.divergence(drawn, other))
    gains = (drawn * np.log(drawn / p)).sum(1)  # the policy that is nearest to the sampler
    assert (gains > 0.01).all() if temperature != 1 else gains == pytest.approx(0)


@equation("eq-gradient")
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_how_hard_a_pair_pulls(beta):
    margin = torch.linspace(-9, 9, 7, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(7, dtype=torch.float64)
    (slope,) = torch.autograd.grad(objectives.dpo_loss(margin, zero, zero, zero, beta).sum(), margin)
    assert slope.numpy() == pytest.approx(-beta * sigmoid(-beta * margin.detach().numpy()))


@equation("eq-pmi")
@equation("eq-context-pmi")
def test_context_pmi_by_counting():
    """log p(y|x,c) - log p(y|x), with p(y|x) counted from the joint of contexts and responses to one prompt."""
    joint = np.array([[4.0, 1.0], [1.0, 2.0], [1.0, 3.0]]) / 12
    conditional = joint / joint.sum(1, keepdims=True)
    pmi = information.pointwise_mutual_information(np.log(conditional), np.log(joint.sum(0)))
    assert pmi == pytest.approx(information.pmi_table(joint))
    assert (joint * pmi).sum() == pytest.approx(information.mutual_information(joint))


COUNTS = np.array([[6.0, 1.0, 3.0], [2.0, 5.0, 3.0]])


@equation("eq-pmi-counts")
def test_pmi_by_counting():
    pmi, n = information.pmi_table(COUNTS), COUNTS.sum()
    for x, row in enumerate(COUNTS):
        for y, together in enumerate(row):
            assert pmi[x, y] == pytest.approx(np.log(together * n / (row.sum() * COUNTS[:, y].sum())))


@equation("eq-surprise")
def test_pmi_is_surprise_saved():
    given_x, general = COUNTS / COUNTS.sum(1, keepdims=True), COUNTS.sum(0) / COUNTS.sum()
    assert information.pmi_table(COUNTS) == pytest.approx(-np.log(general) - -np.log(given_x))


@equation("eq-pmi-at-most")
def test_pmi_is_at_most_the_surprise_of_the_prompt():
    """Bayes' rule turns PMI round; certainty about the prompt is as far as it goes."""
    joint = COUNTS / COUNTS.sum()
    prompts, given_y = joint.sum(1, keepdims=True), joint / joint.sum(0)
    pmi = information.pmi_table(joint)
    assert pmi == pytest.approx(np.log(given_y / prompts))
    assert (pmi < -np.log(prompts)).all()
    told = np.array([[0.25, 0.25, 0.0], [0.0, 0.25, 0.25]])  # the first and the last answer give their prompt away
    assert information.pmi_table(told)[[0, 1], [0, 2]] == pytest.approx(np.log([2, 2]))
    p = 0.97 * np.eye(3) + 0.01  # three prompts, each with a response that it nearly always gets
    assert (np.log(p) - information.log_marginal(np.log(p).T)).max() <= np.log(3)
    without = [np.log(row / np.delete(p, x, axis=0).mean(0)) for x, row in enumerate(p)]
    assert np.max(without) > np.log(3) + 1  # no limit where the average leaves the own prompt out


@equation("eq-mutual-information")
def test_information_is_the_mean_of_pmi_and_a_divergence():
    joint = COUNTS / COUNTS.sum()
    independent = np.outer(joint.sum(1), joint.sum(0))
    found = information.mutual_information(COUNTS)
    assert found == pytest.approx((joint * information.pmi_table(COUNTS)).sum())
    assert found == pytest.approx(information.divergence(joint.ravel(), independent.ravel())) and found > 0


@equation("eq-pmi-language")
def test_the_general_probability_is_the_average_over_prompts():
    p = world()[0]
    pmi = np.log(p) - information.log_marginal(np.log(p).T)  # prompts equally likely
    assert pmi == pytest.approx(information.pmi_table(p))


@equation("eq-marginal-estimate")
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_estimate_is_low_on_average_over_all_draws(k):
    """Every sequence of k prompts of a world of three, with equal probability."""
    p = world()[0]
    draws = np.stack(np.meshgrid(*[np.arange(3)] * k), -1).reshape(-1, k)
    estimates = np.stack([information.log_marginal(np.log(p[draw]).T) for draw in draws])
    assert np.exp(estimates).mean(0) == pytest.approx(p.mean(0))
    assert (estimates.mean(0) < np.log(p.mean(0))).all()


@equation("eq-two-marginals")
def test_the_two_marginals_agree_in_a_joint_distribution():
    p = world()[0]  # contexts in rows, for one prompt; in a joint distribution p(y|x) is their average
    bare = np.log(p.mean(0))
    against_none = information.pointwise_mutual_information(np.log(p), bare)
    against_others = np.log(p) - information.log_marginal(np.log(p).T)
    assert against_none == pytest.approx(against_others)


def gaussian(correlation, n, seed=0):
    """(PMI of n pairs that belong together, PMI of n that do not, the information) of one Gaussian coordinate."""
    x, noise, other = np.random.default_rng(seed).standard_normal((3, n))
    y, rest = correlation * x + np.sqrt(1 - correlation**2) * noise, 1 - correlation**2

    def pmi(x):
        return -np.log(rest) / 2 - (x**2 - 2 * correlation * x * y + y**2) / (2 * rest) + (x**2 + y**2) / 2

    return pmi(x), pmi(other), -np.log(rest) / 2


@equation("eq-gaussian-information")
@pytest.mark.parametrize("correlation", [0.3, -0.8])
def test_gaussian_information_is_its_mean_pmi(correlation):
    together, _, truth = gaussian(correlation, 200_000)
    assert together.mean() == pytest.approx(truth, abs=0.01)


@equation("eq-infonce")
@pytest.mark.parametrize("candidates", [2, 3])
def test_info_nce_of_the_best_critic_over_all_games(candidates):
    """Every game in a world of three prompts and five responses, weighted by its probability."""
    p = world()[0]
    f, total = information.pmi_table(p), 0.0
    for y in range(5):
        for game in np.ndindex(*[3] * candidates):  # the true prompt first
            chance = p[game[0], y] / 3**candidates
            total += chance * information.contrastive_bound([[f[x, y] for x in game]])
    assert 0 < total < information.mutual_information(p)
    assert total <= np.log(candidates)


@equation("eq-ceiling")
@pytest.mark.parametrize("candidates", [2, 64])
def test_nobody_shows_more_than_the_logarithm_of_n(candidates):
    scores = np.zeros((4, candidates))
    assert information.contrastive_bound(scores) == pytest.approx(0)
    scores[:, 0] = 500
    assert information.contrastive_bound(scores) == pytest.approx(np.log(candidates))


@equation("eq-nwj")
def test_nwj_is_tight_at_one_plus_pmi():
    together, apart, truth = gaussian(0.6, 400_000)
    assert information.nwj_bound(1 + together, 1 + apart) == pytest.approx(truth, abs=0.02)
    assert information.nwj_bound(together, apart) < truth - 0.1  # PMI itself is not its best critic


@equation("eq-donsker-varadhan")
def test_donsker_varadhan_is_tight_at_pmi_and_any_constant():
    together, apart, truth = gaussian(0.6, 400_000)
    found = information.donsker_varadhan_bound(together, apart)
    assert found == pytest.approx(truth, abs=0.02)
    assert information.donsker_varadhan_bound(together + 7, apart + 7) == pytest.approx(found)


def test_nwj_is_right_on_average_and_donsker_varadhan_too_high():
    """All samples of two pairs that do not belong together, in a world of two prompts and two responses."""
    joint = np.array([[4, 1], [1, 4]])
    pmi, truth = information.pmi_table(joint), information.mutual_information(joint)
    together, apart = np.repeat(pmi, joint.ravel()), pmi.ravel()  # apart, all four pairs are equally likely
    samples = [np.array(sample) for sample in itertools.product(apart, repeat=2)]
    nwj = [information.nwj_bound(1 + together, 1 + sample) for sample in samples]
    assert np.mean(nwj) == pytest.approx(truth) and max(nwj) > truth + 0.1
    found = [information.donsker_varadhan_bound(together, sample) for sample in samples]
    assert np.mean(found) > truth + 0.01


def test_a_game_of_two_tells_worlds_apart_whose_information_is_far_above_its_ceiling():
    """Sixteen symbols, copied with some error; every game enumerated."""

    def two(error):
        joint = ((1 - error) * np.eye(16) + error / 16) / 16
        pmi, given = information.pmi_table(joint), joint * 16
        games = [(given[0, y] / 16, [pmi[0, y], pmi[x, y]]) for y in range(16) for x in range(16)]
        shown = sum(chance * information.contrastive_bound([game]) for chance, game in games)
        return information.mutual_information(joint), shown

    (little, shows_little), (much, shows_much) = two(0.4), two(0.1)
    assert math.log(2) < little < much and shows_little < shows_much - 0.05 < math.log(2)


def readings(seed=0, tokens=6):
    """Next-token probabilities [V] told and untold, and logits of each that have another constant."""
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(tokens), size=2)
    return p, q, np.log(p) + 4, np.log(q) - 9


def softmax(scores):
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


@equation("eq-cad")
@equation("eq-cos")
@equation("eq-tilt")
@pytest.mark.parametrize("strength", [-1, 0, 0.5, 2])
def test_logits_log_probabilities_and_powers_are_steered_alike(strength):
    p, q, told, untold = readings()
    power = p * (p / q) ** strength / (p * (p / q) ** strength).sum()
    assert softmax((1 + strength) * told - strength * untold) == pytest.approx(power)
    assert softmax(np.log(p) + strength * (np.log(p) - np.log(q))) == pytest.approx(power)
    ours = steering.steered(torch.tensor(told), torch.tensor(untold), strength).softmax(-1)
    assert ours.numpy() == pytest.approx(power, rel=1e-4)


@equation("eq-look-ahead")
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_optimum_and_steering_differ_by_the_normalizers(beta):
    """Every response of two tokens, from a vocabulary of four; the second depends on the first."""
    rng = np.random.default_rng(3)
    first_p, first_q = rng.dirichlet(np.ones(4), size=2)
    then_p, then_q = rng.dirichlet(np.ones(4), size=(2, 4))
    p, q = first_p[:, None] * then_p, first_q[:, None] * then_q
    optimum = information.mipo_optimum(p.reshape(1, -1), q.ravel(), beta).reshape(4, 4)

    def step(p, q):
        weight = p * (p / q) ** (1 / beta)
        return weight / weight.sum(-1, keepdims=True), np.log(weight.sum(-1))

    (first, log_z_first), (then, log_z_then) = step(first_p, first_q), step(then_p, then_q)
    log_z = np.log((p * (p / q) ** (1 / beta)).sum())
    difference = np.log(optimum) - np.log(first[:, None] * then)
    assert difference == pytest.approx(np.broadcast_to((log_z_first + log_z_then - log_z)[:, None], (4, 4)))
    assert np.abs(difference).max() > 0.01  # they are not the same policy


@equation("eq-closer")
def test_a_mean_log_ratio_is_a_difference_of_divergences():
    (reference, policy, other), _ = world()
    found = (other * np.log(policy / reference)).sum()
    assert found == pytest.approx(information.divergence(other, reference) - information.divergence(other, policy))
    toward = 0.5 * reference + 0.5 * other  # a policy half way is nearer
    assert (other * np.log(toward / reference)).sum() > 0


@equation("eq-critic")
@pytest.mark.parametrize("beta", [0.01, 0.3])
def test_info_nce_is_a_softmax_of_powers_of_probabilities(beta):
    """Each response among its contexts, with probabilities in place of their logarithms."""
    m = numbers(4, 4) / 8  # [context, response]
    power = torch.exp(m) ** beta
    expected = -torch.log(torch.diagonal(power) / power.sum(0))
    assert torch.allclose(objectives.info_nce_loss(m.T, 1 / beta, torch.arange(4)), expected)
    # The constant of a response cancels: how likely it is at all does not matter, nor how long it is.
    assert torch.allclose(objectives.info_nce_loss((m - torch.arange(4.0)).T, 1 / beta, torch.arange(4)), expected)


@equation("eq-sami")
def test_sami_looks_along_rows_and_columns():
    m, n = numbers(3, 3) / 20, 3
    e = torch.exp(m)
    total = sum(torch.log(e[i, i] / e[i].sum()) + torch.log(e[i, i] / e[:, i].sum()) for i in range(n))
    assert torch.allclose(objectives.sami_loss(m), -total / (2 * n))
    # The constant of a response cancels in half of it only: that is why its length matters.
    moved = objectives.sami_loss(m - torch.arange(3.0))
    assert abs(moved - objectives.sami_loss(m)) > 0.1


@equation("eq-ipo")
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_ipo_per_token_has_its_goal_in_nats_per_token(beta):
    reference, tokens = numbers(2, 6), torch.tensor([[20.0, 7, 30, 4, 9, 11], [5.0, 8, 13, 40, 21, 3]])
    goal = reference + tokens * torch.tensor([[0.5 / beta + 0.2], [0.2]])  # per token: margin 1 / (2 beta)
    assert objectives.ipo_loss(*(goal / tokens), *(reference / tokens), beta).numpy() == pytest.approx(0, abs=1e-9)
    policy = numbers(2, 6, seed=1)
    ratio = (policy - reference) / tokens
    expected = (ratio[0] - ratio[1] - 1 / (2 * beta)) ** 2
    assert torch.allclose(objectives.ipo_loss(*(policy / tokens), *(reference / tokens), beta), expected)


@equation("eq-mio")
def test_mio_is_lowest_where_the_log_ratio_is_that_of_the_two_sides():
    """With chosen from p and rejected from q the best critic is T = log p / q, as for any classifier."""
    (p, *_), q = world()
    best = torch.tensor(np.log(p / q)).requires_grad_()
    zero = torch.zeros(len(q), dtype=torch.float64)

    def expected(t):  # every response once on each side: the halves of the loss at log-ratio t
        chosen, rejected = objectives.mio_loss(t, zero, zero, zero, 1.0), objectives.mio_loss(zero, t, zero, zero, 1.0)
        return (torch.tensor(p) * chosen + torch.tensor(q) * rejected).sum()

    (slope,) = torch.autograd.grad(expected(best), best)
    assert slope.abs().max() < 1e-12
    assert expected(best.detach() + 0.5) > expected(best) + 1e-3
    policy, reference = numbers(2, 6), numbers(2, 6, seed=1)
    t = 0.4 * (policy - reference)
    by_hand = torch.log(1 + torch.exp(-t[0])) + torch.log(1 + torch.exp(t[1]))
    assert torch.allclose(objectives.mio_loss(*policy, *reference, 0.4), by_hand)


@equation("eq-advantage")
@pytest.mark.parametrize("seed", range(3))
def test_advantages_of_a_group_have_mean_zero_and_do_not_know_the_unit(seed):
    """As TRL's trainer works them out, against the formula."""
    from trl.trainer.utils import nanstd

    r = torch.tensor(np.random.default_rng(seed).normal(size=8))
    trls = (r - r.nanmean()) / (nanstd(r) + 1e-4)
    ours = (r.numpy() - r.numpy().mean()) / (r.numpy().std(ddof=1) + 1e-4)
    assert trls.numpy() == pytest.approx(ours)
    assert ours.mean() == pytest.approx(0, abs=1e-12)
    scaled = 100 * r.numpy() + 7
    assert (scaled - scaled.mean()) / scaled.std(ddof=1) == pytest.approx(ours, rel=1e-3)


@equation("eq-silent")
@pytest.mark.parametrize("p, group", [(0.3, 8), (0.05, 4)])
def test_silent_groups_are_as_common_as_the_formula_says(p, group):
    drawn = np.random.default_rng(0).random((40_000, group)) < p
    silent = (drawn.all(1) | ~drawn.any(1)).mean()
    assert silent == pytest.approx(p**group + (1 - p) ** group, abs=0.01)


@equation("eq-information")
def test_an_information_reward_is_pmi_with_a_marginal_over_other_problems():
    """In a world small enough to count: on average it is the mutual information, plus what the marginal leaves out."""
    responses, marginal = world(users=3, responses=5)
    responses = np.array(responses)
    for x, p in enumerate(responses):
        others = np.delete(responses, x, axis=0)
        reward = np.log(p) - np.log(others.mean(0))
        assert reward == pytest.approx(np.log(p) - np.logaddexp.reduce(np.log(others), axis=0) + np.log(2))
        assert (p * reward).sum() == pytest.approx(information.divergence(p, others.mean(0)))
        assert (p * reward).sum() > 0


@equation("eq-spread")
@pytest.mark.parametrize("n", [2, 5])
def test_the_mean_distance_of_all_pairs_is_in_the_length_of_the_mean(n):
    v = np.random.default_rng(n).normal(size=(n, 4))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    left = 2 / (n * (n - 1)) * sum(1 - v[i] @ v[j] for j in range(n) for i in range(j))
    assert left == pytest.approx(n / (n - 1) * (1 - np.linalg.norm(v.mean(0)) ** 2))
    assert diversity.spread(v) == pytest.approx(left)


@equation("eq-ties")
@pytest.mark.parametrize("p", [[0.2] * 5, [0.7, 0.1, 0.1, 0.1], [1.0]])
def test_an_equal_wins_more_than_half_where_ties_are_wins(p):
    """Both grades enumerated."""
    p = np.array(p)
    joint = np.outer(p, p)
    first, second = np.indices(joint.shape)
    tie = joint[first == second].sum()
    wins = joint[first >= second].sum()
    assert wins == pytest.approx((1 - tie) / 2 + tie) == pytest.approx((1 + tie) / 2)
    assert win_rates.chance(p) == pytest.approx(100 * wins)


@equation("eq-standard-error")
@pytest.mark.parametrize("p, n", [(0.8, 3), (0.3, 5)])
def test_standard_error_of_a_share_by_counting(p, n):
    """Every way in which n questions can come out, with its probability."""
    ways = [(sum(w), np.prod([p if right else 1 - p for right in w])) for w in itertools.product([0, 1], repeat=n)]
    variance = sum(chance * (right / n - p) ** 2 for right, chance in ways)
    assert np.sqrt(variance) == pytest.approx(np.sqrt(p * (1 - p) / n))


@equation("eq-seeds-and-questions")
def test_what_seeds_and_questions_add_to_the_error_by_counting():
    """Every draw of 2 seeds and 3 questions out of a world of 3 seeds and 2 questions."""
    world = np.array([[1.0, -1.0], [0.0, 2.0], [1.0, 0.0]])
    seeds, questions = world.mean(1), world.mean(0)
    left = world - seeds[:, None] - questions + world.mean()
    k, n = 2, 3
    means = [
        world[np.ix_(some, others)].mean()
        for some in itertools.product(range(3), repeat=k)
        for others in itertools.product(range(2), repeat=n)
    ]
    variance = questions.var() / n + seeds.var() / k + left.var() / (n * k)
    assert np.var(means) == pytest.approx(variance)
    # The estimates that the notebook puts in for the three are unbiased: see the tests of `statistics.components`.
    assert statistics.components(np.tile(questions, (3, 1)))[0] == pytest.approx(questions.var(ddof=1))


@equation("eq-link")
def test_the_shift_of_a_link_is_the_change_of_its_log_odds():
    """By probabilities of a right and a broken text, before and after; what makes both likelier alike cancels."""
    rng = np.random.default_rng(0)
    right, broken = rng.uniform(0.01, 0.4, size=(2, 2, 5))  # before and after, five problems
    value = lambda k, louder=1.0: {"links": {"form": np.log(louder * right[k]) - np.log(louder * broken[k])}}  # noqa: E731
    by_hand = np.log((right[1] / broken[1]) / (right[0] / broken[0]))
    assert without_labels.gains(value(0), [value(1)], "form")[0] == pytest.approx(by_hand)
    assert without_labels.gains(value(0), [value(1, louder=2.0)], "form")[0] == pytest.approx(by_hand)


@equation("eq-chain")
def test_accuracy_is_a_chain_of_four_shares_by_counting():
    kinds = np.array(["right"] * 4 + ["wrong reasoning"] * 3 + ["arithmetic slip"] * 2 + ["format", "off-topic"])
    on_topic = kinds != "off-topic"
    readable = on_topic & ~np.isin(kinds, ["format", "no answer"])
    holds = readable & (kinds != "arithmetic slip")
    right = kinds == "right"
    links = [on_topic.mean(), readable[on_topic].mean(), holds[readable].mean(), right[holds].mean()]
    assert np.prod(links) == pytest.approx(right.mean())
    assert decomposition.factors(decomposition.passed(kinds).mean(0)) == pytest.approx(links)


@equation("eq-split")
@pytest.mark.parametrize("count", [2, 4])
def test_the_split_of_a_product_is_the_mean_over_all_orders_and_adds_up(count):
    b, a = np.random.default_rng(count).uniform(size=(2, count))
    orders = list(itertools.permutations(range(count)))
    by_orders = np.zeros(count)
    for order in orders:
        for place, i in enumerate(order):
            rest = [a[j] if j in order[:place] else b[j] for j in range(count) if j != i]
            by_orders[i] += (a[i] - b[i]) * np.prod(rest) / len(orders)
    formula = np.zeros(count)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for chosen in itertools.product([0, 1], repeat=count - 1):
            size = sum(chosen)
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            rest = [a[j] if one else b[j] for j, one in zip(others, chosen, strict=True)]
            formula[i] += weight * (a[i] - b[i]) * np.prod(rest)
    assert formula == pytest.approx(by_orders)
    assert formula == pytest.approx(decomposition.split(b, a))
    assert formula.sum() == pytest.approx(a.prod() - b.prod())


@equation("eq-slope")
@pytest.mark.parametrize("turns", [2, 3, 5])
def test_the_slope_is_that_of_the_best_line_and_linear_in_the_gains(turns):
    gains = np.random.default_rng(turns).normal(size=(4, turns))
    t = np.arange(1, turns + 1)
    centred = t - (turns + 1) / 2
    by_hand = [(centred * g).sum() / (centred**2).sum() for g in gains]
    assert by_hand == pytest.approx([np.polyfit(t, g, 1)[0] for g in gains])
    assert creative.slope(gains) == pytest.approx(np.array(by_hand))
    assert creative.slope(gains).mean() == pytest.approx(creative.slope(gains.mean(0)))


# --- notebook 40 ---


@equation("eq-what-is-divided-by")
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_the_optimum_divides_by_what_the_rejected_side_is_drawn_from(beta):
    """For a mixture that is the mixture, and not one optimum or the other; the gradient of the expected loss vanishes there."""
    p, q = world()
    mixture = (p.mean(0) + q) / 2
    best = p * (p / mixture) ** (1 / beta)
    best /= best.sum(-1, keepdims=True)
    assert best == pytest.approx(information.mipo_optimum(p, mixture, beta))
    policy = torch.tensor(np.log(best)).requires_grad_()
    ratio = policy.log_softmax(-1) - torch.tensor(p).log()
    chosen, rejected = ratio[:, :, None], ratio[:, None, :]
    pairs = objectives.dpo_loss(chosen, rejected, 0 * chosen, 0 * rejected, beta)
    halves = [
        torch.tensor(p)[:, :, None] * torch.tensor(one) for one in (p.mean(0), q)
    ]  # half of the pairs of each kind
    (sum(halves) / 2 * pairs).sum().backward()
    assert policy.grad.abs().max() < 1e-12


@equation("eq-told-of-a-part")
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_optimum_moves_what_is_told_of_the_wish_and_for_the_person_adds_a_constant(beta):
    """Trained against the other wish, where a wish does the same to both people; else the person's part moves too."""
    rng = np.random.default_rng(0)
    of_person, of_wish, together = (rng.normal(size=shape) for shape in ((2, 1, 6), (1, 2, 6), (2, 2, 6)))

    def moved(logits, other):
        """[responses]: the displayed change for person 0 and wish 0, against the context at `other`."""
        reference = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        policy = information.mipo_optimum(reference, reference[:, ::-1], beta)
        return np.log(policy[0, 0] / policy[other]) - np.log(reference[0, 0] / reference[other])

    of_both = (of_wish[0, 0] - of_wish[0, 1]) * 2 / beta  # of each of the two wishes, against the other
    assert np.ptp(moved(of_person + of_wish, (0, 1)) - of_both) == pytest.approx(0, abs=1e-9)
    assert np.ptp(moved(of_person + of_wish, (1, 0))) == pytest.approx(0, abs=1e-9)
    assert np.ptp(moved(of_person + of_wish + together, (1, 0))) > 0.1


# --- notebook 41 ---


def repeated(p, a):
    """One round of MIPO at its optimum, by `information.mipo_optimum`: the negative is the mean over users."""
    return np.stack([information.mipo_optimum(row, p.mean(0), 1 / a) for row in p])


@equation("eq-repeated")
@pytest.mark.parametrize("a", [0.2, 1.0])
def test_rounds_compound_where_all_users_together_are_uniform(a):
    """Each user's row is the first one turned, so that every response is as likely as any other over all of them."""
    first = np.random.default_rng(0).dirichlet(np.ones(5))
    p = start = np.stack([np.roll(first, k) for k in range(5)])
    for k in range(1, 4):
        p = repeated(p, a)
        power = start ** ((1 + a) ** k)
        assert p == pytest.approx(power / power.sum(1, keepdims=True))


@equation("eq-best-of-n")
def test_the_best_of_n_is_a_weighted_sum_of_what_was_drawn():
    """By counting the sets of n draws; and over all samples of a known distribution it is the expected best of n."""
    values = sorted([0.0, 0.2, 0.2, 0.9])
    for n in range(1, 5):
        share = [
            len(list(itertools.combinations(range(i), n - 1))) / len(list(itertools.combinations(range(4), n)))
            for i in range(4)
        ]
        assert evaluation.best_of([values], n)[0] == pytest.approx(np.dot(share, values))
        samples = np.array(list(itertools.product([0, 1, 2], repeat=4)), dtype=float)
        best = np.mean([max(some) for some in itertools.product([0, 1, 2], repeat=n)])
        assert evaluation.best_of(samples, n).mean() == pytest.approx(best)


@equation("eq-still-speaks")
@pytest.mark.parametrize("p, group", [(0.3, 4), (0.9, 6)])
def test_a_group_speaks_where_its_rewards_differ(p, group):
    """Over all outcomes of a group: those in which some advantage is not zero have the probability displayed."""
    speaks = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=group):
        advantages = np.array(rewards) - np.mean(rewards)
        speaks += (advantages != 0).any() * math.prod(p if r else 1 - p for r in rewards)
    assert speaks == pytest.approx(1 - p**group - (1 - p) ** group)


@equation("eq-silent-pair")
@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_the_weight_of_a_pair_is_what_the_gradient_of_its_loss_is_scaled_by(beta):
    """By automatic differentiation, over both log-ratios; -beta times the weight is the slope in the margin."""
    chosen, rejected, reference_chosen, reference_rejected = numbers(4, 6)
    chosen.requires_grad_()
    rejected.requires_grad_()
    objectives.dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta).sum().backward()
    margins = ((chosen - reference_chosen) - (rejected - reference_rejected)).detach().numpy()
    weights = rounds.weights(margins, beta)
    assert chosen.grad.numpy() == pytest.approx(-beta * weights)
    assert rejected.grad.numpy() == pytest.approx(beta * weights)
