"""Log-probabilities of responses under a model, in nats: per token or summed, and under many contexts."""

from pathlib import Path

import numpy as np

from mipo_nb import prompts
from mipo_nb.base.files import digest, kept
from mipo_nb.base.progress import progress


def token_log_probabilities(
    model, tokenizer, conversations, responses, *, batch_size=16, folder=None, description="scoring"
):
    """List of float arrays, one per row: log p(token | everything before it) for each token of the response.

    The response's tokens are those of `prompts.completion_ids`; the rest is as in `continuation_log_probabilities`.
    """
    starts = [prompts.prompt_ids(tokenizer, c) for c in conversations]
    ends = [prompts.completion_ids(tokenizer, c, r) for c, r in zip(conversations, responses, strict=True)]
    return continuation_log_probabilities(
        model, starts, ends, batch_size=batch_size, folder=folder, description=description
    )


def continuation_log_probabilities(model, starts, ends, *, batch_size=16, folder=None, description="scoring"):
    """List of float arrays, one per row: log p(token | everything before it) for each token of `ends[i]` after `starts[i]`.

    Both are lists of lists of token ids, none empty. What rows begin with together (one user's context, a conversation,
    a question with several options) is computed once, rows run without padding, and logits are computed for the tokens
    of `ends` only. With a `folder`, which must belong to this model alone, each finished batch is kept there under a
    hash of its tokens.
    """
    import torch

    from mipo_nb.engine import packing
    from mipo_nb.engine.linear import packed_weights

    whole = [s + e for s, e in zip(starts, ends, strict=True)]
    order = sorted(range(len(whole)), key=lambda i: whole[i])  # neighbours share what they begin with
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    packs = packing.enable_packing(model)
    found = [None] * len(whole)
    with torch.inference_mode(), packed_weights(model):
        for rows in progress(batches, description):
            tokens, places = [whole[i] for i in rows], [len(starts[i]) for i in rows]

            def score(rows=rows, tokens=tokens, places=places):
                if packs:
                    scored = packing.completion_scores(model, tokens, places)[0]
                else:
                    scored = padded_log_probabilities(model, [starts[i] for i in rows], [ends[i] for i in rows])
                return [values.tolist() for values in scored.split([len(ends[i]) for i in rows])]

            file = Path(folder) / f"scores-{digest([tokens, places])[:16]}.json" if folder else None
            for i, values in zip(rows, kept(file, score), strict=True):
                found[i] = np.array(values, dtype=float)
    return found


def padded_log_probabilities(model, starts, ends):
    """Log-probabilities [tokens] of `ends[i]` after `starts[i]`, row after row, each row computed apart; differentiable.

    `starts` and `ends` are lists of token ids. Float32 softmax whatever the weights are. The plain way, which any model
    takes and tests compare with.
    """
    import torch

    width = max(len(s) + len(e) for s, e in zip(starts, ends, strict=True))
    tokens = torch.zeros(len(starts), width, dtype=torch.long)
    mask = torch.zeros(len(starts), width, dtype=torch.long)
    for row, (s, e) in enumerate(zip(starts, ends, strict=True)):
        tokens[row, : len(s) + len(e)] = torch.tensor(s + e)
        mask[row, : len(s) + len(e)] = 1
    # Positions that predict response tokens: one before each of them.
    rows = torch.cat([torch.full((len(e),), r) for r, e in enumerate(ends)])
    columns = torch.cat([torch.arange(len(s) - 1, len(s) + len(e) - 1) for s, e in zip(starts, ends, strict=True)])
    targets = torch.tensor([t for e in ends for t in e])
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    hidden = decoder(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False)[0]
    logits = head(hidden[rows, columns]).float()
    return -torch.nn.functional.cross_entropy(logits, targets.to(model.device), reduction="none")


def log_probabilities(model, tokenizer, conversations, responses, *, batch_size=16, folder=None, description="scoring"):
    """Array [n]: log p(response | conversation), summed over the response's tokens, in nats."""
    rows = token_log_probabilities(
        model, tokenizer, conversations, responses, batch_size=batch_size, folder=folder, description=description
    )
    return np.array([row.sum() for row in rows])


def context_matrix(
    model, tokenizer, prompt_texts, contexts, responses, *, batch_size=16, folder=None, description="scoring"
):
    """Array [n, K]: log p(response i | prompt i, context k of row i). `contexts` is a list of n lists of K contexts."""
    width = len(contexts[0])
    conversations = [prompts.messages(p, c) for p, row in zip(prompt_texts, contexts, strict=True) for c in row]
    repeated = [r for r in responses for _ in range(width)]
    flat = log_probabilities(
        model, tokenizer, conversations, repeated, batch_size=batch_size, folder=folder, description=description
    )
    return flat.reshape(len(responses), width)


def context_information(
    model, tokenizer, prompt_texts, contexts, responses, *, batch_size=16, folder=None, description="PMI"
):
    """Array [n]: PMI of response and context given the prompt, log p(y|x,c) - log p(y|x), in nats."""
    from mipo_nb.information import pointwise_mutual_information

    with_context = [prompts.messages(p, c) for p, c in zip(prompt_texts, contexts, strict=True)]
    without = [prompts.messages(p) for p in prompt_texts]
    scored = [
        log_probabilities(
            model, tokenizer, rows, responses, batch_size=batch_size, folder=folder, description=description
        )
        for rows in (with_context, without)
    ]
    return pointwise_mutual_information(*scored)
