"""Section: dropout's masks, compiled and not, on GPU and CPU; and products that are added up in fp32."""

import torch

from benchmarks.gpu.bench import Bench, milliseconds
from glm.counter_random import key_of
from glm.dropout import keep_mask
from glm.weight_gradient import add_product, has_wide_product

_PROBABILITY = 0.1
# An fp32 sum of a bf16 product: rounding of the sum alone, or of the product to bf16 as well.
_WIDE_LIMIT, _ROUNDED_LIMIT = 1e-5, 1e-2


def measure(bench: Bench) -> None:
    """Masks of hidden states (rows are tokens) and of attention weights (rows are samples); then the products."""
    tokens, hidden, rows, scores = (64, 128, 1, 4096) if bench.is_dry else (2048, 12288, 1, 1 << 26)
    _masks(bench, "hidden states", tokens, hidden)
    _masks(bench, "attention weights", rows, scores)
    _products(bench)


def _masks(bench: Bench, name: str, rows: int, width: int) -> None:
    device = bench.device
    key = torch.tensor(key_of(1, "dropout", 3, "mlp_output"))
    # Samples and elements of more than 32 bits, whose upper halves are hashed too.
    samples = torch.arange(rows) * 7 + (1 << 33)
    firsts = torch.arange(rows) * width + (1 << 34)
    expected = keep_mask.function(samples, firsts, width, key, _PROBABILITY)
    there = (samples.to(device), firsts.to(device), width, key.to(device), _PROBABILITY)
    eager, fused = keep_mask.function(*there).cpu(), keep_mask(*there).cpu()
    share = float(expected.float().mean())
    bench.check(
        f"masks of {name}: this device's are the CPU's",
        torch.equal(eager, expected),
        differing=int((eager != expected).sum()),
        kept=share,
    )
    bench.check(
        f"masks of {name}: compiled as not",
        torch.equal(fused, expected),
        differing=int((fused != expected).sum()),
    )
    bench.check(
        f"masks of {name}: the share kept", abs(share - 1 + _PROBABILITY) < 0.02, kept=share
    )
    ms = milliseconds(lambda: keep_mask(*there), device)
    bench.record("mask", name=name, elements=rows * width, milliseconds=ms)
    bench.say(f"masks of {name}: {rows * width / ms / 1e6:.0f} thousand million elements/s")


def _products(bench: Bench) -> None:
    device, dtype = bench.device, torch.bfloat16
    size, depth = (64, 128) if bench.is_dry else (8192, 2048)
    is_wide = has_wide_product(device, dtype)
    bench.record("addmm with out_dtype", works=is_wide)
    left = torch.randn(size, depth, device=device).to(dtype)
    right = torch.randn(depth, size, device=device).to(dtype)
    start = torch.randn(size, size, device=device)
    total = start.clone()
    add_product(total, left, right)
    exact = start + left.float() @ right.float()
    difference = float((total - exact).abs().max() / exact.abs().max())
    limit = _WIDE_LIMIT if is_wide else _ROUNDED_LIMIT
    bench.check("a product added up in fp32", difference <= limit, difference=difference)
    rounds = 2 if bench.is_dry else 10
    added = milliseconds(lambda: add_product(total, left, right), device, rounds)
    apart = milliseconds(lambda: total.add_(left @ right), device, rounds)
    bench.record("product into fp32", milliseconds=added, product_and_add_milliseconds=apart)
    bench.say(
        f"out_dtype {'works' if is_wide else 'is not there'}: product into fp32 {added:.2f} ms, "
        f"product and add {apart:.2f} ms"
    )
