"""Check of the cluster's hardware: the GPU is a preset or fully described."""

from collections.abc import Callable

from configs.hardware import gpu_problems
from configs.schema import Config


def _gpu(config: Config) -> list[str]:
    return gpu_problems(config.cluster)


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_gpu,)
