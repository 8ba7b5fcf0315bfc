"""Ways to draw many responses at once: this project's, two of transformers', and vLLM's where it is installed."""

import importlib.util
from dataclasses import fields
from functools import partial

from mipo_nb import models
from mipo_nb.base.errors import UserError
from mipo_nb.engine import decoding, plain_decoding, routes

ROUTES = ("ours", "generate", "generate_batch", "vllm")
_PAGE = 256  # tokens, as transformers has it


def loaded(route, folder, device, dtype, length):
    """`respond(ids, sampling)` for the model in a folder: it draws a response to each row of token `ids` by a `Sampling`, and
    returns how many tokens they have together. A row and its response have `length` tokens at most. Raises `UserError` where
    the route cannot be had."""
    if route == "vllm":
        return _by_vllm(folder, dtype, length)
    model, _ = models.load(folder, device=device, dtype=dtype)
    if route == "generate_batch":
        return partial(_in_pages, model)
    if route == "ours" and not routes.enable_packing(model):
        raise UserError("This model cannot be run on packed sequences, as a line above says.")
    return partial(_drawn, decoding.decode if route == "ours" else plain_decoding.generate, model)


def _drawn(sampler, model, ids, sampling):
    return sum(len(tokens) for tokens, _ in sampler(model, ids, sampling, set()))


def _in_pages(model, ids, sampling):
    """By continuous batching, with a cache as large as these rows need. It sets itself up at every call."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    length = max(map(len, ids)) + sampling.max_new_tokens
    flash = any(importlib.util.find_spec(name) for name in ("flash_attn", "flash_attn_interface"))  # else from a hub
    wanted = {
        "num_blocks": 2 * len(ids) * -(-length // _PAGE),  # while few are free, it begins no row
        "max_batch_tokens": min(8192, sum(map(len, ids))),
        "auto_switch_to_flash": flash,
    }
    known = {field.name for field in fields(ContinuousBatchingConfig)}  # not the same in all versions
    config = ContinuousBatchingConfig(**{name: value for name, value in wanted.items() if name in known})
    names = ("temperature", "top_k", "top_p", "max_new_tokens")
    how = GenerationConfig(do_sample=True, pad_token_id=0, **{name: getattr(sampling, name) for name in names})
    found = model.generate_batch(ids, generation_config=how, continuous_batching_config=config)
    errors = [result.error for result in found.values() if result.error] or ["no error was named"]
    if len(found) < len(ids) or errors != ["no error was named"]:
        raise RuntimeError(f"{len(found)} of {len(ids)} rows came back; {errors[0]}")
    return sum(len(result.generated_tokens) for result in found.values())


def _by_vllm(folder, dtype, length):
    if not importlib.util.find_spec("vllm"):
        raise UserError("skipped: vLLM is not installed here.")
    from vllm import LLM, SamplingParams

    engine = LLM(model=folder, dtype=dtype, max_model_len=length, skip_tokenizer_init=True)

    def respond(ids, sampling):
        names = ("temperature", "top_k", "top_p")
        how = SamplingParams(
            max_tokens=sampling.max_new_tokens,
            ignore_eos=True,
            detokenize=False,
            **{name: getattr(sampling, name) for name in names},
        )
        found = engine.generate([{"prompt_token_ids": row} for row in ids], how, use_tqdm=False)
        return sum(len(result.outputs[0].token_ids) for result in found)

    return respond
