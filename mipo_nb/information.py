"""Information between a prompt and a response: pure functions of arrays of log-probabilities, in nats."""

import numpy as np


def pointwise_mutual_information(logp_with, logp_without):
    """log p(y|x,c) - log p(y|x), in nats; arrays of one shape, per response or per token.

    With the marginal of a prompt in place of the second term this is the PMI of prompt and response. It is what MIPO
    maximizes under the base model (arXiv 2603.19294).
    """
    return np.asarray(logp_with, dtype=float) - np.asarray(logp_without, dtype=float)


def contrastive_bound(scores):
    """InfoNCE lower bound on mutual information (van den Oord et al. 2018, arXiv 1807.03748), in nats.

    `scores` is [n, N]: log-probabilities (or any critic) of response i under N contexts, the true one in column 0.
    The bound log N + mean log softmax can never exceed log N.
    """
    scores = np.asarray(scores, dtype=float)
    top = scores.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
    return float(np.log(scores.shape[1]) + (scores[:, 0] - log_sum).mean())


def identified(scores):
    """Array [n] of 0 and 1: is the true context (column 0 of [n, K]) the strictly best? Ties share the credit."""
    scores = np.asarray(scores, dtype=float)
    best = scores.max(axis=1)
    ties = (scores == best[:, None]).sum(axis=1)
    return np.where(scores[:, 0] == best, 1.0 / ties, 0.0)


def area_under_curve(scores):
    """Array [n]: share of the K-1 wrong contexts that score below the true one (column 0), ties counting half.

    Its mean is the AUC of "which context was this response written for" within rows; 0.5 is chance.
    """
    scores = np.asarray(scores, dtype=float)
    true, wrong = scores[:, :1], scores[:, 1:]
    return ((true > wrong) + 0.5 * (true == wrong)).mean(axis=1)
