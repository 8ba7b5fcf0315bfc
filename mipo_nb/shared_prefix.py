"""DPO with the prompt computed once: TRL's trainer with another forward pass underneath.

The two sides of a MIPO pair share their prompt. TRL runs prompt+chosen and prompt+rejected as two rows. Here they are
one row [prompt, chosen, rejected] with position ids that restart after the prompt and a mask that hides the chosen
tokens from the rejected ones, so every number is the same up to rounding and the prompt is paid for once
(Wang and Hegde, arXiv 2410.20305). Logits are computed for completion tokens only.
"""

from types import SimpleNamespace

import torch
from trl import DPOTrainer

_MASKABLE = ("sdpa", "grouped_sdpa", "eager")  # attention implementations that take an arbitrary mask


class SharedPrefixDPOTrainer(DPOTrainer):
    """`trl.DPOTrainer` with all its arguments, losses, metrics and callbacks, on rows that share their prefix.

    Reference log-probs that the data set already has (columns `ref_chosen_logps`, `ref_rejected_logps`) are used as
    they are. Models whose attention cannot take the mask are trained on TRL's own path, with a notice.
    """

    def __init__(self, *args, **kwargs):
        self.shares_prefix = None  # unknown until the first batch
        super().__init__(*args, **kwargs)

    def _forward(self, model):
        base = self.accelerator.unwrap_model(model)
        if self.shares_prefix is None:
            self.shares_prefix = takes_mask(base)
            if not self.shares_prefix:
                print("This model's attention cannot take the shared-prefix mask: training on TRL's own path.")
        if not self.shares_prefix:
            return model
        return lambda **inputs: shared_prefix_forward(
            base, inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
        )

    def _compute_loss(self, model, inputs, return_outputs):
        return super()._compute_loss(self._forward(model), inputs, return_outputs)

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self._forward(model), inputs)

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if "ref_chosen_logps" in dataset.column_names:
            return dataset
        self.model.train()  # see `takes_mask`: no forward pass in evaluation mode before training
        return super()._precompute_ref_logps(dataset, name, batch_size)


def shared_prefix_forward(model, input_ids, attention_mask, labels):
    """What TRL's loss reads, for its batch of B prompt+chosen rows followed by B prompt+rejected rows.

    `input_ids`, `attention_mask`, `labels` are [2B, L], padded on the right, labels -100 outside completions. Returns
    `log_probs`, `entropy`, `mean_logits`, `is_top1` of shape [2B, L-1]: the token at position t+1 given those before.
    """
    packed = pack(input_ids, attention_mask, labels)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = base.get_decoder()(
        input_ids=packed.tokens,
        attention_mask=_in_form_for(base, packed.mask),
        position_ids=packed.positions,
        use_cache=False,
    )[0]
    head = base.get_output_embeddings()
    scored = HeadLogProbabilities.apply(hidden[packed.row, packed.column], head.weight, packed.target)

    def spread(values):
        """Values of the completion tokens, back at their places in TRL's [2B, L-1]."""
        out = values.new_zeros(input_ids.shape[0], input_ids.shape[1] - 1)
        return out.index_put((packed.trl_row, packed.trl_column), values)

    log_probs, entropy, mean_logits, is_top1 = (spread(values) for values in scored)
    return SimpleNamespace(
        log_probs=log_probs, entropy=entropy, mean_logits=mean_logits, is_top1=is_top1 > 0, aux_loss=None
    )


