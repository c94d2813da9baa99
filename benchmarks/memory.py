"""Estimated memory against the measured peak of live bytes, on ten layouts:  python -m benchmarks memory

Each layout trains two steps in real processes over gloo (benchmarks/live_memory.py); the table compares the fullest
rank of every stage. Weights take at least 200 MB in each.
"""

import json
import subprocess
from dataclasses import dataclass

from configs.load import load_config
from launch.estimate.memory import memory_of_stages

# 52.4 M parameters: 210 MB in fp32. Twice as wide in bf16: 127 M parameters, 254 MB.
_FP32 = (
    "precision=fp32",
    "model.num_layers=6",
    "model.hidden_size=768",
    "model.num_heads=12",
    "model.ffn_size=2048",
    "model.vocab_size=13312",
)
_BF16 = (
    "precision=bf16",
    "model.num_layers=6",
    "model.hidden_size=1152",
    "model.num_heads=12",
    "model.ffn_size=3072",
    "model.vocab_size=28672",
)
_BOTH = ("model.seq_length=256", "optim.total_samples=64", "data.paths=[none]")


@dataclass(frozen=True)
class Layout:
    """A run to measure."""

    name: str
    words: tuple[str, ...]
    num_ranks: int


def layout(
    name: str, base: tuple[str, ...], tp: int, pp: int, dp: int, micro: int, count: int, *more: str
) -> Layout:
    """Put the words of a layout together: `count` micro-batches of `micro` rows per replica."""
    words = (
        *base,
        *_BOTH,
        f"parallel.tp={tp}",
        f"parallel.pp={pp}",
        f"cluster.gpus_per_node={tp * pp * dp}",
        f"optim.micro_batch_size={micro}",
        f"optim.global_batch_size={micro * count * dp}",
        *more,
    )
    return Layout(name, words, tp * pp * dp)


LAYOUTS = (
    layout("fp32, no ZeRO", _FP32, 1, 1, 1, 4, 2, "parallel.zero_stage=0"),
    layout("fp32, ZeRO-1", _FP32, 1, 1, 1, 4, 2),
    layout("fp32, dp 2, recompute", _FP32, 1, 1, 2, 4, 2, "parallel.recompute=full"),
    layout("fp32, selective recompute", _FP32, 1, 1, 1, 8, 2, "parallel.recompute=selective"),
    layout("fp32, tp 2", _FP32, 2, 1, 1, 8, 2),
    layout("fp32, pp 2", _FP32, 1, 2, 1, 4, 4),
    layout(
        *("fp32, pp 2, interleaved", _FP32, 1, 2, 1, 4, 4),
        *("parallel.schedule=interleaved", "parallel.chunks=2"),
    ),
    layout("bf16", _BF16, 1, 1, 1, 2, 2),
    layout("bf16, micro-batch 8", _BF16, 1, 1, 1, 8, 2),
    layout("bf16, pp 4", _BF16, 1, 4, 1, 4, 4),
    layout(
        *("bf16, pp 4, interleaved", _BF16, 1, 4, 1, 4, 6),
        *("parallel.schedule=interleaved", "parallel.chunks=2"),
    ),
    layout("bf16, tp 2, pp 2, recompute", _BF16, 2, 2, 1, 4, 4, "parallel.recompute=full"),
    layout("bf16, tp 2, pp 2, dp 2, dropout", _BF16, 2, 2, 2, 2, 4, "model.hidden_dropout=0.1"),
)


def compare(run: Layout) -> list[tuple[int, int]]:
    """Estimated and measured bytes of every stage's fullest rank."""
    command = ["torchrun", "--standalone", "--nproc-per-node", str(run.num_ranks)]
    command += ["-m", "benchmarks.live_memory", json.dumps(run.words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = {}
    for line in done.stdout.splitlines():
        if line.startswith("peak "):
            _, rank, size = line.split()
            peaks[int(rank)] = int(size)
    config = load_config(list(run.words))
    pp = config.parallel.pp
    per_stage = run.num_ranks // pp
    measured = [
        max(peaks[rank] for rank in range(stage * per_stage, (stage + 1) * per_stage))
        for stage in range(pp)
    ]
    estimated = [stage.peak for stage in memory_of_stages(config, on_gpu=False)]
    return list(zip(estimated, measured, strict=True))


def run() -> None:
    """Print the table."""
    print(f"{'layout':<34} {'stage':>5} {'estimated MiB':>14} {'measured MiB':>13} {'ratio':>7}")
    worst = 0.0
    for each in LAYOUTS:
        for stage, (estimated, measured) in enumerate(compare(each)):
            ratio = estimated / measured
            worst = max(worst, abs(ratio - 1))
            sizes = f"{estimated / 2**20:14,.1f} {measured / 2**20:13,.1f}"
            print(f"{each.name:<34} {stage:>5} {sizes} {ratio:7.3f}", flush=True)
    print(f"largest difference {worst:.1%}")
