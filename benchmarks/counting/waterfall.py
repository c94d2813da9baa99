"""What each change is worth: seconds of a step of GLM-130B on 768 H100 by the speed model, row by row.

The first rows are those of commit 7f75a97, whose counts are kept here; the others are this program's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from configs.hardware import PRESETS, Gpu
from configs.load import load_config
from configs.schema import Config
from launch.estimate.network import Layout, Transformer
from launch.estimate.speed import flops_share, step_time
from launch.estimate.traffic import HeadTraffic, PassTraffic, Traffic

# Counted at 7f75a97, bf16.
_FIRST = Traffic(
    forward=PassTraffic(
        hidden=37.1, cut=131.9, inner=18.5, scores=41.5, hidden_dropout=976, scores_dropout=488
    ),
    backward=PassTraffic(
        hidden=43.1, cut=133.9, inner=22.5, scores=49.8, hidden_dropout=18, scores_dropout=9
    ),
    head=HeadTraffic(hidden=24.2, logits=52.1, weights=3.9),
    gradients=26,
    step=82.7,
    update=28,
    sums_forward=2,
    sums_backward=3,
)
_PUBLISHED = (
    "experiment=glm_130b",
    "precision=bf16",
    "cluster.gpu=H100",
    "cluster.peak_tflops=null",
)
# Added one after the other.
_CHANGES = (
    ("the published settings, in bf16", ()),
    ("attention dropout 0: FlexAttention", ("model.attention_dropout=0",)),
    ("hidden dropout 0", ("model.hidden_dropout=0",)),
    ("selective recompute", ("parallel.recompute=selective",)),
    ("no recompute", ("parallel.recompute=none",)),
)
_NEW_CHANGES = (
    ("sequence parallel", ("parallel.sequence=true",)),
    ("interleaved schedule, 3 chunks", ("parallel.schedule=interleaved", "parallel.chunks=3")),
    ("overlap between replicas", ("parallel.overlap=true",)),
)
# TFLOP/s of matrix products: the model's, and the best that others measured on good shapes.
_RATES = (700, 780)


@dataclass(frozen=True)
class Row:
    """One state of the program."""

    name: str
    seconds: tuple[float, ...]
    """A step, at each of the rates."""
    mfu: tuple[float, ...]


def waterfall() -> list[tuple[str, list[Row]]]:
    """Rows of the first commit, and of the program as it is."""
    return [
        ("commit 7f75a97", [_row(*each, _FIRST) for each in _configs(_CHANGES)]),
        ("this program", [_row(*each, None) for each in _configs(_CHANGES + _NEW_CHANGES)]),
    ]


def markdown() -> list[str]:
    """The tables of docs/benchmarks.md."""
    heads = " | ".join(f"{what} @{rate}" for what in ("step s", "MFU") for rate in _RATES)
    lines = [f"| state | {heads} |", "|---|---|---|---|---|"]
    for title, rows in waterfall():
        for row in rows:
            seconds = " | ".join(f"{value:.1f}" for value in row.seconds)
            mfu = " | ".join(f"{value:.1%}".replace("%", " %") for value in row.mfu)
            lines.append(f"| {title}: {row.name} | {seconds} | {mfu} |")
    return lines


def _configs(changes: tuple[tuple[str, tuple[str, ...]], ...]) -> Iterator[tuple[str, Config]]:
    words = list(_PUBLISHED)
    for name, more in changes:
        changed = {word.partition("=")[0] for word in more}
        words = [word for word in words if word.partition("=")[0] not in changed] + list(more)
        yield name, load_config(words)


def _row(name: str, config: Config, traffic: Traffic | None) -> Row:
    network, layout = Transformer.of(config), Layout.of(config)
    if traffic is not None:
        network = replace(network, traffic=traffic)
    batch, gpu = config.optim.global_batch_size, PRESETS["H100"]
    seconds = tuple(step_time(network, layout, _at(gpu, rate), batch).total for rate in _RATES)
    ranks = layout.tp * layout.pp * layout.dp
    mfu = tuple(flops_share(network, batch / each, ranks, gpu) for each in seconds)
    return Row(name, seconds, mfu)


def _at(gpu: Gpu, rate: int) -> Gpu:
    """A GPU that does so many TFLOP/s in matrix products by the model."""
    return replace(gpu, peak_tflops=gpu.peak_tflops * rate / _RATES[0])
