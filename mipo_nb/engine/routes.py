"""Which way a model goes: on packed sequences where its numbers stay its own, else by its own forward pass."""

import torch

from mipo_nb.engine import packing
from mipo_nb.engine.attention import NAME, use_grouped_attention
from mipo_nb.engine.decoding import Continuation, without_checkpointing


@torch.no_grad()
def enable_packing(model):
    """Switch a model's attention to `grouped_sdpa`, so that it can be run on packed sequences. Returns whether it can;
    a model that cannot stays as it is, and one line says why.

    The configuration decides first, then a trial, once for each loaded model: packed sequences that share beginnings
    must be as likely as the model's own forward pass finds them one by one.
    """
    base, outside = packing.without_adapter_shell(model), _outside_of_decoder(model)
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
    return packing.without_adapter_shell(model).device.type == "cpu" and enable_packing(model)


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
        own = [_own_log_probs(base, tokens, start) for tokens, start in zip(sequences, starts, strict=True)]
        own = torch.cat([scores for scores, _ in own]), torch.stack([last for _, last in own])
        use_grouped_attention(base)
        packed = packing.completion_scores(base, [tokens[:-1] for tokens in sequences], starts)[0]
        found = packed, _decoded_log_probs(base, sequences)
        if all(agree(base, *both) for both in zip(found, own, strict=True)):
            return None
        error = max((one - other).abs().mean() for one, other in zip(found, own, strict=True))
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


def _decoded_log_probs(base, sequences):
    """[n, V], float32: what comes last in each sequence, where the last but one was added to what was read before."""
    added = torch.tensor([tokens[-2] for tokens in sequences], device=base.device)
    with without_checkpointing(base):
        going = Continuation(base, [tokens[:-2] for tokens in sequences], 1)
        going.add(added)
    return going.scores().float().log_softmax(-1)


def _own_log_probs(base, tokens, start):
    """By the model's own forward pass, float32: log-probs of `tokens` from `start` on without the last, and what comes
    last [V]."""
    read = torch.tensor([tokens[:-1]], device=base.device)
    log_probs = base(read, use_cache=False).logits[0, start - 1 :].float().log_softmax(-1)
    return log_probs[:-1].gather(-1, read[0, start:, None])[:, 0], log_probs[-1]
