"""Checks of what is logged."""

from collections.abc import Callable

from configs.schema import Config


def _profile_steps(config: Config) -> list[str]:
    steps = config.log.profile_steps
    if steps is None or (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        return []
    return [
        f"log.profile_steps ({steps}) must be two steps, the first at least 1 and the last not before it. "
        "Try 'log.profile_steps=[100,103]', or log.profile_steps=null."
    ]


def profile_rank_problems(config: Config, world_size: int | None) -> list[str]:
    """Check that the ranks to profile exist, once their number is known; it may change from start to start."""
    if config.log.profile_steps is None or world_size is None:
        return []
    missing = [rank for rank in config.log.profile_ranks if not 0 <= rank < world_size]
    if not missing:
        return []
    return [
        f"log.profile_ranks ({config.log.profile_ranks}) must be ranks of this start, 0 to {world_size - 1}. "
        f"Try 'log.profile_ranks=[{world_size - 1}]'."
    ]


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_profile_steps,)
