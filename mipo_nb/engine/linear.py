"""Frozen linear layers at the rate of the processor, with or without a LoRA adapter on them.

A CPU multiplies fastest with a weight that lies in the order in which its kernels read it. torch reorders it at every
product; weights that do not change can be laid out once. And a LoRA layer becomes one product with the frozen weight
and two thin ones added to it, instead of five layers with a copy between each.
"""

import contextlib
import functools

import torch

from mipo_nb.engine.process import return_freed_memory

# What is called below and is no promise of torch's, {name: {overload: how many arguments}}.
_OPERATIONS = {
    "_reorder_linear_weight": {"default": 2},
    "_linear_pointwise": {"default": 6, "binary": 5},
    "_is_mkldnn_bf16_supported": {"default": 0},
}


def _missing():
    """The first operation of oneDNN that this torch does not have, or takes otherwise; None where all are there."""
    for name, overloads in _OPERATIONS.items():
        packet = getattr(torch.ops.mkldnn, name, None)
        for overload, n in overloads.items():
            schema = getattr(getattr(packet, overload, None), "_schema", None)
            if schema is None or len(schema.arguments) != n:
                return f"mkldnn.{name}" + ("" if overload == "default" else f".{overload}")
    return None


MISSING = _missing()  # looked up when this is imported, not in the middle of a training


class PackedWeight:
    """A frozen weight [out, in] laid out for x W^T and, where gradients are on, for g W: both at once, because what comes
    to lie between the activations of a first batch leaves gaps that those of the next do not fit into."""

    def __init__(self, weight):
        self.forward = _packed(weight.detach())
        self.backward = _packed(weight.detach().T.contiguous()) if torch.is_grad_enabled() else None

    def multiply(self, x):
        """x W^T: [T, in] to [T, out]."""
        return _product(x, self.forward)

    def multiply_back(self, gradient):
        """g W: [T, out] to [T, in], what a gradient becomes on its way back."""
        return _product(gradient, self.backward)


class FourBitWeight:
    """A frozen weight [out, in] of bitsandbytes in 4 bits, as it is, for the same two products. bitsandbytes' own layer
    lays it out anew at its first use in evaluation mode, and gradients are wrong from then on."""

    def __init__(self, weight):
        self.weight = weight

    def multiply(self, x):
        """x W^T: [T, in] to [T, out]."""
        from bitsandbytes import matmul_4bit

        return matmul_4bit(x, self.weight, self.weight.quant_state)

    def multiply_back(self, gradient):
        """g W: [T, out] to [T, in]; all of W is expanded for it."""
        from bitsandbytes.functional import dequantize_4bit

        return gradient @ dequantize_4bit(self.weight.view(-1, 1), self.weight.quant_state).to(gradient.dtype)


def _packed(weight):
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _product(x, packed):
    return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _forward(x, packed, a, b, scale):
    """(x W^T + scale (x A^T) B^T, x A^T), each [T, ...]; without an adapter x W^T alone, and None."""
    out = packed.multiply(x)
    if a is None:
        return out, None
    thin = x @ a.to(x.dtype).T
    return out.addmm_(thin, b.to(x.dtype).T, alpha=scale), thin


class FrozenLinear(torch.autograd.Function):
    """x W^T + scale (x A^T) B^T for x [T, in] (Hu et al. 2021): W frozen; A [r, in], B [out, r] learn or are None."""

    @staticmethod
    def forward(ctx, x, packed, a, b, scale):
        out, thin = _forward(x, packed, a, b, scale)
        ctx.packed, ctx.scale = packed, scale
        ctx.save_for_backward(None if a is None else x, thin, a, b)
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, thin, a, b = ctx.saved_tensors
        to_x = ctx.packed.multiply_back(gradient) if ctx.needs_input_grad[0] else None
        if a is None:
            return to_x, None, None, None, None
        back = (gradient @ b.to(gradient.dtype)).mul_(ctx.scale)
        if to_x is not None:
            to_x.addmm_(back, a.to(gradient.dtype))
        to_b = (gradient.T @ thin).mul_(ctx.scale)
        return to_x, None, (back.T @ x).to(a.dtype), to_b.to(b.dtype), None


class PackedAdapter:
    """An adapter that does not learn, A [r, in] and B [out, r], cast to the type of its inputs and laid out once: for a
    decoded token, doing both each time takes as long as the two products."""

    def __init__(self, a, b, scale, dtype):
        self.a, self.b = _packed(a.detach().to(dtype)), _packed((scale * b.detach()).to(dtype))

    def add_to(self, out, x):
        """out + scale (x A^T) B^T for x [T, in], out [T, out]."""
        return torch.ops.mkldnn._linear_pointwise.binary(_product(x, self.a), out, self.b, None, "add")


