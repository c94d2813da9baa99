"""One cycle of a mixture: which source is served at each of its places, so that none falls a sample behind or ahead.

Of a source that is asked for c of L samples, the j-th (from 0) is released when the weights begin to ask for it and late
once they ask for the next: at place floor((j - lag) L / c) and ceil((j + 1 - lag) L / c), where `lag` is what was asked
for and not served before the cycle. The released sample whose time is up first is served. As the shares add up to
one, a cycle without lag never misses a deadline: Baruah, Cohen, Plaxton and Varvel 1996, "Proportionate progress";
Tijdeman 1980, "The chairman assignment problem".
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, gcd, lcm

import numpy as np

Weight = float | Fraction

# Weights whose exact cycle would be longer (as those by size) are rounded to multiples of 1 / LONGEST_CYCLE.
LONGEST_CYCLE = 2**16
_LEAST_SLACK = Fraction(1, 8)


class Cycle:
    """The order of one cycle.

    Args:
        sources: (cycle,) source of each place.
        num_sources: number of sources.
    """

    def __init__(self, sources: np.ndarray, num_sources: int) -> None:
        self.sources = sources
        self.served = np.bincount(sources, minlength=num_sources).tolist()
        """Number of times each source is served in the cycle."""
        # Places grouped by source: a source's n-th place has rank n.
        by_source = np.argsort(sources, kind="stable")
        first = np.cumsum([0, *self.served[:-1]])
        self.ranks = np.empty(len(sources), dtype=np.int32)
        self.ranks[by_source] = np.arange(len(sources)) - first[sources[by_source]]

    def __len__(self) -> int:
        """Number of places."""
        return len(self.sources)

    def served_before(self, place: int) -> list[int]:
        """How often each source is served at the first `place` places."""
        return np.bincount(self.sources[:place], minlength=len(self.served)).tolist()


def build_cycle(
    asked: Sequence[Fraction | int],
    lags: Sequence[Fraction],
    totals: Sequence[int] | None = None,
) -> Cycle:
    """Serve one cycle, as punctually as the lags allow.

    Args:
        asked: samples that the weights ask of each source in this cycle; their sum is its length.
        lags: samples that each source was asked for and not served before (negative: ahead); their sum is 0.
        totals: how often each source is to be served; None: as it comes.

    Returns:
        A cycle in which each source stays within 1 + slack samples of what it is asked for. The slack is 0 without
        lags, and nearly always with them; otherwise the first of 1/8, 1/4, 1/2, ... that can be kept. A slack of the
        largest lag always can: then no more than the weights' own share is due at any time.
    """
    slack = Fraction(0)
    while (sources := _serve(asked, lags, totals, slack)) is None:
        slack = max(2 * slack, _LEAST_SLACK)
    return Cycle(sources, len(asked))


def exact_weight(weight: Weight) -> Fraction:
    """The decimal that was typed: 0.3 is 3/10."""
    return weight if isinstance(weight, Fraction) else Fraction(repr(float(weight)))


def cycle_counts(weights: Sequence[Weight]) -> tuple[int, ...]:
    """Whole counts in proportion to `weights`: exact, or of a cycle of LONGEST_CYCLE with at least 1 for each source."""
    exact = [exact_weight(weight) for weight in weights]
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


def _serve(
    asked: Sequence[Fraction | int],
    lags: Sequence[Fraction],
    totals: Sequence[int] | None,
    slack: Fraction,
) -> np.ndarray | None:
    """Source of each place, by earliest deadline: (cycle,) uint16; None if one cannot be met."""
    length, num_sources = int(sum(asked)), len(asked)
    released_at, waiting = _windows(asked, lags, totals, slack)
    sources = np.empty(length, dtype=np.uint16)
    heap: list[int] = []
    following = 0
    for place in range(length):
        while following < len(released_at) and released_at[following] <= place:
            heapq.heappush(heap, waiting[following])
            following += 1
        if not heap:  # where another source is owed a part of a sample, and its weight is now 0
            heap.append(waiting[following])
            following += 1
        deadline, source = divmod(heapq.heappop(heap), num_sources)
        if deadline <= place:
            return None
        sources[place] = source
    return sources


def _windows(
    asked: Sequence[Fraction | int],
    lags: Sequence[Fraction],
    totals: Sequence[int] | None,
    slack: Fraction,
) -> tuple[list[int], list[int]]:
    """The samples of a cycle in order of release: (place of release, deadline x num_sources + source) of each."""
    length, num_sources = int(sum(asked)), len(asked)
    releases: list[np.ndarray] = []
    deadlines: list[np.ndarray] = []
    for source, (amount, lag) in enumerate(zip(asked, lags, strict=True)):
        if totals is not None:
            number = totals[source]
        elif amount:  # some more than are released: a place is never left empty
            number = max(ceil(amount + lag), 0) + num_sources
        else:  # for a source that is not asked for any more: the whole samples that it still owes
            number = max(floor(lag), 0)
        if amount == 0:
            releases.append(np.zeros(number, dtype=np.int64))
            deadlines.append(np.full(number, length))
            continue
        # Whole numbers of a common unit, in 64 bits where they fit.
        unit = lcm(amount.denominator, lag.denominator, slack.denominator)
        rate, late, extra = (int(value * unit) for value in (amount, lag, slack))
        fits = (number + abs(lag) + 2) * unit * length < 2**62
        numbers = np.arange(number, dtype=np.int64 if fits else object)
        release = (numbers * unit - late) * length // rate
        due = -((late - extra - (numbers + 1) * unit) * length // rate)
        if totals is not None:
            due = np.minimum(due, length)
        releases.append(np.maximum(release, 0).astype(np.int64))
        deadlines.append(due.astype(np.int64))
    released_at = np.concatenate(releases)
    sources = np.repeat(np.arange(num_sources), [len(each) for each in deadlines])
    waiting = np.concatenate(deadlines) * num_sources + sources
    order = np.argsort(released_at, kind="stable")
    return released_at[order].tolist(), waiting[order].tolist()


@dataclass(frozen=True)
class Standing:
    """One entry per source."""

    asked: tuple[Fraction, ...]
    """Samples that the weights have asked of each source: the integral of the weights."""
    served: tuple[int, ...]
    """Samples that each source has served."""

    @classmethod
    def start(cls, num_sources: int) -> "Standing":
        """The standing at the start of the stream: all zeros."""
        return cls((Fraction(0),) * num_sources, (0,) * num_sources)

    @property
    def lags(self) -> tuple[Fraction, ...]:
        """Samples that each source is behind; negative: ahead. They sum to 0."""
        return tuple(a - b for a, b in zip(self.asked, self.served, strict=True))
