"""Checks of precision, schedules and data."""

from collections.abc import Callable

from configs import derive, optimizers
from configs.schema import Config, Precision, Schedule


def _precision(config: Config) -> list[str]:
    found: list[str] = []
    stage, precision = config.parallel.zero_stage, config.precision
    if stage == 0 and precision is not Precision.fp32:
        found.append(
            f"parallel.zero_stage (0) keeps no fp32 copy that precision ({precision.value}) needs. "
            "Try parallel.zero_stage=1, or precision=fp32."
        )
    if config.parallel.overlap and (precision is not Precision.bf16 or stage != 1):
        found.append(
            f"parallel.overlap needs precision=bf16 and parallel.zero_stage=1, whose gradients lie in one buffer; they are "
            f"{precision.value} and {stage}. Try parallel.overlap=false, or precision=bf16 parallel.zero_stage=1."
        )
    return found


def _optimizer(config: Config) -> list[str]:
    problem = optimizers.missing_problem(config.optim.name)
    return [] if problem is None else [problem]


def _loss_scale(config: Config) -> list[str]:
    first, least = config.stability.initial_loss_scale, config.stability.min_loss_scale
    if not least > first >= 1:
        return []
    return [
        f"stability.min_loss_scale ({least}) must not exceed stability.initial_loss_scale ({first}). "
        "Try stability.min_loss_scale=1."
    ]


def _schedules(config: Config) -> list[str]:
    optim = config.optim
    found: list[str] = []
    # An invalid learning rate is reported by its own check.
    if optim.min_lr is not None and optim.lr > 0 and not 0 <= optim.min_lr <= optim.lr:
        found.append(
            f"optim.min_lr ({optim.min_lr}) must lie between 0 and optim.lr ({optim.lr}). "
            f"Try optim.min_lr={optim.lr / 10:g}."
        )
    warmup, decay = derive.warmup_samples(optim), derive.decay_samples(optim)
    if optim.schedule is Schedule.constant:
        return found
    if warmup > decay:
        found.append(
            f"optim.warmup_samples ({warmup}) must not exceed optim.decay_samples ({decay}). "
            f"Try optim.warmup_samples={max(decay, 0) // 100}."
        )
    elif (
        optim.schedule is Schedule.wsd
        and not 0 <= derive.wsd_decay_samples(optim) <= decay - warmup
    ):
        found.append(
            f"optim.wsd_decay_samples ({derive.wsd_decay_samples(optim)}) must lie between 0 and "
            f"optim.decay_samples ({decay}) - optim.warmup_samples ({warmup}). "
            f"Try optim.wsd_decay_samples={(decay - warmup) // 10}."
        )
    return found


def _shrink(config: Config) -> list[str]:
    points = config.stability.embedding_shrink
    example = "Try stability.embedding_shrink=[[0,0.1]]."
    if not points or any(len(point) != 2 for point in points):
        return [f"stability.embedding_shrink ({points}) must be points [samples, alpha]. {example}"]
    found: list[str] = []
    samples = [point[0] for point in points]
    if samples != sorted(set(samples)):
        found.append(f"stability.embedding_shrink ({points}) must go forward in samples. {example}")
    if any(not 0 <= point[1] <= 1 for point in points):
        found.append(
            f"stability.embedding_shrink ({points}) must have alphas between 0 and 1. {example}"
        )
    return found


def _spikes(config: Config) -> list[str]:
    stability = config.stability
    steps = stability.spike_steps
    if len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
        return [
            f"stability.spike_steps ({steps}) must be [k,n] with 1 <= k <= n. Try stability.spike_steps=[12,20]."
        ]
    return []


def _data(config: Config) -> list[str]:
    data = config.data
    found: list[str] = []
    if not data.paths or "" in data.paths:
        found.append(f"data.paths ({data.paths}) must name a corpus. Try data.paths=corpus.jsonl.")
    weights = data.weights
    if weights is not None and (
        len(weights) != len(data.paths) or min(weights, default=0) < 0 or sum(weights) <= 0
    ):
        found.append(
            f"data.weights ({weights}) must give each of data.paths ({len(data.paths)} of them) a weight of at "
            "least 0, and not all 0. Try data.weights=null to sample by size."
        )
    ranges = data.skip_samples
    if any(len(pair) != 2 or not 0 <= pair[0] < pair[1] for pair in ranges):
        found.append(
            f"data.skip_samples ({ranges}) must be ranges [a,b) with 0 <= a < b. "
            "Try data.skip_samples=[[40700,40900]]."
        )
    elif any(after[0] < before[1] for before, after in zip(ranges, ranges[1:], strict=False)):
        found.append(
            f"data.skip_samples ({ranges}) must be in order, without overlap. "
            f"Try data.skip_samples={_joined(ranges)}."
        )
    return found


def _joined(ranges: list[list[int]]) -> str:
    """The same samples as ordered ranges without overlap, in the form to type."""
    joined: list[list[int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return str(joined).replace(" ", "")


CHECKS: tuple[Callable[[Config], list[str]], ...] = (
    _precision,
    _optimizer,
    _loss_scale,
    _schedules,
    _shrink,
    _spikes,
    _data,
)
