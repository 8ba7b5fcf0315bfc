"""Frozen layers in the processor's own order: the same products and gradients, and nothing left behind."""

import platform
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mipo_nb.engine import linear


def adapted(dtype=torch.float32, **changes):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(24, 40, bias=False), torch.nn.SiLU(), torch.nn.Linear(40, 8, bias=False))
    model = get_peft_model(
        base.to(dtype), LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["0", "2"], **changes})
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)  # it starts at zero, which would hide A
    return model


def results(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    out.float().square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    return [out.detach(), x.grad, *gradients]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_products_and_gradients_are_those_of_peft(dtype, tolerance):
    model, x = adapted(dtype), torch.randn(3, 5, 24).to(dtype)
    plain = results(model, x)
    with linear.packed_weights(model):
        packed = results(model, x)
    assert len(plain) == 2 + 4
    for one, other in zip(packed, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), rtol=tolerance, atol=tolerance * other.abs().max().item())


def four_bit():
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    kind = {"bias": False, "compute_dtype": torch.bfloat16, "quant_type": "nf4"}
    base = torch.nn.Sequential(Linear4bit(128, 256, **kind), torch.nn.SiLU(), Linear4bit(256, 64, **kind)).to("cpu")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"], init_lora_weights=False))
    return model, torch.randn(3, 5, 128).bfloat16()


def test_products_and_gradients_of_four_bits_are_those_of_peft_also_after_a_look():
    """bitsandbytes' own gradients are others once a model was run in evaluation mode."""
    pytest.importorskip("bitsandbytes")
    model, x = four_bit()
    plain = results(model, x)
    with linear.packed_weights(model):
        packed = results(model, x)
        with torch.no_grad():
            model.eval()(x)
        again = results(model.train(), x)
    assert len(plain) == 2 + 4 and all(map(torch.equal, again, packed))
    for one, other in zip(packed, plain, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), rtol=3e-2, atol=3e-2 * other.abs().max().item())
    with torch.no_grad(), linear.packed_weights(model):
        assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_products_without_gradients_are_those_of_peft_also_with_another_adapter(dtype, tolerance):
    model, x = adapted(dtype), torch.randn(3, 5, 24).to(dtype)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=3, target_modules=["0", "2"], init_lora_weights=False))
    found = {}
    with torch.no_grad():
        for name in ("default", "other"):
            model.set_adapter(name)
            found[name] = model(x).float()
        with linear.packed_weights(model):
            for name, plain in found.items():
                model.set_adapter(name)
                packed = model(x)
                assert packed.dtype == dtype
                assert torch.allclose(packed.float(), plain, rtol=tolerance, atol=tolerance * plain.abs().max().item())
    assert not torch.allclose(found["default"], found["other"], rtol=0.1)


def test_an_adapter_that_learns_is_seen_as_it_is_at_each_product():
    model, x = adapted(), torch.randn(2, 24)
    with linear.packed_weights(model):
        seen = []
        for _ in range(2):
            with torch.no_grad():
                seen.append(model(x))
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.mul_(2)
    assert not torch.allclose(*seen, rtol=0.1)
    with torch.no_grad(), linear.packed_weights(model):
        again = model(x)
    assert torch.allclose(again, model(x), atol=1e-4) and not torch.allclose(again, seen[-1], rtol=0.1)


def test_every_frozen_layer_is_packed_and_every_one_given_back():
    model = adapted()
    before = {name: vars(module).keys() for name, module in model.named_modules()}
    with linear.packed_weights(model):
        assert sum("packed" in vars(module) for module in model.modules()) == 2
        assert sum("forward" in vars(module) for module in model.modules()) == 4
    assert {name: vars(module).keys() for name, module in model.named_modules()} == before


def test_gradients_of_an_adapter_stay_where_they_are_from_step_to_step():
    class Trainer(linear.PackedTraining, Steps):
        pass

    trainer = Trainer(adapted())
    gradients, places = trainer.train()
    assert len(set(places)) == 1 and len(places) == 2
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other) and one.abs().max() > 0


