"""What was counted: sums that can be added, subtracted and multiplied."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Work:
    """Kernels of one kind."""

    kernels: int = 0
    read: int = 0
    """Bytes."""
    written: int = 0
    """Bytes."""
    flops: int = 0
    """Operations of matrix products, masked ones included; 0 for other kernels."""

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written

    def __add__(self, other: "Work") -> "Work":
        return Work(*(mine + theirs for mine, theirs in zip(_of(self), _of(other), strict=True)))

    def __sub__(self, other: "Work") -> "Work":
        return self + other * -1

    def __mul__(self, times: int) -> "Work":
        return Work(*(value * times for value in _of(self)))


@dataclass
class Tally:
    """Everything that some code did."""

    products: Work = field(default_factory=Work)
    """Matrix products with weights."""
    attention: Work = field(default_factory=Work)
    """Products of queries, keys, scores and values; the whole kernel where one does all of it."""
    other: Work = field(default_factory=Work)
    """Everything else, fused functions included."""
    collectives: Counter[str] = field(default_factory=Counter[str])
    """How often, by kind."""
    collective_bytes: Counter[str] = field(default_factory=Counter[str])
    """Bytes of the whole tensor, by kind."""
    syncs: Counter[str] = field(default_factory=Counter[str])
    """How often the host waits for the device, by cause."""
    by_operator: dict[str, Work] = field(default_factory=dict[str, Work])
    """The parts of `other`."""

    def __add__(self, other: "Tally") -> "Tally":
        return self._combined(other, 1)

    def __sub__(self, other: "Tally") -> "Tally":
        return self._combined(other, -1)

    def __mul__(self, times: int) -> "Tally":
        return Tally()._combined(self, times)

    def _combined(self, other: "Tally", times: int) -> "Tally":
        return Tally(
            self.products + other.products * times,
            self.attention + other.attention * times,
            self.other + other.other * times,
            _counts(self.collectives, other.collectives, times),
            _counts(self.collective_bytes, other.collective_bytes, times),
            _counts(self.syncs, other.syncs, times),
            {
                name: self.by_operator.get(name, Work())
                + other.by_operator.get(name, Work()) * times
                for name in {**self.by_operator, **other.by_operator}
            },
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{name: vars(getattr(self, name)) for name in ("products", "attention", "other")},
            "collectives": {
                kind: {"count": count, "bytes": self.collective_bytes[kind]}
                for kind, count in sorted(self.collectives.items())
            },
            "syncs": dict(sorted(self.syncs.items())),
        }


def _of(work: Work) -> list[int]:
    return [getattr(work, each.name) for each in fields(Work)]


def _counts(mine: Counter[str], theirs: Counter[str], times: int) -> Counter[str]:
    summed = Counter({name: mine[name] + theirs[name] * times for name in {**mine, **theirs}})
    return Counter({name: count for name, count in summed.items() if count})
