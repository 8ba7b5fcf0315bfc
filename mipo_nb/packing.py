"""Sequences that share prefixes, run end to end in one row without padding: what scoring, training and prefill stand on.

A group is one prefix and the branches that follow it: the two sides of a pair after their prompt, several prompts after
one user's context, several responses to one conversation. The prefix is computed once; position ids restart after it
and a mask hides the branches from one another, so that every number is what separate rows give, up to rounding (for DPO
pairs: Wang and Hegde, arXiv 2410.20305). Logits are computed only where a scored token is predicted.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch

from mipo_nb.attention import NAME, Row, use_grouped_attention

_LONGEST_ROW = 2048  # tokens


@dataclass
class Group:
    """A prefix (token ids), the branches after it, and for each branch how many of its last tokens are scored."""

    prefix: list
    branches: list = field(default_factory=list)
    scored: list = field(default_factory=list)


def group(sequences, limits):
    """([Group], order): sequences of token ids gathered under the prefixes they share.

    `limits[i]` is how much of sequence i may be prefix; the tokens after it are scored. `order` lists the index of each
    branch, group by group. Two sequences come together where they share at least half of the prefix.
    """
    groups, members = [], []
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i][: limits[i]]):
        start = sequences[i][: limits[i]]
        if groups:
            common = _common(groups[-1], start)
            tokens = common + sum(len(sequences[k]) - common for k in [*members[-1], i])
            if 2 * common >= len(groups[-1]) and tokens <= _LONGEST_ROW:
                groups[-1] = start[:common]
                members[-1].append(i)
                continue
        groups.append(start)
        members.append([i])
    made = [
        Group(prefix, [sequences[i][len(prefix) :] for i in own], [len(sequences[i]) - limits[i] for i in own])
        for prefix, own in zip(groups, members, strict=True)
    ]
    return made, [i for own in members for i in own]


def _common(a, b):
    """How many first tokens two lists share."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def pack(groups, device):
    """The tokens of all groups end to end.

    Returns `tokens` and `positions` [1, T], `rows` (a list of `attention.Row`), for each scored token where its
    predictor stands (`at`) and what it is (`target`), and `places`: where the tokens of each whole sequence lie.
    """
    tokens, positions, rows, at, target, places = [], [], [], [], [], []
    for one in groups:
        start, length = len(tokens), len(one.prefix)
        tokens += one.prefix
        positions += range(length)
        for branch, scored in zip(one.branches, one.scored, strict=True):
            place = [*range(start, start + length), *range(len(tokens), len(tokens) + len(branch))]
            # A token is predicted at the one before it, which for a branch's first token is the prefix's last.
            at += place[len(place) - scored - 1 : -1]
            target += branch[len(branch) - scored :]
            tokens += branch
            positions += range(length, length + len(branch))
            places.append(place)
        rows.append(Row(length, tuple(len(branch) for branch in one.branches if branch)))
    tokens, positions, at, target = (
        torch.tensor(x, dtype=torch.long, device=device) for x in (tokens, positions, at, target)
    )
    return SimpleNamespace(
        tokens=tokens[None], positions=positions[None], rows=rows, at=at, target=target, places=places
    )


def hidden_states(model, packed, cache=None):
    """[T, h]: the decoder's output for packed rows. `cache` is filled with their keys and values, packed likewise."""
    return model.get_decoder()(
        input_ids=packed.tokens,
        position_ids=packed.positions,
        attention_mask=packed.tokens.new_ones(1, 1, 1, 1),  # of four axes, so that transformers makes none of its own
        rows=packed.rows,
        past_key_values=cache,
        use_cache=cache is not None,
    )[0][0]


def completion_scores(model, groups):
    """Log-probs, entropy, mean logit, and whether it is the likeliest, of every scored token; each [tokens], float32.

    The tokens come group by group, branch by branch. Differentiable in the log-probs.
    """
    base = without_adapter_shell(model)
    packed = pack(groups, next(base.parameters()).device)
    hidden = hidden_states(base, packed)[packed.at]
    head = base.get_output_embeddings()
    return HeadLogProbabilities.apply(hidden, head.weight, packed.target, vars(head).get("packed"))


