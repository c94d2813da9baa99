"""What changed a run on its way, by itself or by its user, as the run folder records it: rollbacks and schedules.

    runs/NAME/interventions.json

A rollback goes back to a checkpoint that was written before the rollback was decided, so no checkpoint can hold the
decision: it is written here first, and every start applies what it finds. For the same reason a changed schedule is
recorded: what was trained under the old one is trained under the old one again, should the run go back.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from configs.errors import RecordError
from configs.records import Count, Seconds, ShortText, read_record
from configs.run_paths import RunPaths
from configs.schema import Config, OptimConfig

FORMAT_VERSION = 1
_LARGEST = 2**26


@dataclass(frozen=True)
class Rollback:
    """One decision to go back. Samples are positions by samples seen, but those of `skip` are of the data stream."""

    generation: Count
    """Of the attempt that decided: what it has saved after the checkpoint belongs to no history."""
    reason: ShortText
    onset_step: Count
    """First step that may be part of what was found."""
    found_step: Count
    onset_samples: Count
    """Samples seen before that first step."""
    found_samples: Count
    """Samples seen after the step at which it was found."""
    checkpoint_step: Count
    checkpoint_samples: Count
    skip: list[tuple[Count, Count]] = field(default_factory=list[tuple[int, int]])
    """Ranges [a, b) of the data stream that are left out; none where the data are not at fault."""
    learning_rate: float = 1.0
    """Factor from the checkpoint on."""
    embedding_shrink: float = 1.0
    """Factor from the checkpoint on."""
    until_samples: Count = 0
    """End of both factors: they return to 1 over `return_samples` from there."""
    return_samples: Count = 0
    time: Seconds = 0.0

    def eased(self, factor: float, samples_seen: int) -> float:
        """A factor of this rollback at a position: in full, on its way back to 1, or 1."""
        if samples_seen < self.checkpoint_samples:
            return 1.0
        if samples_seen < self.until_samples:
            return factor
        if samples_seen >= self.until_samples + self.return_samples:
            return 1.0
        return factor + (1.0 - factor) * (samples_seen - self.until_samples) / self.return_samples


@dataclass(frozen=True)
class EarlierSchedule:
    """The schedules of a run before a resume changed them."""

    until_samples: Count
    """Position of that resume."""
    optim: OptimConfig
    embedding_shrink: list[list[float]]
    rewarmup_samples: Count = 0
    """Length of the warm-up of the learning rate that follows."""
    time: Seconds = 0.0
    """Of that resume."""


@dataclass(frozen=True)
class Interventions:
    """All of a run, in order."""

    rollbacks: list[Rollback] = field(default_factory=list[Rollback])
    schedules: list[EarlierSchedule] = field(default_factory=list[EarlierSchedule])
    revision: Count = 0
    """Number of changes: of the run folder's file and its copy the later one counts."""
    format_version: Count = FORMAT_VERSION

    def skipped(self, configured: Sequence[Sequence[int]]) -> list[list[int]]:
        """Ranges of the data stream that are left out: ordered, disjoint, and those of the configuration unchanged.

        Args:
            configured: `data.skip_samples`.
        """
        ranges = sorted([int(start), int(stop)] for start, stop in configured)
        for rollback in self.rollbacks:
            for start, stop in rollback.skip:
                ranges = sorted([*ranges, *_without(start, stop, ranges)])
        return ranges

    def learning_rate_factor(self, samples_seen: int) -> float:
        """Factor of the learning rate at a position; the lowest of all rollbacks."""
        factors = (each.eased(each.learning_rate, samples_seen) for each in self.rollbacks)
        return min(factors, default=1.0)

    def embedding_shrink_factor(self, samples_seen: int) -> float:
        """Factor of the embedding gradient shrink at a position."""
        factors = (each.eased(each.embedding_shrink, samples_seen) for each in self.rollbacks)
        return min(factors, default=1.0)

    def to_json(self) -> str:
        """Text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_interventions(run: Path) -> Interventions:
    """Read those of a run folder, or of its second copy; none if it has no such file.

    Raises:
        RecordError: the file is damaged, or of a newer version.
        OSError: the file system failed.
    """
    path = RunPaths(run).interventions
    try:
        found = read_record(path, Interventions, _LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return Interventions()
    if found.format_version > FORMAT_VERSION:
        raise RecordError(
            f"{path} has format version {found.format_version}; this program knows {FORMAT_VERSION}. Use a newer one."
        )
    return found


def skipped_by(config: Config, run: Path | None) -> list[list[int]]:
    """Ranges of the data stream that a run leaves out, by its configuration and its rollbacks.

    Raises:
        RecordError: the file is damaged.
    """
    found = Interventions() if run is None else read_interventions(run)
    return found.skipped(config.data.skip_samples)


def _without(start: int, stop: int, ranges: list[list[int]]) -> list[list[int]]:
    """The parts of [start, stop) that no range holds."""
    parts: list[list[int]] = []
    for first, last in ranges:
        if start < first:
            parts.append([start, min(stop, first)])
        start = max(start, last)
        if start >= stop:
            break
    if start < stop:
        parts.append([start, stop])
    return [part for part in parts if part[0] < part[1]]
