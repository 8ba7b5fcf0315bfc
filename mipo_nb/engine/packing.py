"""Sequences that begin alike, run end to end in one row without padding: what scoring, training and prefill stand on.

What sequences share is a piece that is computed once, and so on down a tree: system message, user's context, question,
responses. Position ids go on from piece to piece and attention follows the tree, so that numbers are those of separate
rows, up to rounding (for the two sides of DPO pairs: Wang and Hegde, arXiv 2410.20305). Logits are computed only where
a scored token is predicted.
"""

import itertools
from types import SimpleNamespace

import torch

from mipo_nb.engine import head
from mipo_nb.engine.attention import Piece, in_batches

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
