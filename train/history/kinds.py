"""The events that a history tells of, in words: a record per kind, with the fields that the trainer writes.

A field that an older program did not write has a default; an event whose fields are of other types is damaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from configs.records import Count, ShortText, convert
from configs.run_status import SLOW_RANK

_COMMIT = 12
"""Letters of a commit that are shown."""
_TITLES = {"numerics_change": "numerics", "metrics_repaired": "metrics"}
"""Of events that are a sentence; others have their own name."""


class Told(Protocol):
    """An event as it is read."""

    def words(self, kind: str) -> str:
        """What happened.

        Args:
            kind: name of the event.
        """
        ...


@dataclass(frozen=True)
class Begun:
    """A process trains from here on."""

    samples_seen: Count = 0
    world_size: Count | None = None
    tp: Count | None = None
    pp: Count | None = None
    dp: Count | None = None
    host: ShortText = ""
    commit: ShortText = ""
    repeated_steps: list[Count] = field(default_factory=list[int])

    def words(self, kind: str) -> str:
        """The position, and on what the run is trained."""
        parts = list[str]()
        if self.world_size is not None:
            layout = "" if self.tp is None else f" (tp {self.tp} x pp {self.pp} x dp {self.dp})"
            parts.append(f"{counted(self.world_size, 'rank')}{layout}")
        if self.host:
            parts.append(f"rank 0 on {self.host}")
        if self.commit:
            parts.append(f"commit {self.commit[:_COMMIT]}")
        if len(self.repeated_steps) == 2:
            first, last = self.repeated_steps
            parts.append(f"steps {first:,} to {last:,} are trained again")
        return f"{kind} at sample {self.samples_seen:,}{': ' if parts else ''}{', '.join(parts)}"


@dataclass(frozen=True)
class ConfigChange:
    """What a resume has changed."""

    changes: list[ShortText] = field(default_factory=list[str])

    def words(self, kind: str) -> str:
        """The changes."""
        return f"changed: {'; '.join(self.changes)}"


@dataclass(frozen=True)
class Message:
    """An event that is a sentence already."""

    message: ShortText = ""

    def words(self, kind: str) -> str:
        """The sentence."""
        return f"{_TITLES.get(kind, kind)}: {self.message}"


@dataclass(frozen=True)
class Spike:
    """The detector has found something."""

    text: ShortText = ""

    def words(self, kind: str) -> str:
        """The finding."""
        return f"{kind}: {self.text}"


@dataclass(frozen=True)
class SlowRank:
    """A rank is slow, or no longer."""

    rank: Count = 0
    host: ShortText = ""
    state: ShortText = ""
    samples_seen: Count = 0
    excess: float = 0.0

    def words(self, kind: str) -> str:
        """Which rank, and how slow."""
        who = f"rank {self.rank}{_on(self.host)}"
        slow = f"{who} takes {100 * self.excess:.0f} % longer than it should"
        what = slow if self.state == "slow" else f"{who} is no longer slow"
        return f"slow rank: {what}, at sample {self.samples_seen:,}"


@dataclass(frozen=True)
class Parameter:
    """One whose copies differ."""

    parameter: ShortText = ""
    ranks: list[Count] = field(default_factory=list[int])
    hosts: list[ShortText] = field(default_factory=list[str])


@dataclass(frozen=True)
class WeightsDiffer:
    """Copies of weights that should be equal are not."""

    step: Count = 0
    parameters: Count = 0
    differences: list[Parameter] = field(default_factory=list[Parameter])

    def words(self, kind: str) -> str:
        """In which step, of which parameter, and where."""
        text = f"weights differ in step {self.step:,}"
        if not self.differences:
            return text
        first = self.differences[0]
        hosts = [*first.hosts, *([""] * len(first.ranks))]
        where = ", ".join(
            f"rank {rank}{_on(host)}" for rank, host in zip(first.ranks, hosts, strict=False)
        )
        others = self.parameters - 1
        more = f", and {counted(others, 'other parameter')}" if others > 0 else ""
        return f"{text}: {first.parameter} ({where}){more}"


@dataclass(frozen=True)
class Stop:
    """A requested end."""

    reason: ShortText = ""

    def words(self, kind: str) -> str:
        """Who asked."""
        return f"stopped: {self.reason}"


@dataclass(frozen=True)
class Done:
    """The end of the run."""

    samples_seen: Count = 0

    def words(self, kind: str) -> str:
        """The position."""
        return f"done at sample {self.samples_seen:,}"


@dataclass(frozen=True)
class Skip:
    """A step that was left out; told in sums."""

    step: Count = 0
    reason: ShortText = ""


@dataclass(frozen=True)
class Saved:
    """A checkpoint or its second copy; told in sums."""

    path: ShortText = ""
    samples_seen: Count = 0


SKIP, CHECKPOINT, COPY, ROLLBACK = "skip", "checkpoint", "checkpoint_copy", "rollback"
_TOLD: Mapping[str, type[Told]] = {
    "start": Begun,
    "resume": Begun,
    "config_change": ConfigChange,
    "numerics_change": Message,
    "metrics_repaired": Message,
    "error": Message,
    "hang": Message,
    "spike": Spike,
    SLOW_RANK: SlowRank,
    "weights_differ": WeightsDiffer,
    "stop": Stop,
    "done": Done,
}


def words_of(kind: str, details: Mapping[str, Any], where: str) -> str:
    """An event in words; one of a kind that this program does not know by its name and details.

    Args:
        kind: of the event.
        details: its fields.
        where: for the message.

    Raises:
        RecordError: its fields are of other types.
    """
    known = _TOLD.get(kind)
    if known is not None:
        return convert(details, known, where).words(kind)
    rest = ", ".join(f"{key} {value}" for key, value in details.items())
    return f"{kind}: {rest}" if rest else kind


def counted(number: int, what: str) -> str:
    """A number of things: "1 rank", "2 ranks"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _on(host: str) -> str:
    return f" on {host}" if host else ""
