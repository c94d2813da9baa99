"""What goes wrong inside a rank: poisoned data, gradients that are too large, and a rank that hangs."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.poison import poison

FACTOR = 1000.0
"""How many times too large a gradient is."""

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Faults:
    """Those of one attempt; ranges [a, b) are of drawn samples."""

    poisoned: Ranges = field(default_factory=Ranges)
    enlarged: Ranges = field(default_factory=Ranges)
    hangs_at: int | None = None
    """Samples seen before the step in which the last rank hangs."""


def attempt(
    rank: int, world_size: int, overrides: tuple[str, ...], errors: Path, faults: Faults
) -> None:
    """`python -m train` with faults, in a process that ends with it."""
    from train.main import cli

    poison(faults.poisoned)
    enlarge(faults.enlarged)
    if faults.hangs_at is not None and rank == world_size - 1:
        hang(faults.hangs_at)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    os._exit(cli(list(overrides)))


def enlarge(ranges: Ranges) -> None:
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


def hang(samples_seen: int) -> None:
    """Never end the step after so many samples."""
    from train.engine.pipeline import PipelineEngine

    whole = PipelineEngine.train_step

    def train_step(engine: PipelineEngine, step: Any, batches: Any) -> Any:
        while step.samples_seen >= samples_seen:
            time.sleep(1)
        return whole(engine, step, batches)

    PipelineEngine.train_step = train_step  # type: ignore[method-assign]
