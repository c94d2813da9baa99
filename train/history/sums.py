"""Events that a history only sums up: steps left out, and checkpoints, of the time between two other entries."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from train.history.kinds import Saved, Skip, counted

_SHOWN_REASONS = 3
# What differs between reasons of one kind: the number of the step, and its figures.
_FIGURES = re.compile(r"[+-]?\d([\d.,]*\d)?(e[+-]?\d+)?|\b(inf|nan)\b")


@dataclass
class Stretch:
    """The events between two entries."""

    skips: list[Skip] = field(default_factory=list[Skip])
    checkpoints: list[Saved] = field(default_factory=list[Saved])
    copies: list[Saved] = field(default_factory=list[Saved])
    last_time: float = 0.0

    def words(self) -> list[str]:
        """A sentence for each kind that there was."""
        return [
            *([_skipped(self.skips)] if self.skips else []),
            *([_saved(self.checkpoints, "checkpoint")] if self.checkpoints else []),
            *([_saved(self.copies, "second copy")] if self.copies else []),
        ]


def _skipped(skips: Sequence[Skip]) -> str:
    steps = sorted(skip.step for skip in skips)
    first, last = f"{steps[0]:,}", f"{steps[-1]:,}"
    which = f"step {first}" if len(steps) == 1 else f"between step {first} and step {last}"
    alike: dict[str, list[str]] = {}
    for skip in skips:
        alike.setdefault(_FIGURES.sub("#", skip.reason), []).append(skip.reason)
    ordered = sorted(alike.values(), key=lambda reasons: -len(reasons))
    told = [_alike(reasons) for reasons in ordered[:_SHOWN_REASONS]]
    rest = sum(map(len, ordered[_SHOWN_REASONS:]))
    if rest:
        told.append(f"{rest:,} for other reasons")
    return f"{counted(len(skips), 'step')} left out, {which}: {'; '.join(told)}"


def _alike(reasons: Sequence[str]) -> str:
    such_as = "such as " if len(set(reasons)) > 1 else ""
    return f"{len(reasons):,} x {such_as}{reasons[0]}"


def _saved(saved: Sequence[Saved], what: str) -> str:
    number = counted(len(saved), what) if what != "second copy" or len(saved) == 1 else ""
    number = number or f"{len(saved):,} second copies"
    last = saved[-1]
    name = last.path.rpartition("/")[2]
    return f"{number}, the last {name} at sample {last.samples_seen:,}"
