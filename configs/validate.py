"""Every reason why a configuration cannot run, found before anything is loaded: pure functions, one check each.

A problem reads "key (value) relation key (value). What to type."
"""

from functools import partial

from configs.checks import (
    cluster,
    device,
    gpu,
    log,
    mixture,
    model,
    numbers,
    objectives,
    text,
    training,
)
from configs.checks.batches import batch_problems, layout_problems
from configs.checks.tensor_parallel import tensor_parallel_problems
from configs.schema import Config


def problems(config: Config, world_size: int | None = None, samples_seen: int = 0) -> list[str]:
    """List everything that is wrong.

    Args:
        config: any configuration.
        world_size: number of processes; None before it is known: the data-parallel size then comes from `cluster.*`.
        samples_seen: samples that the run has seen; earlier batches are not checked.
    """
    found = numbers.finite_problems(config)
    if not found:
        checks = (
            numbers.bound_problems,
            *model.CHECKS,
            partial(tensor_parallel_problems, world_size=world_size),
            *training.CHECKS,
            *device.CHECKS,
            *mixture.CHECKS,
            *objectives.CHECKS,
            *cluster.CHECKS,
            *gpu.CHECKS,
            *log.CHECKS,
            partial(log.profile_rank_problems, world_size=world_size),
        )
        found = [problem for check in checks for problem in check(config)]
    found = text.problems(config) + found
    # The other checks calculate with numbers that are within their bounds.
    return (
        found
        or layout_problems(config, world_size)
        or batch_problems(config, world_size, samples_seen)
    )


def are_sizes_sound(config: Config) -> bool:
    """True if the model can be cut over the cluster, so that memory and time can be estimated."""
    sizes = (numbers.bound_problems, *model.CHECKS, *gpu.CHECKS)
    found = numbers.finite_problems(config) or [
        problem for check in sizes for problem in check(config)
    ]
    found = found or tensor_parallel_problems(config, None)
    return not (found or layout_problems(config, None) or batch_problems(config, None))
