"""A model's own forward pass under TRL's losses, for models that are not run on packed sequences.

TRL multiplies a decoder's output with the head's weights by itself, with the scalings whose names it knows, and pads
prompts on the left without saying so. Neither is every model's own forward pass.
"""

import functools
from types import SimpleNamespace

import torch

from mipo_nb.engine import head, routes
from mipo_nb.engine.plain_decoding import takes_positions


def under_losses(model, base):
    """What a loss of TRL's calls in place of `model` (`base`, or what wraps it): its own forward pass where TRL's is another."""
    if getattr(base, "_fused_head_is_own", None) is None:
        base._fused_head_is_own = _fused_head_is_own(model, base)
    return model if base._fused_head_is_own else functools.partial(_scores, model)


@torch.no_grad()
def _fused_head_is_own(model, base):
    """Whether TRL's way to the head gives what the model's forward pass does; tried once for each loaded model."""
    tokens = torch.tensor([[5 + (7 * k) % 90 for k in range(24)]], device=base.device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}
    with torch.autocast(base.device.type, enabled=False):
        fused, own = (f(**inputs, fused_lm_head=True).log_probs for f in (model, functools.partial(_scores, model)))
    return routes.agree(base, fused.float(), own)


def _scores(model, *, labels, fused_lm_head, output_router_logits=None, **inputs):
    """What TRL's losses read of [rows, L] `labels`, -100 where nothing is scored, from the logits of `model`."""
    at = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    logits = model(**{**inputs, "use_cache": False}).logits[:, :-1][at].float()
    return read_by_losses(head.scores_of_logits(logits, labels[:, 1:][at]), at, *labels[:, 1:].shape)


def read_by_losses(scores, places, *shape):
    """Those of `packing.completion_scores` under the names that TRL's losses read, at their places in zeros of a shape."""
    log_probs, entropy, mean_logits, is_top1 = spread(scores, places, *shape)
    returned = {"log_probs": log_probs, "entropy": entropy, "mean_logits": mean_logits, "is_top1": is_top1 > 0}
    return SimpleNamespace(**returned, aux_loss=None)


def spread(scores, places, *shape):
    """Each of `scores` [tokens] put at `places` (rows, columns) into zeros of a shape."""
    return [values.new_zeros(shape).index_put(places, values) for values in scores]


def padded_on_the_left(model, base):
    """`model` (`base`, or what wraps it), told the positions of rows that are padded on the left, if it takes them: where
    positions are learned, padding would count as words."""
    if (
        not takes_positions(base) or base.config is not base.config.get_text_config()
    ):  # images have positions of their own
        return model

    def placed(*, attention_mask, **inputs):
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return model(attention_mask=attention_mask, position_ids=positions, **inputs)

    return placed
