"""Checks of the shares of further objectives, and that the packages that provide them are installed."""

from collections.abc import Callable

from configs.errors import ConfigError
from configs.objectives import asked_shares, missing_problem
from configs.schema import Config


def _shares(config: Config) -> list[str]:
    objective = config.objective
    try:
        asked = asked_shares(objective)
    except ConfigError as error:
        return error.problems
    found = [
        f"objective.shares ({key}:{share:g}) must have a share between 0 and 1. Try objective.shares=[{key}:0.1]."
        for key, share in asked
        if not 0 <= share <= 1
    ]
    names = [key for key, _ in asked]
    found += [
        f"objective.shares names {key} more than once. Give it one share."
        for key in sorted({key for key in names if names.count(key) > 1})
    ]
    # A rounding error does not count as a share.
    total = objective.gmask_share + sum(share for _, share in asked)
    if not found and asked and total > 1 + 1e-9:
        left = max(1 - objective.gmask_share, 0)
        found.append(
            f"objective.gmask_share ({objective.gmask_share:g}) and objective.shares together ask for {total:g} of the "
            f"rows. Lower objective.gmask_share, or give objective.shares at most {left:g} in all."
        )
    return found + [
        problem for key in dict.fromkeys(names) if (problem := missing_problem(key)) is not None
    ]


CHECKS: tuple[Callable[[Config], list[str]], ...] = (_shares,)
