"""Check of the cluster's hardware: a GPU that is known or wholly described."""

from collections.abc import Callable

from configs.hardware import gpu_problems
from configs.schema import Config


def _gpu(config: Config) -> list[str]:
    return gpu_problems(config.cluster)


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_gpu,)
