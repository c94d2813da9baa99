"""The metrics of a step: their names, and one line with all of them, always in the same order.

The names are a promise (dashboards use them). A value that does not exist is null; infinities and NaN are the strings
"inf", "-inf" and "nan", because JSON has no such numbers.
"""

import math
from collections.abc import Sequence
from typing import Any

from configs.objectives import Objective
from glm.loss import ObjectiveSums

_POSITIONS = ("step", "samples_seen", "tokens_seen", "data/samples_drawn")
_OTHERS = (
    "optim/lr",
    "optim/grad_norm",
    "optim/grad_norm_embedding",
    "optim/loss_scale",
    "optim/skipped_steps",
    "optim/embedding_shrink",
    "optim/global_batch_size",
    "speed/seconds_per_step",
    "speed/tokens_per_second",
    "speed/tflops_per_gpu",
    "speed/mfu",
    "speed/hfu",
    "speed/data_wait_seconds",
    "speed/checkpoint_blocked_seconds",
    "speed/evaluation_seconds",
    "speed/rank_seconds_max",
    "speed/rank_seconds_min",
    "memory/peak_gib",
    "data/target_tokens_fraction",
)

Metrics = dict[str, Any]


def metric_keys(counted: Sequence[str]) -> tuple[str, ...]:
    """Names of a run's metrics, in order.

    Args:
        counted: keys of the objectives that it counts by themselves (train/counted.py).
    """
    losses = [
        name
        for part in ("train", "valid")
        for name in (f"{part}/loss", *(f"{part}/loss_{key}" for key in counted))
    ]
    return (*_POSITIONS, *losses, *_OTHERS)


def metrics_line(values: Metrics, counted: Sequence[str]) -> Metrics:
    """Order and complete the values of a step, for `metric_keys`; an unknown name is a bug."""
    known = metric_keys(counted)
    unknown = values.keys() - set(known)
    assert not unknown, f"metrics without a documented name: {unknown}"
    return {key: values.get(key) for key in known}


def to_json_value(value: Any) -> Any:
    """Replace infinities and NaN, which JSON cannot represent, by strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def loss_metrics(
    prefix: str, sums: ObjectiveSums, objectives: Sequence[Objective], counted: Sequence[str]
) -> Metrics:
    """Mean loss, and that of each objective, under `prefix`.

    Args:
        prefix: train or valid.
        sums: of the step or evaluation.
        objectives: that it numbers.
        counted: keys of those that the run counts by themselves.
    """
    values: Metrics = {f"{prefix}/loss": sums.mean}
    for number, objective in enumerate(objectives):
        if objective.key in counted:
            values[f"{prefix}/{objective.loss}"] = sums.mean_of(number)
        else:
            assert not sums.weights[number], f"{objective.label} is counted as another objective"
    return values


def speed_metrics(
    num_samples: int,
    seconds: float,
    seq_length: int,
    model_flops: float,
    hardware_flops: float,
    world_size: int,
    peak_tflops: float | None,
) -> Metrics:
    """Speed of a step.

    Args:
        num_samples: global batch size.
        seconds: wall time of the step.
        seq_length: tokens per sample.
        model_flops: per sample, without recomputation: gives MFU.
        hardware_flops: per sample, with what is recomputed: gives HFU and TFLOP/s.
        world_size: devices.
        peak_tflops: of one device; None if unknown.
    """
    per_device = num_samples / seconds / world_size / 1e12
    tflops = hardware_flops * per_device
    return {
        "speed/seconds_per_step": seconds,
        "speed/tokens_per_second": num_samples * seq_length / seconds,
        "speed/tflops_per_gpu": tflops,
        "speed/mfu": model_flops * per_device / peak_tflops if peak_tflops else None,
        "speed/hfu": tflops / peak_tflops if peak_tflops else None,
    }