class Steps:
    """Two steps on the same rows, as a trainer makes them: the gradients of each, and where they lay."""

    def __init__(self, model):
        self.model = model

    def train(self):
        gradients, places, x = [], [], torch.ones(2, 24)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        for _ in range(2):
            self.model(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in learning])
            places.append(tuple(p.grad.data_ptr() for p in learning))
            self.model.zero_grad()
        return gradients, places


def test_a_block_within_a_block_leaves_the_outer_one_whole():
    model, x = adapted(), torch.randn(2, 24)
    with linear.packed_weights(model):
        outer = model(x)
        with linear.packed_weights(model):
            assert torch.equal(model(x), outer)
        assert sum("packed" in vars(module) for module in model.modules()) == 2
    assert not any("forward" in vars(module) for module in model.modules())


def test_given_back_after_an_error():
    model = adapted()
    with pytest.raises(RuntimeError, match="stop"), linear.packed_weights(model):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_adapter_can_be_switched_off_and_merged():
    model, x = adapted(), torch.randn(2, 24)
    with torch.no_grad(), model.disable_adapter():
        base = model(x)
    with torch.no_grad(), linear.packed_weights(model), model.disable_adapter():
        assert torch.allclose(model(x), base, atol=1e-5)
    with torch.no_grad():
        whole = model(x)
        model.merge_adapter()
        with linear.packed_weights(model):
            assert torch.allclose(model(x), whole, atol=1e-5)


def test_layers_it_does_not_know_keep_their_own_way():
    with_dropout, with_bias = adapted(lora_dropout=0.5), torch.nn.Linear(3, 3).requires_grad_(False)
    learning = torch.nn.Linear(3, 3, bias=False)
    with linear.packed_weights(torch.nn.ModuleList([with_dropout, with_bias, learning])):
        adapters = [m for m in with_dropout.modules() if hasattr(m, "lora_A")]
        assert len(adapters) == 2 and not any("forward" in vars(m) for m in adapters)
        assert "forward" not in vars(with_bias) and "forward" not in vars(learning)
    with torch.no_grad(), linear.packed_weights(learning):
        assert "forward" in vars(learning)  # nothing is learned without gradients
    with torch.no_grad(), linear.packed_weights(adapted()) as model:
        assert not any("packed" in vars(m) for name, m in model.named_modules() if "lora_" in name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep no freed memory here")
def test_what_a_phase_has_freed_goes_back_to_the_system_at_its_end():
    """300 MB in blocks of 1 MB, of which some stay; in a process of its own, whose memory nobody else has touched."""
    code = """
import os, torch
from mipo_nb.engine import linear, process

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

process.keep_freed_memory()
with linear.packed_weights(torch.nn.Linear(2, 2)):
    blocks = [torch.ones(2**18) for _ in range(300)]
    kept, full = blocks[::50], resident()
    del blocks
    print(full - resident())
print(full - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    within, after = map(int, done.stdout.split())
    assert within < 30 and after > 250


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"_linear_weight_in_order": {"default": 2}}, "mkldnn._linear_weight_in_order"),
        ({"_linear_pointwise": {"default": 7}}, "mkldnn._linear_pointwise"),
        ({"_linear_pointwise": {"default": 6, "ternary": 5}}, "mkldnn._linear_pointwise.ternary"),
        ({}, None),
    ],
)
def test_what_torch_does_not_have_or_takes_otherwise_is_found(monkeypatch, changed, missing):
    monkeypatch.setattr(linear, "_OPERATIONS", {**linear._OPERATIONS, **changed})
    assert linear._missing() == missing and linear.MISSING is None


def test_without_oneDNNs_operations_layers_run_torchs_way_and_one_line_says_so(monkeypatch, capsys):
    model, x = adapted(), torch.randn(3, 5, 24)
    plain = results(model, x)
    monkeypatch.setattr(linear, "MISSING", "mkldnn._linear_pointwise")
    linear._tell.cache_clear()
    for _ in range(2):
        with linear.packed_weights(model):
            assert not any("packed" in vars(layer) for layer in model.modules())
            for ours, own in zip(results(model, x), plain, strict=True):
                torch.testing.assert_close(ours, own)
    linear._tell.cache_clear()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "has no mkldnn._linear_pointwise; frozen layers run its own way" in printed
