"""Information between prompt and response, in nats: pure functions of arrays of probabilities or log-probabilities."""

import numpy as np
from scipy.special import logsumexp


def pmi_table(joint):
    """Array [X, Y]: log p(x, y) / (p(x) p(y)) of a table of joint probabilities or counts.

    0 where x and y are independent; minus infinity where a pair never occurs (Fano 1961; Church and Hanks 1990).
    Raises `ValueError` for a negative entry, or a table without any count.
    """
    joint = np.asarray(joint, dtype=float)
    if (joint < 0).any() or joint.sum() <= 0:
        raise ValueError("A table of counts has no negative entry and at least one positive one.")
    joint = joint / joint.sum()
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(joint > 0, np.log(joint / expected), -np.inf)


def mutual_information(joint):
    """Sum of p(x, y) PMI(x, y) over a table of joint probabilities or counts [X, Y]: never negative, in nats."""
    pmi, joint = pmi_table(joint), np.asarray(joint, dtype=float)
    return float((joint[joint > 0] / joint.sum() * pmi[joint > 0]).sum())


def pointwise_mutual_information(logp_with, logp_without):
    """log p(y|x,c) - log p(y|x), in nats; arrays of one shape, per response or per token.

    With log p(y) as its second term, the PMI of prompt and response. Under the base model MIPO maximizes it
    (arXiv 2603.19294).
    """
    return np.asarray(logp_with, dtype=float) - np.asarray(logp_without, dtype=float)


def log_marginal(scores):
    """Array [n]: log of the mean over K of exp(scores), from log p(y_i | x_k) [n, K] under K random prompts.

    The mean is an unbiased estimate of p(y); its logarithm is too low on average, more so for small K (Jensen). MIPO
    draws its rejected response from the same mixture and never needs this number.
    """
    scores = np.asarray(scores, dtype=float)
    return logsumexp(scores, axis=1) - np.log(scores.shape[1])


def contrastive_bound(scores):
    """InfoNCE lower bound on mutual information (van den Oord et al. 2018, arXiv 1807.03748), in nats.

    `scores` is [n, N]: log-probabilities (or any critic) of response i under N contexts, the true one in column 0.
    The bound log N + mean log softmax can never exceed log N.
    """
    scores = np.asarray(scores, dtype=float)
    return float(np.log(scores.shape[1]) + (scores[:, 0] - logsumexp(scores, axis=1)).mean())


def nwj_bound(true, wrong):
    """E[f] - E[e^(f-1)]: critic values [n] on pairs that belong together, and [m] on pairs that do not, in nats.

    Nguyen, Wainwright and Jordan 2010 (arXiv 0809.0853). A lower bound for every critic, tight at f = 1 + PMI; its
    variance grows with the exponential of the information.
    """
    wrong = np.asarray(wrong, dtype=float)
    return float(np.mean(true) - np.exp(logsumexp(wrong - 1) - np.log(wrong.size)))


def donsker_varadhan_bound(true, wrong):
    """E[f] - log E[e^f]: arguments as in `nwj_bound`, in nats (Donsker and Varadhan 1983; MINE, arXiv 1801.04062).

    Tight at f = PMI plus any constant. With finitely many samples the logarithm of the mean biases it upwards.
    """
    wrong = np.asarray(wrong, dtype=float)
    return float(np.mean(true) - (logsumexp(wrong) - np.log(wrong.size)))


def mipo_optimum(reference, negative, beta):
    """pi*(y|x) proportional to p (p / q)^(1/beta): the minimum of the expected DPO loss, rows that sum to 1.

    `reference` [X, Y] is p = pi_ref(y|x), the chosen side's distribution and where training starts. `negative`, of the
    same shape or [Y], is q, the rejected side's: pi_ref(y) for random prompts, pi_ref(y|x) without its context for
    missing ones (arXiv 2603.19294; derived in notebook 03). All entries positive, beta > 0.
    """
    logits = np.log(reference) + (np.log(reference) - np.log(negative)) / beta
    return np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))


def divergence(p, q):
    """Kullback-Leibler divergence of each row of p [..., Y] from q, in nats; p and q positive and summing to 1."""
    return (np.asarray(p) * (np.log(p) - np.log(q))).sum(-1)


def total_variation(p, q):
    """Half the summed absolute difference of each row, 0 to 1."""
    return np.abs(np.asarray(p) - np.asarray(q)).sum(-1) / 2


def identified(scores):
    """Array [n]: 1 where the true context (column 0 of [n, K]) scores best, else 0; m tied contexts get 1/m each; NaN with a NaN."""
    scores = np.asarray(scores, dtype=float)
    best = scores.max(axis=1)
    ties = (scores == best[:, None]).sum(axis=1)
    return np.where(np.isnan(best), np.nan, (scores[:, 0] == best) / np.maximum(ties, 1))


def area_under_curve(scores):
    """Array [n]: share of the K-1 wrong contexts that score below the true one (column 0), ties counting half.

    Its mean is the AUC of "which context was this response written for" within rows; 0.5 is chance.
    """
    scores = np.asarray(scores, dtype=float)
    true, wrong = scores[:, :1], scores[:, 1:]
    area = ((true > wrong) + 0.5 * (true == wrong)).mean(axis=1)
    return np.where(np.isnan(scores).any(axis=1), np.nan, area)
