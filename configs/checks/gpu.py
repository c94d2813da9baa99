"""Checks of the cluster's hardware: a GPU that is known or wholly described, and numbers that hardware can have."""

from collections.abc import Callable

from configs.hardware import gpu_problems
from configs.schema import Config

# Estimates multiply and divide these by each other: what lies further from the usual is a slip of a unit, and would be
# answered with times of hundreds of digits.
_FARTHEST = 1e6
_MOST_RANKS = {"nodes": 10**6, "gpus_per_node": 10**4}


def _gpu(config: Config) -> list[str]:
    return gpu_problems(config.cluster)


def _numbers(config: Config) -> list[str]:
    cluster = config.cluster
    usual = {
        "gpu_memory_gib": 80,
        "peak_tflops": 312,
        "gpu_memory_gb_per_second": 2039,
        "node_gb_per_second": 300,
        "network_gb_per_second": 25,
        "gpu_watts": 400,
        "gpu_price_per_hour": 2,
        "gpu_mtbf_hours": 50000,
        "storage_gb_per_second": 10,
        "restart_minutes": 15,
        "host_memory_gib": 1000,
        "measured_seconds_per_step": 10,
    }
    values: dict[str, float | None] = {key: getattr(cluster, key) for key in usual}
    return [
        f"cluster.{key} ({value:g}) must lie between {usual[key] / _FARTHEST:g} and {usual[key] * _FARTHEST:,.0f}. "
        f"Try cluster.{key}={usual[key]}."
        for key, value in values.items()
        if value is not None and not usual[key] / _FARTHEST <= value <= usual[key] * _FARTHEST
    ]


def _ranks(config: Config) -> list[str]:
    values: dict[str, int] = {key: getattr(config.cluster, key) for key in _MOST_RANKS}
    return [
        f"cluster.{key} ({value}) must be at most {_MOST_RANKS[key]:,}. Try cluster.{key}=8."
        for key, value in values.items()
        if value > _MOST_RANKS[key]
    ]


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_gpu, _numbers, _ranks)
