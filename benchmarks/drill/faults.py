"""What goes wrong inside a rank: poisoned data, gradients that are too large, and a rank that hangs."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.poison import enlarge, poison
from tests.helpers.whole_runs import quietly

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
    poison(faults.poisoned)
    enlarge(faults.enlarged)
    if faults.hangs_at is not None and rank == world_size - 1:
        hang(faults.hangs_at)
    os._exit(quietly(list(overrides), errors))


def hang(samples_seen: int) -> None:
    """Never end the step after so many samples."""
    from train.engine.pipeline import PipelineEngine

    whole = PipelineEngine.train_step

    def train_step(engine: PipelineEngine, step: Any, batches: Any) -> Any:
        while step.samples_seen >= samples_seen:
            time.sleep(1)
        return whole(engine, step, batches)

    PipelineEngine.train_step = train_step  # type: ignore[method-assign]