class HeadLogProbabilities(torch.autograd.Function):
    """Log-probability of target tokens from hidden states [T, h] and a frozen head [V, h], without keeping logits.

    Returns log-probs, entropy, mean logit and whether the target is the likeliest token, each [T]. The gradient of
    log p_t with respect to the hidden state is W[t] - sum_v p_v W[v]; each token has one number coming back from the
    loss, so this vector is made in the forward pass, piece by piece while the logits are at hand, and only scaled in
    the backward pass.
    """

    piece = 64  # tokens at a time, so that a piece of the logits stays in the processor's cache

    @staticmethod
    def forward(ctx, hidden, weight, target):
        weight = weight.to(hidden.dtype)
        rows = []
        gradient = torch.empty_like(hidden)
        needed = ctx.needs_input_grad[0]
        for start in range(0, len(target), HeadLogProbabilities.piece):
            part = slice(start, start + HeadLogProbabilities.piece)
            logits = (hidden[part] @ weight.T).float()
            likeliest = logits.amax(-1, keepdim=True)
            picked = logits.gather(-1, target[part, None])
            mean = logits.mean(-1)
            log_probs = logits.sub_(likeliest)
            log_total = log_probs.exp().sum(-1, keepdim=True).log_()
            log_probs = log_probs.sub_(log_total)
            probability = log_probs.exp()
            entropy = -(probability * log_probs).sum(-1)
            picked_log_prob = (picked - likeliest - log_total)[:, 0]
            rows.append(torch.stack([picked_log_prob, entropy, mean, (picked >= likeliest)[:, 0].float()]))
            if needed:
                gradient[part] = weight[target[part]] - probability.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return tuple(torch.cat(rows, dim=1))

    @staticmethod
    def backward(ctx, log_probs, *others):
        (gradient,) = ctx.saved_tensors
        return (gradient * log_probs[:, None]).to(gradient.dtype), None, None


def pack(input_ids, attention_mask, labels):
    """One row per pair from TRL's two: tokens, positions, mask [B, 1, W, W], and where each completion token went."""
    half = input_ids.shape[0] // 2
    lengths = attention_mask.sum(1).tolist()
    prompts = ((labels == -100) & attention_mask.bool()).sum(1).tolist()
    widths = [lengths[b] + lengths[b + half] - prompts[b] for b in range(half)]
    width = max(widths)
    device = input_ids.device
    tokens = torch.zeros(half, width, dtype=torch.long)
    positions = torch.zeros(half, width, dtype=torch.long)
    segment = torch.full((half, width), 3)  # 0 prompt, 1 chosen, 2 rejected, 3 padding
    places = []  # (row, column that predicts, target, TRL's row, TRL's column)
    ids = input_ids.cpu()
    for b in range(half):
        p, c, r = prompts[b], lengths[b], lengths[b + half]
        if not torch.equal(ids[b, :p], ids[b + half, :p]):
            raise ValueError("The two sides of a pair have different prompts; they cannot share a prefix.")
        tokens[b, :c], tokens[b, c : c + r - p] = ids[b, :c], ids[b + half, p:r]
        positions[b, :c], positions[b, c : c + r - p] = torch.arange(c), torch.arange(p, r)
        segment[b, :p], segment[b, p:c], segment[b, c : c + r - p] = 0, 1, 2
        for side, first, end in ((b, p, c), (b + half, p, r)):
            t = torch.arange(first, end)
            # The first token of either side is predicted at the last prompt token; of rejected ones, the rest lie
            # behind the chosen tokens.
            at = torch.where((t > p) & (side >= half), t - 1 + c - p, t - 1)
            places.append(torch.stack([torch.full_like(t, b), at, ids[side, t], torch.full_like(t, side), t - 1]))
    row, column, target, trl_row, trl_column = torch.cat(places, dim=1).to(device)
    segment = segment.to(device)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    mask = causal & ((segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None]))
    return SimpleNamespace(
        tokens=tokens.to(device),
        positions=positions.to(device),
        mask=mask[:, None],
        row=row,
        column=column,
        target=target,
        trl_row=trl_row,
        trl_column=trl_column,
    )


def _in_form_for(model, mask):
    """A boolean mask for scaled-dot-product attention, an additive one for the eager implementation."""
    if model.config._attn_implementation != "eager":
        return mask
    dtype = next(model.parameters()).dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


@torch.no_grad()
def takes_mask(model):
    """Whether this model obeys the shared-prefix mask, tried on a pair whose two sides are the same text.

    Both sides must then be equally likely; a model that could see the chosen side would copy it.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config._attn_implementation not in _MASKABLE or base.get_output_embeddings().bias is not None:
        return False
    ids = torch.arange(5, 37, device=next(base.parameters()).device).repeat(2, 1)
    labels = ids.clone()
    labels[:, :8] = -100
    # The model's mode is left alone: on a CPU, bitsandbytes repacks 4-bit weights at the first forward pass in evaluation
    # mode, and gradients through repacked weights are wrong.
    chosen, rejected = shared_prefix_forward(base, ids, torch.ones_like(ids), labels).log_probs[:, 7:]
    return bool((chosen - rejected).abs().mean() < 0.05 * chosen.abs().mean())
