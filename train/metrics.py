"""The metrics of a step: their names, and one line with all of them, always in the same order.

The names are a promise (dashboards use them). A value that does not exist is null; infinities and NaN are the strings
"inf", "-inf" and "nan", because JSON has no such numbers.
"""

import math
from typing import Any

from glm.loss import NUM_OBJECTIVES, ObjectiveSums

OBJECTIVE_NAMES = ("mask", "gmask", "mip")
assert len(OBJECTIVE_NAMES) == NUM_OBJECTIVES, "one name per objective"

KEYS = (
    "step",
    "samples_seen",
    "tokens_seen",
    "data/samples_drawn",
    "train/loss",
    *(f"train/loss_{name}" for name in OBJECTIVE_NAMES),
    "valid/loss",
    *(f"valid/loss_{name}" for name in OBJECTIVE_NAMES),
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
    "speed/rank_seconds_max",
    "speed/rank_seconds_min",
    "memory/peak_gib",
    "data/target_tokens_fraction",
)

Metrics = dict[str, Any]


def metrics_line(values: Metrics) -> Metrics:
    """Order and complete the values of a step; an unknown name is a bug."""
    unknown = values.keys() - set(KEYS)
    assert not unknown, f"metrics without a documented name: {unknown}"
    return {key: values.get(key) for key in KEYS}


def to_json_value(value: Any) -> Any:
    """Replace what JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def loss_metrics(prefix: str, sums: ObjectiveSums) -> Metrics:
    """Mean loss, and that of each objective, under `prefix`."""
    values: Metrics = {f"{prefix}/loss": sums.mean}
    for number, name in enumerate(OBJECTIVE_NAMES):
        values[f"{prefix}/loss_{name}"] = sums.mean_of(number)
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
