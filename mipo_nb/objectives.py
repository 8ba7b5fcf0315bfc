"""Training objectives as pure functions of sequence log-probabilities (torch tensors, summed over tokens, in nats)."""


def log_ratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    """[log pi(y+) - log pi_ref(y+)] - [log pi(y-) - log pi_ref(y-)], the margin / beta; all of shape [pairs]."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """-log sigmoid(beta * margin) per pair (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7); shape [pairs].

    ln 2 for an untrained policy. Larger `beta` holds the policy closer to the reference.
    """
    from torch.nn.functional import logsigmoid

    margin = log_ratio_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -logsigmoid(beta * margin)
