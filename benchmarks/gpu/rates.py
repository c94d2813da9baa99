"""Section: rates of matrix products at GLM-130B's shapes, and of memory, beside what the speed model assumes."""

import torch

from benchmarks.gpu.bench import Bench, milliseconds
from configs.hardware import PRESETS
from configs.load import load_config
from configs.peak_rates import peak_tflops_of
from glm.weight_gradient import add_product, has_wide_product
from launch.estimate.rates import MATMUL_SHARE, MEMORY_SHARE

_COPIED_BYTES = 4 << 30
_TINY_BYTES = 1 << 22


def measure(bench: Bench) -> None:
    """Products of forward, input-gradient and weight-gradient passes at tp 1 to 8; then copies."""
    device = bench.device
    model = load_config(["model=tiny" if bench.is_dry else "model=glm_130b"]).model
    name = "" if bench.is_dry else torch.cuda.get_device_name(device)
    peak = peak_tflops_of(name)
    rates = {}
    for tp in (1, 2, 4, 8):
        hidden, inner = model.hidden_size, model.ffn_size
        # Outputs and inputs of the layer's matrices, the last one twice: value and gate.
        shapes = [(3 * hidden // tp, hidden), (hidden, hidden // tp), (hidden, inner // tp)]
        shapes += [(inner // tp, hidden)] * 2
        rates[tp] = _products(bench, tp, model.seq_length, shapes)
        share = f", {rates[tp] / peak:.1%} of peak" if peak else ""
        bench.say(f"tp {tp}: {rates[tp]:.0f} TFLOP/s over a layer's products{share}")
    memory = _copy_rate(device, _TINY_BYTES if bench.is_dry else _COPIED_BYTES)
    known = next((gpu for key, gpu in PRESETS.items() if key in name), None)
    bench.record(
        "rates",
        device=name or "CPU",
        tflops={f"tp {tp}": rate for tp, rate in rates.items()},
        copy_gb_per_second=memory,
        assumed_matmul_share=MATMUL_SHARE,
        matmul_share=None if peak is None else rates[4] / peak,
        assumed_memory_share=MEMORY_SHARE,
        memory_share=None if known is None else memory / known.memory_gb_per_second,
    )
    bench.say(f"a copy moves {memory:.0f} GB/s, read and written")
    if peak is not None and known is not None:
        bench.say(
            f"launch/estimate/rates.py: MATMUL_SHARE {MATMUL_SHARE:.3f}, here {rates[4] / peak:.3f} (tp 4); "
            f"MEMORY_SHARE {MEMORY_SHARE:.3f}, here {memory / known.memory_gb_per_second:.3f}"
        )


def _products(bench: Bench, tp: int, tokens: int, shapes: list[tuple[int, int]]) -> float:
    """TFLOP/s over all products of a layer: total operations over total time."""
    device, rounds = bench.device, 2 if bench.is_dry else 10
    is_wide = has_wide_product(device, torch.bfloat16)
    operations, total_ms = 0.0, 0.0
    for outputs, inputs in shapes:
        x = torch.randn(tokens, inputs, device=device).bfloat16()
        weight = torch.randn(outputs, inputs, device=device).bfloat16()
        gradient = torch.randn(tokens, outputs, device=device).bfloat16()
        sums = torch.zeros(outputs, inputs, device=device)
        times = {
            "forward": milliseconds(lambda x=x, w=weight: x @ w.t(), device, rounds),
            "input": milliseconds(lambda g=gradient, w=weight: g @ w, device, rounds),
            "weight": milliseconds(lambda g=gradient, x=x: g.t() @ x, device, rounds),
            "weight_into_fp32": milliseconds(
                lambda s=sums, g=gradient, x=x: add_product(s, g.t(), x), device, rounds
            ),
        }
        each = 2.0 * tokens * outputs * inputs
        operations += 3 * each
        total_ms += times["forward"] + times["input"] + times["weight"]
        tflops = {key: each / ms / 1e9 for key, ms in times.items()}
        about = {"tp": tp, "tokens": tokens, "outputs": outputs, "inputs": inputs}
        bench.record("product", **about, tflops=tflops, has_wide_product=is_wide)
    return operations / total_ms / 1e9


def _copy_rate(device: torch.device, size: int) -> float:
    """GB/s, what is read and what is written counted both."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = milliseconds(lambda: target.copy_(source), device)
    return 2 * size / ms / 1e6
