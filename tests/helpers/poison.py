"""Attempts whose data, or learning rate, make the loss explode at a chosen place."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.distributed import Ranks


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


def poisoned_attempt(
    rank: int,
    world_size: int,
    overrides: tuple[str, ...],
    errors: Path,
    ranges: list[tuple[int, int]],
    also: Callable[[int], None] | None,
) -> None:
    """`python -m train` on poisoned data; `also` prepares the rank's process further."""
    from train.main import cli

    poison(ranges)
    if also is not None:
        also(rank)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    os._exit(cli(list(overrides)))


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