def without_adapter_shell(model):
    """The transformers model inside a PEFT model, its adapters in place; a model that has none as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class HeadLogProbabilities(torch.autograd.Function):
    """Log-probability of target tokens from hidden states [T, h] and a frozen head [V, h], without keeping logits.

    `packed` is the head as a `linear.PackedWeight`, where there is one.

    Returns log-probs, entropy, mean logit and whether the target is the likeliest token, each [T]. The gradient of
    log p_t with respect to the hidden state is W[t] - sum_v p_v W[v]; each token has one number coming back from the
    loss, so this vector is made in the forward pass, piece by piece while the logits are at hand, and only scaled in
    the backward pass.
    """

    piece = 128  # tokens at a time; the two buffers for their logits are all the memory this takes

    @staticmethod
    def forward(ctx, hidden, weight, target, packed=None):
        weight = weight.to(hidden.dtype)
        found = torch.empty(4, len(target), dtype=torch.float32, device=hidden.device)
        needed = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if needed else None
        size = min(HeadLogProbabilities.piece, len(target))
        wide, probability = (hidden.new_empty(size, len(weight), dtype=torch.float32) for _ in range(2))
        for start in range(0, len(target), size):
            part = slice(start, min(start + size, len(target)))
            log_probs, p = (buffer[: part.stop - start] for buffer in (wide, probability))
            log_probs.copy_(packed.multiply(hidden[part]) if packed else hidden[part] @ weight.T)
            picked, likeliest = log_probs.gather(-1, target[part, None]), log_probs.amax(-1, keepdim=True)
            found[2, part], found[3, part] = log_probs.mean(-1), (picked >= likeliest)[:, 0].float()
            torch.exp(log_probs.sub_(likeliest), out=p)
            total = p.sum(-1, keepdim=True)
            found[0, part] = (picked - likeliest - total.log())[:, 0]
            found[1, part] = (total.log() - log_probs.mul_(p).sum(-1, keepdim=True) / total)[:, 0]
            if needed:
                p = p.div_(total).to(weight.dtype)
                gradient[part] = packed.multiply_back(p) if packed else p @ weight
        if needed:
            ctx.save_for_backward(gradient.neg_().add_(weight[target]))
        return tuple(found)

    @staticmethod
    def backward(ctx, log_probs, *others):
        (gradient,) = ctx.saved_tensors
        return (gradient * log_probs[:, None]).to(gradient.dtype), None, None, None


@torch.no_grad()
def shares_prefixes(model):
    """Whether this model can be run on packed rows, tried on two equal branches of one prefix.

    Both must then be equally likely; a model that could see the first would copy it. Switches its attention to
    `grouped_sdpa` where it can be.
    """
    base = without_adapter_shell(model)
    if getattr(base, "_shares_prefixes", None) is None:
        base._shares_prefixes = _tried(base)
    return base._shares_prefixes and base.config._attn_implementation == NAME


def _tried(base):
    use_grouped_attention(base)
    head = base.get_output_embeddings()
    if base.config._attn_implementation != NAME or head is None or getattr(head, "bias", None) is not None:
        return False
    if getattr(base.config, "attn_logit_softcapping", None) or getattr(base.config, "final_logit_softcapping", None):
        return False
    twice = Group(list(range(5, 13)), [list(range(13, 37))] * 2, [24, 24])
    # The model's mode is left alone: on a CPU, bitsandbytes repacks 4-bit weights at the first forward pass in evaluation
    # mode, and gradients through repacked weights are wrong.
    try:
        first, second = completion_scores(base, [twice])[0].view(2, -1)
    except TypeError:  # a forward pass that does not hand `rows` on
        return False
    return bool((first - second).abs().mean() < 0.05 * first.abs().mean())