def _through(x, packed, a=None, b=None, scale=1.0):
    flat = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        out = FrozenLinear.apply(flat, packed, a, b, scale)
    else:  # a decoded token is so little work that the bookkeeping of gradients shows
        out = _forward(flat, packed, a, b, scale)[0]
    return out.view(*x.shape[:-1], -1)


@contextlib.contextmanager
def packed_weights(model):
    """While it lasts, the frozen linear layers of a model on a CPU run through `FrozenLinear`; nothing else changes.

    The weights must stay as they are meanwhile. Layers of other kinds (biases, dropout before an adapter, several
    adapters at once, 4-bit weights without gradients) run as they did, and so does everything where oneDNN is missing.
    Inside another `packed_weights` block the layers that it has packed are left to it.
    """
    changed = []
    try:
        for layer, kind in _frozen_linear(model):
            layer.packed = kind(layer.weight)
            layer.forward = lambda x, packed=layer.packed: _through(x, packed)
            changed.append(layer)
        for layer in _with_one_adapter(model):
            fixed = None if torch.is_grad_enabled() else {}
            layer.forward = lambda x, layer=layer, fixed=fixed: _adapted(layer, x, fixed)
            changed.append(layer)
        yield model
    finally:
        for layer in changed:
            del layer.forward
            vars(layer).pop("packed", None)
        return_freed_memory()


class PackedTraining:
    """For a trainer: while it trains, the frozen weights of its model are packed, and an adapter's gradients stay where
    they are. Made anew at each step they come to lie all over the memory of the activations that are just freed, and in
    what is left between them those of the next batch find no room."""

    def train(self, *args, **kwargs):
        if hasattr(self.model, "peft_config"):
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            self.model.zero_grad = functools.partial(self.model.zero_grad, set_to_none=False)
        with packed_weights(self.model):
            return super().train(*args, **kwargs)


def _adapted(layer, x, fixed):
    """A LoRA layer's output; `fixed` holds its adapters by name where they do not learn, and is None where they do."""
    if layer.disable_adapters or layer.merged:
        return layer.base_layer(x)
    (name,) = layer.active_adapters
    packed, a, b = layer.base_layer.packed, layer.lora_A[name].weight, layer.lora_B[name].weight
    if fixed is None:
        return _through(x, packed, a, b, layer.scaling[name])
    if name not in fixed:
        fixed[name] = PackedAdapter(a, b, layer.scaling[name], x.dtype)
    flat = x.reshape(-1, x.shape[-1])
    return fixed[name].add_to(packed.multiply(flat), flat).view(*x.shape[:-1], -1)


def _frozen_linear(model):
    """(layer, kind of its packed weight) of each that can be packed."""
    for name, layer in model.named_modules():
        # The two matrices of an adapter are left out: its LoRA layer multiplies with them.
        plain = type(layer) is torch.nn.Linear and ".lora_" not in name
        four_bit = type(layer).__name__ == "Linear4bit" and not hasattr(layer, "base_layer")
        if (plain or four_bit) and layer.bias is None and "packed" not in vars(layer):
            if layer.weight.device.type != "cpu" or (torch.is_grad_enabled() and layer.weight.requires_grad):
                continue
            if plain and _can_pack(layer.weight.dtype):
                yield layer, PackedWeight
            elif four_bit and torch.is_grad_enabled() and hasattr(layer.weight, "quant_state"):
                yield layer, FourBitWeight


def _with_one_adapter(model):
    from peft.tuners import lora

    kinds = (lora.Linear, getattr(lora, "Linear4bit", lora.Linear))
    for layer in model.modules():
        free = type(layer) in kinds and "forward" not in vars(layer)
        if free and "packed" in vars(layer.base_layer) and len(layer.active_adapters) == 1:
            (name,) = layer.active_adapters
            plain = name in layer.lora_A and name not in layer.lora_variant and layer.lora_A[name].bias is None
            if plain and isinstance(layer.lora_dropout[name], torch.nn.Identity) and layer.lora_B[name].bias is None:
                yield layer


def _can_pack(dtype):
    if not torch.backends.mkldnn.is_available():
        return False
    if MISSING:
        _tell()
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _tell():
    """Once for a process, not for each of its layers."""
    print(
        f"torch {torch.__version__} has no {MISSING}; frozen layers run its own way, which is right and slower.",
        flush=True,
    )
