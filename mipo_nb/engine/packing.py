"""Sequences that begin alike, run end to end in one row without padding: what scoring, training and prefill stand on.

What sequences share is a piece that is computed once, and so on down a tree: system message, user's context, question,
responses. Position ids go on from piece to piece and attention follows the tree, so that numbers are those of separate
rows, up to rounding (for the two sides of DPO pairs: Wang and Hegde, arXiv 2410.20305). Logits are computed only where
a scored token is predicted.
"""

import itertools
from types import SimpleNamespace

import torch
from torch.utils.checkpoint import checkpoint

from mipo_nb.engine.attention import NAME, Piece, in_batches, use_grouped_attention

_WORTH = 8  # tokens that sharing must save: a piece costs some calls in every layer


def tree(sequences):
    """(pieces, their tokens, paths): sequences of token ids as a tree of what they begin with.

    `pieces` is a list of `attention.Piece`, each after the piece that it follows; `paths[i]` lists the pieces of
    sequence i in order. Equal sequences have one path.
    """
    pieces, tokens, paths = [], [], {}

    def grow(members, depth, path):
        common = _common(members[0], members[-1])  # they are sorted: what the first and the last share, all share
        if len(members) == 1 or (len(members) - 1) * (common - depth) >= _WORTH:
            if common > depth:
                pieces.append(Piece(common - depth, path[-1] if path else None))
                tokens.append(members[0][depth:common])
                path = [*path, len(pieces) - 1]
            depth = common
        for _, branch in itertools.groupby(members, lambda sequence: sequence[common : common + 1]):
            branch = list(branch)
            if len(branch[0]) == depth:
                paths[branch[0]] = path
            else:
                grow(branch, depth, path)

    sequences = list(map(tuple, sequences))
    grow(sorted(set(sequences)), 0, [])
    return pieces, tokens, [paths[sequence] for sequence in sequences]


def _common(a, b):
    """How many first tokens two sequences share."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def pack(sequences, starts, device):
    """Sequences (lists of token ids) end to end, what they share once; tokens from `starts[i]` on are scored.

    Returns `tokens` and `positions` [1, T], `pieces` (a list of `attention.Piece`), for each scored token, sequence by
    sequence, where its predictor is (`at`) and what it is (`target`), and `places`: where each sequence's tokens are.
    """
    pieces, tokens, paths = tree(sequences)
    ends = list(itertools.accumulate(piece.length for piece in pieces))
    begins = []  # the position of each piece's first token
    for piece in pieces:
        begins.append(0 if piece.after is None else begins[piece.after] + pieces[piece.after].length)
    places = [[at for k in path for at in range(ends[k] - pieces[k].length, ends[k])] for path in paths]
    positions = [begin + k for piece, begin in zip(pieces, begins, strict=True) for k in range(piece.length)]
    # A token is predicted at the token before it.
    predictors = [at for whole, start in zip(places, starts, strict=True) for at in whole[start - 1 : -1]]
    targets = [token for sequence, start in zip(sequences, starts, strict=True) for token in sequence[start:]]
    lists = [token for piece in tokens for token in piece], positions, predictors, targets
    flat, positions, at, target = (torch.tensor(x, dtype=torch.long, device=device) for x in lists)
    packed = {"tokens": flat[None], "positions": positions[None], "at": at, "target": target}
    return SimpleNamespace(**packed, pieces=pieces, places=places)


def hidden_states(model, packed, cache=None):
    """[T, h]: the decoder's output for packed sequences. `cache` is filled with their keys and values, packed too."""
    mask = packed.tokens.new_ones(1, 1, 1, 1)  # of four axes, so that transformers makes none of its own
    inputs = {"input_ids": packed.tokens, "position_ids": packed.positions, "attention_mask": mask}
    batches = in_batches(packed.pieces, model.dtype, packed.tokens.device)
    return model.get_decoder()(**inputs, pieces=batches, past_key_values=cache, use_cache=cache is not None)[0][0]


def completion_scores(model, sequences, starts):
    """Of each token of `sequences[i]` from `starts[i]` on: log-prob and entropy (nats), mean logit, whether it is
    likeliest. Each is [tokens], float32, sequence by sequence. Differentiable in the log-probs."""
    base = without_adapter_shell(model)
    packed = pack(sequences, starts, next(base.parameters()).device)
    hidden = hidden_states(base, packed)[packed.at]
    head = base.get_output_embeddings()
    if torch.is_grad_enabled() and head.weight.requires_grad:
        return _scores_of_learning_head(hidden, head.weight, packed.target)
    return HeadLogProbabilities.apply(hidden, head.weight, packed.target, vars(head).get("packed"))


