"""The details of a step (train/details_file.py) as single numbers by name, for trackers that draw curves of numbers."""

import statistics
from collections.abc import Sequence
from typing import Any, TypeGuard

MOST_LAYERS = 128
"""Curves of one measure of the layers, at most; of a deeper model as many layers are chosen, evenly."""


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of details.

    A list of the layers becomes `NAME/00`, `NAME/01` and so on; another list, which has a number for each rank, its
    `NAME/min`, `NAME/median` and `NAME/max`; an object of numbers `NAME/KEY`. What is nested more deeply is left out.

    Args:
        line: of details.jsonl, as it is before it is written.
    """
    found: dict[str, float] = {}
    for key, value in line.items():
        if _is_number(value):
            found[key] = value
        elif isinstance(value, dict) and all(map(_is_number, value.values())):
            found.update({f"{key}/{name}": inner for name, inner in value.items()})
        elif _is_numbers(value):
            found.update(_of_list(key, value))
    return found


def _of_list(key: str, values: Sequence[float]) -> dict[str, float]:
    if key.startswith("layers/"):
        width = max(len(str(len(values) - 1)), 2)
        return {f"{key}/{index:0{width}d}": values[index] for index in _chosen(len(values))}
    return {
        f"{key}/min": min(values),
        f"{key}/median": statistics.median(values),
        f"{key}/max": max(values),
    }


def _chosen(count: int) -> list[int]:
    """Of 0 to count - 1 at most MOST_LAYERS, the first and the last among them."""
    if count <= MOST_LAYERS:
        return list(range(count))
    return [round(place * (count - 1) / (MOST_LAYERS - 1)) for place in range(MOST_LAYERS)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_numbers(value: object) -> TypeGuard[Sequence[float]]:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_number, value))
