"""Which source a sample comes from: a repeating cycle, so that any index is found at once.

Any prefix of the stream holds each source within one sample of its share: the k-th of c samples that a source has in a
cycle of L may be served no earlier than floor((k-1) L / c) and before ceil(k L / c), and the waiting sample whose
time is up first is served. With shares that add up to one this never misses a deadline: Baruah, Cohen, Plaxton and
Varvel 1996, "Proportionate progress"; Tijdeman 1980, "The chairman assignment problem".
"""

import heapq
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np

# Weights whose exact cycle would be longer (as those by size) are rounded to multiples of 1 / LONGEST_CYCLE.
LONGEST_CYCLE = 2**16


class Mixture:
    """Interleaving of sources with constant weights.

    Args:
        weights: one per source, at least 0, not all 0; in any unit.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.counts = cycle_counts(weights)
        """How often each source appears in a cycle."""
        self._sources = _serve(self.counts)
        self._ranks = np.empty_like(self._sources)
        for source, count in enumerate(self.counts):
            self._ranks[self._sources == source] = np.arange(count)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each source, as it is kept."""
        return tuple(count / len(self._sources) for count in self.counts)

    def locate(self, index: int) -> tuple[int, int]:
        """Map a sample index >= 0 to (source, index within the source)."""
        cycle, place = divmod(index, len(self._sources))
        source = int(self._sources[place])
        return source, cycle * self.counts[source] + int(self._ranks[place])


def cycle_counts(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole counts in proportion to `weights`: exact, or of a cycle of LONGEST_CYCLE with at least 1 for each source."""
    # A float stands for the decimal that was typed: 0.3 is 3/10.
    exact = [Fraction(repr(float(weight))) for weight in weights]
    common = lcm(*(weight.denominator for weight in exact))
    counts = [int(weight * common) for weight in exact]
    divisor = gcd(*counts)
    assert divisor > 0, "a mixture needs a weight above 0"
    counts = [count // divisor for count in counts]
    total = sum(counts)
    if total <= LONGEST_CYCLE:
        return tuple(counts)
    rounded = [max(count * LONGEST_CYCLE // total, int(count > 0)) for count in counts]
    # What rounding left over goes to the sources that it cut most, or is taken from the largest.
    by_need = sorted(
        range(len(counts)),
        key=lambda source: rounded[source] - counts[source] * LONGEST_CYCLE / total,
    )
    left = LONGEST_CYCLE - sum(rounded)
    for source in by_need[: max(left, 0)]:
        rounded[source] += 1
    rounded[rounded.index(max(rounded))] += min(left, 0)
    return tuple(rounded)


def _serve(counts: Sequence[int]) -> np.ndarray:
    """Source of each place of a cycle, by earliest deadline: (cycle,) int64."""
    cycle = sum(counts)
    waiting = sorted(
        (number * cycle // count, -(-(number + 1) * cycle // count), source)
        for source, count in enumerate(counts)
        for number in range(count)
    )
    sources = np.empty(cycle, dtype=np.int64)
    released: list[tuple[int, int]] = []
    next_waiting = 0
    for place in range(cycle):
        while next_waiting < cycle and waiting[next_waiting][0] <= place:
            heapq.heappush(released, waiting[next_waiting][1:])
            next_waiting += 1
        deadline, sources[place] = heapq.heappop(released)
        assert place < deadline, "a source was served too late"
    return sources