def _scores_of_learning_head(hidden, weight, target):
    """What `HeadLogProbabilities` gives, where the head learns too: by autograd, piece by piece, the logits of each computed
    again on the way back, since those of all would be most of the memory that a batch takes."""
    pieces = zip(*(x.split(HeadLogProbabilities.piece) for x in (hidden, target)), strict=True)
    again = {"use_reentrant": False, "preserve_rng_state": False}
    scores = [checkpoint(_scores_of_piece, part, weight, tokens, **again) for part, tokens in pieces]
    return tuple(map(torch.cat, zip(*scores, strict=True)))


def _scores_of_piece(hidden, weight, target):
    logits = (hidden @ weight.T).float()
    log_probs = logits.log_softmax(-1)
    picked = log_probs.gather(-1, target[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return picked, entropy, logits.mean(-1), (picked >= log_probs.amax(-1)).float()


def without_adapter_shell(model):
    """The transformers model inside a PEFT model, its adapters in place; a model that has none as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


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


@torch.no_grad()
def enable_packing(model):
    """Switch a model's attention to `grouped_sdpa`, so that it can be run on packed sequences. Returns whether it can;
    a model that cannot stays as it is, and one line says why.

    The configuration decides first, then a trial, once for each loaded model: packed sequences that share beginnings
    must be as likely as the model's own forward pass finds them one by one.
    """
    base = without_adapter_shell(model)
    if getattr(base, "_takes_packed", None) is None:
        obstacle = _obstacle(base) or _trial(base)
        base._takes_packed = obstacle is None
        if obstacle:
            print(f"{type(base).__name__}: {obstacle}; the plain way is taken, which is right and slower.", flush=True)
    return base._takes_packed and base.config._attn_implementation == NAME


def packs_by_default(model):
    """Whether a model is run on packed sequences where nobody chose: on a CPU, if it can be. On a GPU the libraries' own
    ways are the default until ours are measured there (`make gpu-check`); `enable_packing` chooses ours."""
    return without_adapter_shell(model).device.type == "cpu" and enable_packing(model)


def _obstacle(base):
    """What in a model's configuration rules packed sequences out, or None."""
    config, head = base.config.get_text_config(), base.get_output_embeddings()
    layers = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    scaled = ("attn_logit_softcapping", "final_logit_softcapping", "logits_scaling", "logit_scale")
    if base.config._attn_implementation not in ("sdpa", NAME):
        return f"attention of the kind '{base.config._attn_implementation}'"
    if layers - {"full_attention"} or (window and not layers):
        return f"layers of the kind {', '.join(sorted(layers - {'full_attention'})) or 'sliding_attention'}"
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in scaled):
        return "scores that are scaled or capped"
    return "a head with a bias, or none" if head is None or getattr(head, "bias", None) is not None else None


def _trial(base):
    """Run packed sequences against the model's own attention. Returns what is wrong, or None; then the attention stays
    switched."""
    # Three pieces deep, and longer than whatever window the configuration may call by another name.
    numbers = (
        value for name, value in vars(base.config.get_text_config()).items() if "window" in name or "chunk" in name
    )
    length = max([24, *(2 * n for n in numbers if isinstance(n, int) and 0 < 2 * n <= 2048)])
    tokens = [5 + (7 * k) % 90 for k in range(length)]
    sequences = [[*tokens, *branch, *range(9, 21), leaf] for branch in ([3] * 9, [4] * 9) for leaf in (6, 7)]
    starts = [length // 2] * len(sequences)
    # The model's mode is left alone: on a CPU, bitsandbytes repacks 4-bit weights at the first forward pass in
    # evaluation mode, and gradients through repacked weights are wrong.
    before = base.config._attn_implementation
    try:
        own = torch.cat([_own_scores(base, tokens, start) for tokens, start in zip(sequences, starts, strict=True)])
        use_grouped_attention(base)
        error = (completion_scores(base, sequences, starts)[0] - own).abs()
        # Rounding: of float32 sums, or of a half-precision one, a wrong mask or head being a tenth of a nat and more. The
        # products of 4-bit weights are in 16 bits on some CPUs, whatever the others are in.
        exact = base.dtype == torch.float32 and not getattr(base, "is_loaded_in_4bit", False)
        if (error.max() < 1e-3) if exact else (error.mean() < 0.02 * own.abs().mean()):
            return None
        obstacle = f"scores that differ by {error.mean():.2g} nats a token from its own"
    except Exception as e:  # whatever its forward pass says to arguments that it does not know
        obstacle = f"a forward pass that does not take them ({type(e).__name__})"
    base.set_attn_implementation(before)
    return obstacle


def _own_scores(base, tokens, start):
    """Log-probs, float32, of `tokens` from `start` on, by the model's own forward pass."""
    logits = base(torch.tensor([tokens], device=base.device), use_cache=False).logits[0, start - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens[start:], device=base.device)[:, None])[:, 0]
