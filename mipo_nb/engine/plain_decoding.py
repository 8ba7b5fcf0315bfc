"""Sampling by transformers' own `generate`: for models that `decoding` cannot run, and as its check."""

import contextlib
import inspect

import torch
from transformers import GenerationConfig, LogitsProcessorList

from mipo_nb.engine import packing, routes


def generate(model, ids, sampling, ends, processors=()):
    """What `decoding.decode` returns, of the same arguments.

    `processors` are of transformers' class `LogitsProcessor`; they come before temperature, top-k and top-p.
    """
    if len(ids) > 1 and one_by_one(model):
        return [generate(model, [row], sampling, ends, processors)[0] for row in ids]
    width, pad = max(map(len, ids)), min(ends, default=0)
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    options = {"max_new_tokens": sampling.max_new_tokens, "eos_token_id": sorted(ends) or None, "pad_token_id": pad}
    options["do_sample"] = sampling.temperature > 0
    if options["do_sample"]:
        options |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    processors = LogitsProcessorList(processors)
    with torch.inference_mode(), without_defaults(model):
        sequences = model.generate(tokens, attention_mask=mask, logits_processor=processors, **options)
    completions = sequences[:, width:].tolist()
    stops = [next((k for k, t in enumerate(row) if t in ends), None) for row in completions]
    return [
        (row[: None if stop is None else stop + 1], stop is not None)
        for row, stop in zip(completions, stops, strict=True)
    ]


def one_by_one(model):
    """Whether rows are not to be padded: that would go through recurrent layers, count as words, or change the frequencies
    of the shorter rows."""
    base = packing.without_adapter_shell(model)
    return getattr(base, "_is_stateful", False) or not takes_positions(base) or routes.follows_longest(base)


def takes_positions(model):
    """Whether a model can be told where its tokens stand."""
    return "position_ids" in inspect.signature(packing.without_adapter_shell(model).forward).parameters


@contextlib.contextmanager
def without_defaults(model):
    """While it lasts, nothing that a model's files say of sampling (penalties, beams, tokens that are forced or ruled out)
    changes the distribution that is asked for."""
    held = {id(m): (m, m.generation_config) for m in (model, packing.without_adapter_shell(model))}.values()
    for holder, _ in held:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder, own in held:
            holder.generation_config = own
