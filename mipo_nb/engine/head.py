"""Log-probabilities of tokens from a model's head, without keeping the logits of all of them: those of a batch would be most
of the memory that it takes.
"""

import torch
from torch.utils.checkpoint import checkpoint


class HeadLogProbabilities(torch.autograd.Function):
    """Log-probability of target tokens from hidden states [T, h] and a frozen head [V, h], without keeping logits.

    Returns log-probs and entropy (nats), mean logit and whether the target is the likeliest token, each [T]. `packed`
    is the head as a `linear.PackedWeight`, if any. The gradient of log p_t with respect to the hidden state is
    W[t] - sum_v p_v W[v]; the loss sends one number back for each token, so the forward pass computes this vector,
    piece by piece while the logits are at hand, and the backward pass only scales it.
    """

    piece = 128  # tokens at a time; the two buffers for their logits are all the memory this takes

    @staticmethod
    def forward(ctx, hidden, weight, target, packed=None):
        weight = weight.to(hidden.dtype)
        scores = torch.empty(4, len(target), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        size = max(1, min(HeadLogProbabilities.piece, len(target)))  # no target at all is no mistake
        wide, probability = (hidden.new_empty(size, len(weight), dtype=torch.float32) for _ in range(2))
        for start in range(0, len(target), size):
            part = slice(start, min(start + size, len(target)))
            log_probs, p = (buffer[: part.stop - start] for buffer in (wide, probability))
            log_probs.copy_(packed.multiply(hidden[part]) if packed else hidden[part] @ weight.T)
            picked, likeliest = log_probs.gather(-1, target[part, None]), log_probs.amax(-1, keepdim=True)
            scores[2, part], scores[3, part] = log_probs.mean(-1), (picked >= likeliest)[:, 0].float()
            torch.exp(log_probs.sub_(likeliest), out=p)
            total = p.sum(-1, keepdim=True)
            scores[0, part] = (picked - likeliest - total.log())[:, 0]
            scores[1, part] = (total.log() - log_probs.mul_(p).sum(-1, keepdim=True) / total)[:, 0]
            if gradient is not None:
                p = p.div_(total).to(weight.dtype)
                gradient[part] = packed.multiply_back(p) if packed else p @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient.neg_().add_(weight[target]))
        return tuple(scores)

    @staticmethod
    def backward(ctx, log_probs, *others):
        (gradient,) = ctx.saved_tensors
        return (gradient * log_probs[:, None]).to(gradient.dtype), None, None, None


def scores_of_learning_head(hidden, weight, target):
    """What `HeadLogProbabilities` gives, where the head learns too: by autograd, piece by piece, the logits of each computed
    again on the way back, since those of all would be most of the memory that a batch takes."""
    pieces = zip(*(x.split(HeadLogProbabilities.piece) for x in (hidden, target)), strict=True)
    again = {"use_reentrant": False, "preserve_rng_state": False}
    scores = [checkpoint(_scores_of_piece, part, weight, tokens, **again) for part, tokens in pieces]
    return tuple(map(torch.cat, zip(*scores, strict=True)))


def _scores_of_piece(hidden, weight, target):
    return scores_of_logits((hidden @ weight.T).float(), target)


def scores_of_logits(logits, target):
    """What `HeadLogProbabilities` gives of tokens `target` [T], from the logits [T, V] that predict them; differentiable."""
    log_probs = logits.log_softmax(-1)
    picked = log_probs.gather(-1, target[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return picked, entropy, logits.mean(-1), (picked >= log_probs.amax(-1)).float()
