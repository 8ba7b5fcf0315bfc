"""Training objectives as pure functions of sequence log-probabilities (torch tensors, summed over tokens, in nats).

A lower value is better in all of them. Notebook 03 derives the first; notebook 20 compares them.
"""

import torch
from torch.nn.functional import cross_entropy, logsigmoid, softplus


def log_ratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    """[log pi(y+) - log pi_ref(y+)] - [log pi(y-) - log pi_ref(y-)], the margin / beta; all of shape [pairs]."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """-log sigmoid(beta * margin) per pair (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7); shape [pairs].

    ln 2 for an untrained policy. Larger `beta` holds the policy closer to the reference.
    """
    margin = log_ratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -logsigmoid(beta * margin)


def ipo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """(margin - 1 / (2 beta))^2 per pair (Azar et al. 2023, arXiv 2310.12036, Eq. 17, summed log-probs); shape [pairs].

    1 / (4 beta^2) for an untrained policy. A margin beyond its goal costs too. TRL's "ipo" divides each log-prob by the
    tokens of its side, so that the goal is in nats per token.
    """
    margin = log_ratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return (margin - 1 / (2 * beta)) ** 2


def mio_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """softplus(-T+) + softplus(T-) per pair, with T = beta log(pi / pi_ref) (MIO, arXiv 2506.22578); shape [pairs].

    2 ln 2 for an untrained policy. Each side is classified by itself, so raising both sides does not lower the loss.
    """
    chosen, rejected = beta * (policy_chosen - reference_chosen), beta * (policy_rejected - reference_rejected)
    return softplus(-chosen) + softplus(rejected)


def info_nce_loss(scores, temperature=1.0, true=None):
    """-log softmax of the true context among N, per response (van den Oord et al. 2018, arXiv 1807.03748, Eq. 4).

    `scores` [n, N]: log pi(y_i | context j of row i), or any critic; `true` [n] is the column of the true context, 0 by
    default. log N where all contexts fit equally; log N minus its mean is a lower bound on mutual information.
    """
    true = scores.new_zeros(len(scores), dtype=torch.long) if true is None else true
    return cross_entropy(scores / temperature, true, reduction="none")


def sami_loss(scores):
    """Mean of row and column cross-entropy of a square matrix [N, N] (SAMI, Franken et al. 2024, arXiv 2404.14313).

    `scores[i, j]`: log pi(y_j | x_i), per-token means in the paper. Each response should identify its prompt and each
    prompt its response; transposing the matrix leaves the loss as it is. One number.
    """
    diagonal = torch.arange(len(scores), device=scores.device)
    return (cross_entropy(scores, diagonal) + cross_entropy(scores.T, diagonal)) / 2


def sft_loss(policy_chosen, tokens):
    """Negative log-likelihood per token, one number, from summed log-probs [n] and lengths in tokens [n]."""
    return -policy_chosen.sum() / tokens.sum()
