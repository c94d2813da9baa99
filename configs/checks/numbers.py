"""Checks of single numbers: each is finite and within the bound of its field in configs/schema."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast

from configs.bounds import bounded_values
from configs.schema import Config


def finite_problems(config: Config) -> list[str]:
    """Check that every number is finite; the other checks compare them."""
    return [
        f"{key} ({value}) must be a finite number. Try {key}=0.1."
        for key, value in _numbers(asdict(config), "")
        if not math.isfinite(value)
    ]


def bound_problems(config: Config) -> list[str]:
    """Check that every number is within its bounds; all are known to be finite."""
    return [
        problem
        for key, value, bound in bounded_values(config)
        if (problem := bound.problem(key, value)) is not None
    ]


def _numbers(tree: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every float with its key."""
    if isinstance(tree, dict):
        for name, value in cast(dict[str, Any], tree).items():
            yield from _numbers(value, f"{key}.{name}" if key else name)
    elif isinstance(tree, list):
        for value in cast(list[Any], tree):
            yield from _numbers(value, key)
    elif isinstance(tree, float):
        yield key, tree
