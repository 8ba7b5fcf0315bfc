"""Log-probabilities of responses under a model, in nats: per token or summed, and under many contexts."""

from pathlib import Path

import numpy as np

from mipo_nb import prompts
from mipo_nb.base.files import digest, kept
from mipo_nb.base.progress import progress

_LOGITS = 2**28  # numbers that the logits of one padded batch may have


def token_log_probabilities(
    model, tokenizer, conversations, responses, *, batch_size=16, folder=None, description="scoring"
):
    """List of float arrays, one per row: log p(token | everything before it) for each token of the response.

    The response's tokens are those of `prompts.completion_ids`; the rest is as in `continuation_log_probabilities`.
    """
    starts = [prompts.prompt_ids(tokenizer, c) for c in conversations]
    ends = [prompts.completion_ids(tokenizer, c, r) for c, r in zip(conversations, responses, strict=True)]
    options = {"batch_size": batch_size, "folder": folder, "description": description}
    return continuation_log_probabilities(model, starts, ends, **options)


def continuation_log_probabilities(model, starts, ends, *, batch_size=16, folder=None, description="scoring"):
    """List of float arrays, one per row: log p(token | all before it) in nats, over `ends[i]` after `starts[i]`.

    Both are lists of lists of token ids, none empty. A beginning that rows share (a user's context, a question with
    several options) is computed once, rows run without padding, and only tokens of `ends` get logits. With a `folder`,
    which must belong to this model alone, each finished batch is stored there under a hash of its tokens.
    """
    import torch

    from mipo_nb.engine import packing, routes
    from mipo_nb.engine.linear import packed_weights

    whole = [s + e for s, e in zip(starts, ends, strict=True)]
    order = sorted(range(len(whole)), key=lambda i: whole[i])  # neighbours share what they begin with
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    packs = routes.packs_by_default(model)
    scores = {}
    with torch.inference_mode(), packed_weights(model):
        for rows in progress(batches, description):
            tokens, start_lengths = [whole[i] for i in rows], [len(starts[i]) for i in rows]

            def score(rows=rows, tokens=tokens, start_lengths=start_lengths):
                if packs:
                    flat = packing.completion_scores(model, tokens, start_lengths)[0]
                else:
                    flat = padded_log_probabilities(model, [starts[i] for i in rows], [ends[i] for i in rows])
                return [values.tolist() for values in flat.split([len(ends[i]) for i in rows])]

            file = Path(folder) / f"scores-{digest([tokens, start_lengths])[:16]}.json" if folder else None
            scores.update(zip(rows, kept(file, score), strict=True))
    return [np.array(scores[i], dtype=float) for i in range(len(whole))]


def padded_log_probabilities(model, starts, ends):
    """Log-probabilities [tokens] of `ends[i]` after `starts[i]`, in nats, row after row; differentiable.

    `starts` and `ends` are lists of lists of token ids. The plain way, which any model takes and tests compare with: the
    model's own forward pass and head, rows apart, padded on the right, where no token sees it; float32 softmax.
    """
    import torch

    from mipo_nb.engine import routes

    whole = [s + e for s, e in zip(starts, ends, strict=True)]
    width, first = max(map(len, whole)), min(map(len, starts)) - 1  # where the first scored token is predicted
    at_once = max(1, _LOGITS // ((width - first) * model.config.get_text_config().vocab_size))
    if getattr(model, "_is_stateful", False) or routes.follows_longest(model):  # recurrent layers: no padding at all
        at_once = 1
    scores = []
    for k in range(0, len(whole), at_once):
        rows = whole[k : k + at_once]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        options = {"attention_mask": mask, "use_cache": False, "logits_to_keep": longest - first}
        logits = model(input_ids=tokens, **options).logits[:, first - longest :]  # some models keep all
        for row, start, end, values in zip(rows, starts[k:], ends[k:], logits, strict=False):
            predicted = values[len(start) - 1 - first : len(row) - 1 - first].float()
            target = torch.tensor(end, device=predicted.device)
            scores.append(-torch.nn.functional.cross_entropy(predicted, target, reduction="none"))
    return torch.cat(scores)


def log_probabilities(model, tokenizer, conversations, responses, *, batch_size=16, folder=None, description="scoring"):
    """Array [n]: log p(response | conversation), summed over the response's tokens, in nats."""
    options = {"batch_size": batch_size, "folder": folder, "description": description}
    scores = token_log_probabilities(model, tokenizer, conversations, responses, **options)
    return np.array([row.sum() for row in scores])


def context_matrix(
    model, tokenizer, prompt_texts, contexts, responses, *, batch_size=16, folder=None, description="scoring"
):
    """Array [n, K]: log p(response i | prompt i, context k of row i), in nats. `contexts`: n lists of K; a prompt: text or turns."""
    width = len(contexts[0])
    conversations = [prompts.messages(p, c) for p, row in zip(prompt_texts, contexts, strict=True) for c in row]
    repeated = [r for r in responses for _ in range(width)]
    options = {"batch_size": batch_size, "folder": folder, "description": description}
    return log_probabilities(model, tokenizer, conversations, repeated, **options).reshape(len(responses), width)


def context_information(
    model, tokenizer, prompt_texts, contexts, responses, *, batch_size=16, folder=None, description="PMI"
):
    """Array [n]: PMI of response and context given the prompt, log p(y|x,c) - log p(y|x), in nats; a prompt: text or turns."""
    from mipo_nb.information import pointwise_mutual_information

    with_context = [prompts.messages(p, c) for p, c in zip(prompt_texts, contexts, strict=True)]
    without_context = [prompts.messages(p) for p in prompt_texts]
    options = {"batch_size": batch_size, "folder": folder, "description": description}
    logp_with = log_probabilities(model, tokenizer, with_context, responses, **options)
    logp_without = log_probabilities(model, tokenizer, without_context, responses, **options)
    return pointwise_mutual_information(logp_with, logp_without)
