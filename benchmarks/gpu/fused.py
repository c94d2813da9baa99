"""Section: every fused function as it is compiled: its kernels, and the bytes that they move beside the declared ones.

A layer of the 130B shape runs forward and backward without dropout and with it, and each fused function's first
arguments are kept. Then each is compiled alone. Kernels are counted twice, by the compiler and by the
profiler; bytes are the compiler's own count, and the time gives the rate at which the declared bytes were moved.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.counting.operators import bytes_of
from benchmarks.gpu.bench import Bench, milliseconds
from benchmarks.gpu.kernels import is_memory_copy, kernels_of
from benchmarks.gpu.rows import fields_of
from configs.load import load_config
from configs.schema import AttentionPath, ModelConfig
from glm.fused import FUSED, Fused, observing
from glm.layer import FinalNorm, GLMLayer
from glm.tensor_parallel import ensure_initialised

_SHAPE = ("model=glm_130b",)
_TINY = ("model=tiny", "model.seq_length=128")
# Of declared bytes: what a kernel may read or write twice without being another kernel than was declared.
_BYTES_LIMIT = 1.1


def measure(bench: Bench) -> None:
    """Find the arguments, then look at each function."""
    model = load_config([*(_TINY if bench.is_dry else _SHAPE)]).model
    calls = _calls(bench, model)
    missing = sorted(set(FUSED) - {function.name for function, _ in calls.values()})
    bench.check("a layer calls every fused function", not missing, missing=missing)
    kernels = [_look_at(bench, name, *call) for name, call in calls.items()]
    bench.say(f"{len(kernels)} fused calls are {sum(kernels)} kernels")


def _calls(bench: Bench, model: ModelConfig) -> dict[str, tuple[Fused, tuple[Any, ...]]]:
    """The first call of each function without dropout, and with it where it is given more then."""
    found: dict[str, tuple[Fused, tuple[Any, ...]]] = {}

    def keep(function: Fused, given: tuple[Any, ...]) -> Any:
        name, number = function.name, sum(each is not None for each in given)
        for before in (name, f"{name} with dropout"):
            # The values do not matter: a copy would not be laid out as these are.
            _, first = found.setdefault(before, (function, given))
            if sum(each is not None for each in first) == number:
                break
        return function.function(*given)

    ensure_initialised()
    fields = fields_of("[gMASK]", model.seq_length, bench.device)
    variants = [
        replace(model, attention_dropout=rate, hidden_dropout=rate, attention=path)
        for rate, path in ((0.0, AttentionPath.reference), (0.1, AttentionPath.auto))
    ]
    for variant in variants:
        with torch.device(bench.device), observing(keep):
            layer, final = GLMLayer(variant, 0, 1), FinalNorm(variant)
            for module in (layer, final):
                module.to(torch.bfloat16).train()
            hidden = torch.randn(variant.seq_length, variant.hidden_size).bfloat16()
            final(layer((hidden.requires_grad_(), fields)))[0].float().sum().backward()
    return found


def _look_at(bench: Bench, name: str, function: Fused, given: tuple[Any, ...]) -> int:
    """Record a function; returns the number of its kernels."""
    if bench.is_dry:  # no CPU run calls a compiler
        results = function.function(*given)
        bench.record("fused", name=name, declared_bytes=_declared(given, results))
        return 1
    with _counted() as metrics:
        results = function(*given)
    declared = _declared(given, results)
    compiled = metrics.generated_kernel_count
    kernels = kernels_of(lambda: function(*given), bench.device)
    seen = [kernel for kernel in kernels if not is_memory_copy(kernel)]
    launches = sum(kernel.count for kernel in seen)
    ms = milliseconds(lambda: function(*given), bench.device)
    moved = metrics.num_bytes_accessed
    about = {
        "name": name,
        "compiled_kernels": compiled,
        "launched_kernels": launches,
        "launched": [vars(kernel) for kernel in seen],
        "declared_bytes": declared,
        "compiler_bytes": moved,
        "milliseconds": ms,
        "declared_gb_per_second": declared / ms / 1e6,
    }
    bench.record("fused", **about)
    # Where the profiler sees nothing, the compiler's count has to do.
    bench.check(f"one kernel: {name}", compiled == 1 and launches in (0, 1), **about)
    if moved:
        is_as_declared = moved <= declared * _BYTES_LIMIT
        bench.check(f"bytes as declared: {name}", is_as_declared, ratio=moved / declared)
    return max(compiled, launches)


def _declared(given: tuple[Any, ...], results: Any) -> int:
    return bytes_of(given) + bytes_of(results)


@contextlib.contextmanager
def _counted() -> Iterator[Any]:
    """The compiler's metrics of what is compiled meanwhile; caches would hide it."""
    import torch._inductor.config as inductor
    from torch._inductor import metrics

    # Newer versions count bytes only where somebody reads the log of them.
    torch._logging.set_logs(inductor_metrics=True)
    metrics.reset()
    with inductor.patch(force_disable_caches=True):
        yield metrics
