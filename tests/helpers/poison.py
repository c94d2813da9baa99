"""Attempts whose data make the loss explode, or whose gradients are too large, at a chosen place."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import quietly

FACTOR = 1000.0
"""How many times too large an enlarged gradient is."""


def poison(ranges: list[tuple[int, int]]) -> None:
    """Give the samples [a, b) of the training data targets that nothing predicts; for a process that ends afterwards."""
    from data_pipeline.dataset import GLMDataset

    whole = GLMDataset.__getitem__

    def sample(dataset: GLMDataset, index: int) -> Any:
        found = whole(dataset, index)
        if dataset._purpose != "sample" or not any(a <= index < b for a, b in ranges):
            return found
        drawn = np.random.default_rng(index).integers(100, 255, len(found.targets))
        return found._replace(targets=np.where(found.loss_mask, drawn, found.targets))

    GLMDataset.__getitem__ = sample  # type: ignore[method-assign]


def enlarge(ranges: list[tuple[int, int]]) -> None:
    """Multiply the gradients of micro-batches with these samples; their losses stay as they are."""
    from train import loop

    whole = loop.micro_batches_of

    def enlarged(batches: Any, *settings: Any) -> Iterator[Any]:
        micro_batches = whole(batches, *settings)
        for (inputs, labels), batch in zip(micro_batches, batches.micro_batches, strict=True):
            drawn = batch.sample_index
            if any(a <= index < b for index in drawn for a, b in ranges):
                # The weights of the rows: a mean loss is divided by them again.
                labels = (*labels[:-1], labels[-1] * FACTOR)
            yield inputs, labels

    loop.micro_batches_of = enlarged  # type: ignore[assignment]


def poisoned_attempt(
    rank: int,
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path,
    ranges: list[tuple[int, int]],
    also: Callable[[int], None] | None,
) -> None:
    """`python -m train` on poisoned data; `also` prepares the rank's process further."""
    poison(ranges)
    if also is not None:
        also(rank)
    os._exit(quietly(list(overrides), errors))


def run_poisoned(
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path,
    ranges: list[tuple[int, int]],
    also: Callable[[int], None] | None = None,
    timeout_seconds: float = 180,
) -> list[int | None]:
    """Start such an attempt and wait for its end; returns the exit codes, -9 for a rank that was killed."""
    ranks = Ranks(poisoned_attempt, world_size, overrides, errors, ranges, also)
    try:
        return ranks.wait(timeout_seconds)
    finally:
        ranks.kill_all()
