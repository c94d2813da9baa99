"""Section: one layer of the 130B shape in the real engine, one GPU, tp 1, bf16.

One engine is built, and its layer set to each variant in turn. MFU counts the operations of the model, without what is
computed again; a micro-batch is the difference of two steps. A vocabulary of 1024 leaves head and embedding next to
nothing to do.
"""

from typing import Any

import torch

from benchmarks.gpu.bench import Bench, graphs_so_far, milliseconds
from benchmarks.gpu.engines import COMMON, Trainee, session_on
from benchmarks.gpu.kernels import kernels_of
from configs.load import load_config
from configs.schema import Config, Recompute
from glm.attention import SelfAttention
from glm.dropout import Dropout
from launch.estimate.memory import memory_of_stages
from launch.estimate.network import Transformer
from train.device import peak_tflops
from train.engine.recompute import checkpoint_function

_SHAPE = ("model=glm_130b", "model.num_layers=1", "model.vocab_size=1024", "precision=bf16")
_TINY = ("model=tiny", "model.num_layers=1", "model.seq_length=128", "precision=bf16")
_BATCH = ("optim.micro_batch_size=1", "optim.global_batch_size=8")
_PLAIN = ("model.hidden_dropout=0", "model.attention_dropout=0")
_VARIANTS = {
    "no recompute": _PLAIN,
    "full recompute": (*_PLAIN, "parallel.recompute=full"),
    "both dropouts 0.1": ("model.hidden_dropout=0.1", "model.attention_dropout=0.1"),
    "hidden dropout 0.1": ("model.hidden_dropout=0.1", "model.attention_dropout=0"),
    "selective recompute": (*_PLAIN, "parallel.recompute=selective"),
}
_LARGE, _SMALL = 8, 4
_TOP = 15
# Of the estimate, which counts live bytes, over the allocator's peak.
_MEMORY_LIMIT = 0.15


def measure(bench: Bench) -> None:
    """Each variant in turn, the most telling one first."""
    shape = (*(_TINY if bench.is_dry else _SHAPE), *_BATCH, *COMMON)
    configs = {name: load_config([*shape, *words]) for name, words in _VARIANTS.items()}
    first = configs["no recompute"]
    with session_on(bench.device, first) as session:
        trainee = Trainee(first, session)
        try:
            for name, config in configs.items():
                _set(trainee, config)
                _measure(bench, name, config, trainee)
        finally:
            trainee.engine.close()


def _set(trainee: Trainee, config: Config) -> None:
    """Make the engine's layer one of a configuration that differs in recompute and dropout alone."""
    module, model, recompute = trainee.engine.module, config.model, config.parallel.recompute
    is_none = recompute is Recompute.none
    module.recompute = None if is_none else checkpoint_function(recompute)
    for each in module.modules():
        if isinstance(each, Dropout):
            each.probability = model.hidden_dropout
    for each in module.modules():
        if isinstance(each, SelfAttention):
            each._model, each._dropout.probability = model, model.attention_dropout


def _measure(bench: Bench, name: str, config: Config, trainee: Trainee) -> None:
    device, graphs = bench.device, graphs_so_far()
    outcome = trainee.step()
    if not bench.is_dry:
        torch.cuda.reset_peak_memory_stats(device)
    rounds = 3
    large = milliseconds(trainee.step, device, rounds)
    peak_bytes = None if bench.is_dry else torch.cuda.max_memory_allocated(device)
    small = milliseconds(lambda: trainee.step(_SMALL), device, rounds)
    kernels = kernels_of(trainee.step, device) if name == "no recompute" else []
    bench.check(f"the gradient is finite: {name}", outcome.grad_norm > 0, norm=outcome.grad_norm)
    micro_ms = (large - small) / (_LARGE - _SMALL)
    flops = Transformer.of(config).flops_per_sample()
    peak = peak_tflops(device)
    estimate = memory_of_stages(config, on_gpu=not bench.is_dry)[0].peak
    found: dict[str, Any] = {
        "step_ms": large,
        "micro_batch_ms": micro_ms,
        "rest_of_step_ms": large - _LARGE * micro_ms,
        "tflops": flops / micro_ms / 1e9 if micro_ms > 0 else None,
        "mfu_of_micro_batch": None if peak is None else flops / micro_ms / 1e9 / peak,
        "mfu_of_step": None if peak is None else _LARGE * flops / large / 1e9 / peak,
        "graphs": graphs_so_far() - graphs,
        "estimated_bytes": estimate,
        "peak_bytes": peak_bytes,
    }
    bench.record("layer", variant=name, **found)
    if kernels:
        busy = sum(kernel.milliseconds for kernel in kernels)
        top = [vars(kernel) for kernel in kernels[:_TOP]]
        bench.record("kernels of a step", busy_ms=busy, step_ms=large, top=top)
    if peak_bytes is None or peak is None:
        bench.say(f"{name}: {micro_ms:.2f} ms a micro-batch")
        return
    bench.check(
        f"memory as estimated: {name}",
        abs(estimate / peak_bytes - 1) <= _MEMORY_LIMIT,
        ratio=estimate / peak_bytes,
    )
    bench.say(
        f"{name}: {micro_ms:.1f} ms a micro-batch, {found['tflops']:.0f} TFLOP/s, MFU {found['mfu_of_micro_batch']:.1%} "
        f"(of a step {found['mfu_of_step']:.1%}); peak {peak_bytes / 2**30:.1f} GiB, "
        f"estimated {estimate / 2**30:.1f}"
    )
