"""Sequences that begin alike, run end to end in one row without padding: what scoring, training and prefill stand on.

What sequences share is a piece that is computed once, and so on down a tree: system message, user's context, question,
responses. Position ids go on from piece to piece and attention follows the tree, so that numbers are those of separate
rows, up to rounding (for the two sides of DPO pairs: Wang and Hegde, arXiv 2410.20305). Logits are computed only where
a scored token is predicted.
"""

import functools
import itertools
from types import SimpleNamespace

import torch

from mipo_nb.engine import head
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
    head_layer = base.get_output_embeddings()
    if torch.is_grad_enabled() and head_layer.weight.requires_grad:
        return head.scores_of_learning_head(hidden, head_layer.weight, packed.target)
    return head.HeadLogProbabilities.apply(hidden, head_layer.weight, packed.target, vars(head_layer).get("packed"))


def without_adapter_shell(model):
    """The transformers model inside a PEFT model, its adapters in place; a model that has none as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def enable_packing(model):
    """Switch a model's attention to `grouped_sdpa`, so that it can be run on packed sequences. Returns whether it can;
    a model that cannot stays as it is, and one line says why.

    The configuration decides first, then a trial, once for each loaded model: packed sequences that share beginnings
    must be as likely as the model's own forward pass finds them one by one.
    """
    base, outside = without_adapter_shell(model), _outside_of_decoder(model)
    if getattr(base, "_takes_packed", None) is None and not outside:
        base._takes_packed = _told(base, _obstacle(base) or _trial(base))
    if outside and not hasattr(model, "_passed_by"):
        model._passed_by = not _told(base, outside)
    return not outside and base._takes_packed and base.config._attn_implementation == NAME


def _told(base, obstacle):
    """Whether there is no obstacle; one is told of."""
    if obstacle:
        print(f"{type(base).__name__}: {obstacle}; the plain way is taken, which is right and slower.", flush=True)
    return obstacle is None


def _outside_of_decoder(model):
    """What of an adapter packed sequences would pass by, or None: they run the decoder, and the weights of the head."""
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_base_model().get_output_embeddings(), BaseTunerLayer):
        return "an adapter on its head"
    kinds = model.peft_config.values()
    before = any(kind.is_prompt_learning or getattr(kind, "alora_invocation_tokens", None) for kind in kinds)
    return "an adapter before its layers" if before else None


def follows_longest(model):
    """Whether a row's numbers depend on the longest row of its batch: by rotary frequencies that change with the length."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # one, or one for each kind of layer
    return any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def packs_by_default(model):
    """Whether a model is run on packed sequences where nobody chose: on a CPU, if it can be. On a GPU the libraries' own
    ways are the default until ours are measured there (`make gpu-check`); `enable_packing` chooses ours."""
    return without_adapter_shell(model).device.type == "cpu" and enable_packing(model)


def _obstacle(base):
    """What in a model's configuration rules packed sequences out, or None."""
    config, output = base.config.get_text_config(), base.get_output_embeddings()
    layers = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    scaled = ("attn_logit_softcapping", "final_logit_softcapping", "logits_scaling", "logit_scale")
    if base.config._attn_implementation not in ("sdpa", NAME):
        return f"attention of the kind '{base.config._attn_implementation}'"
    if layers - {"full_attention"} or (window and not layers):
        return f"layers of the kind {', '.join(sorted(layers - {'full_attention'})) or 'sliding_attention'}"
    if follows_longest(base):
        return "rotary frequencies that follow the longest sequence"
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in scaled):
        return "scores that are scaled or capped"
    return "a head with a bias, or none" if output is None or getattr(output, "bias", None) is not None else None


def _trial(base):
    """Run packed sequences against the model's own attention. Returns what is wrong, or None; then the attention stays
    switched."""
    # Three pieces deep, and longer than whatever window the configuration may call by another name.
    numbers = (
        value for name, value in vars(base.config.get_text_config()).items() if "window" in name or "chunk" in name
    )
    length = max([72, *(2 * n for n in numbers if isinstance(n, int) and 0 < 2 * n <= 2048)])
    tokens = [5 + (7 * k) % 90 for k in range(length)]
    sequences = [[*tokens, *branch, *range(9, 15 + leaf), leaf] for branch in ([3] * 9, [4] * 9) for leaf in (6, 7)]
    starts = [length // 2] * len(sequences)
    # The model's mode is left alone: on a CPU, bitsandbytes repacks 4-bit weights at the first forward pass in
    # evaluation mode, and gradients through repacked weights are wrong.
    before = base.config._attn_implementation
    try:
        own = [_own_scores(base, tokens, start) for tokens, start in zip(sequences, starts, strict=True)]
        use_grouped_attention(base)
        found = (
            completion_scores(base, [tokens[:-1] for tokens in sequences], starts)[0],
            _decoded_scores(base, sequences),
        )
        own = torch.cat([scores[:-1] for scores in own]), torch.stack([scores[-1] for scores in own])
        if all(itertools.starmap(functools.partial(agree, base), zip(found, own, strict=True))):
            return None
        error = torch.cat([(a - b).abs() for a, b in zip(found, own, strict=True)]).mean()
        obstacle = f"scores that differ by {error:.2g} nats a token from its own"
    except Exception as e:  # whatever its forward pass says to arguments that it does not know
        obstacle = f"a forward pass that does not take them ({type(e).__name__})"
    base.set_attn_implementation(before)
    return obstacle


def agree(base, found, own):
    """Whether two arrays of log-probs are alike up to rounding: of float32 sums, or of a half-precision one, a wrong mask or
    head being a tenth of a nat and more. The products of 4-bit weights are in 16 bits on some CPUs, whatever others are in."""
    error, exact = (found - own).abs(), base.dtype == torch.float32 and not getattr(base, "is_loaded_in_4bit", False)
    return bool((error.max() < 1e-3) if exact else (error.mean() < 0.02 * own.abs().mean()))


def _decoded_scores(base, sequences):
    """Log-prob, float32, of each sequence's last token where the last but one was added to what was read (`decoding`)."""
    from mipo_nb.engine.decoding import Continuation, without_checkpointing

    added, last = torch.tensor([tokens[-2:] for tokens in sequences], device=base.device).T
    with without_checkpointing(base):
        going = Continuation(base, [tokens[:-2] for tokens in sequences], 1)
        going.add(added)
    return going.scores().float().log_softmax(-1).gather(-1, last[:, None])[:, 0]


def _own_scores(base, tokens, start):
    """Log-probs, float32, of `tokens` from `start` on, by the model's own forward pass."""
    logits = base(torch.tensor([tokens], device=base.device), use_cache=False).logits[0, start - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens[start:], device=base.device)[:, None])[:, 0]
