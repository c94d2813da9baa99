"""Weights that move linearly from one value to another, in short stretches.

The integral of the weights along a ramp is quadratic, which no cycle repeats. So the ramp is cut into stretches of about
the square root of its length, on which the weights hardly move: the line's integral is within an eighth of a sample of
the straight line between a stretch's ends. At each end every source has served what it was asked for, rounded down or up;
in between, a cycle of the stretch's own serves them in time. Stretches are built when they are asked for, in any order.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from data_pipeline.mixing.cycle import Cycle, Standing, build_cycle

_CYCLES_KEPT = 16


class Ramp:
    """The stretch over which weights move.

    Args:
        first: shares at its start.
        last: shares at its end.
        length: in samples.
        standing: what was asked of each source and served before its start.
    """

    def __init__(
        self,
        first: Sequence[Fraction],
        last: Sequence[Fraction],
        length: int,
        standing: Standing,
    ) -> None:
        self._first = first
        self._last = last
        self._length = length
        self._start = standing
        self._stretch_length = max(isqrt(length), 1)
        self._served = {0: standing.served}
        self._cycles: dict[int, Cycle] = {}

    def locate(self, offset: int) -> tuple[int, int]:
        """Map an offset from the ramp's start to (source, index within the source)."""
        number, place = divmod(offset, self._stretch_length)
        cycle = self._cycle(number)
        source = int(cycle.sources[place])
        return source, self._served[number][source] + int(cycle.ranks[place])

    def standing_at(self, offset: int) -> Standing:
        """What was asked for and served before an offset."""
        number, place = divmod(offset, self._stretch_length)
        served = self._served_before(number)
        if place:
            within = self._cycle(number).served_before(place)
            served = tuple(a + b for a, b in zip(served, within, strict=True))
        return Standing(tuple(self._asked(offset)), served)

    def _cycle(self, number: int) -> Cycle:
        """The order of a stretch; the last ones asked for are kept: one is read for all its samples, by several threads."""
        cycle = self._cycles.get(number)
        if cycle is None:
            after, before = self._served_before(number + 1), self._served_before(number)
            start = number * self._stretch_length
            asked = self._asked(start), self._asked(min(start + self._stretch_length, self._length))
            cycle = build_cycle(
                [b - a for a, b in zip(*asked, strict=True)],
                [a - b for a, b in zip(asked[0], before, strict=True)],
                [b - a for a, b in zip(before, after, strict=True)],
            )
            if len(self._cycles) >= _CYCLES_KEPT:
                self._cycles.clear()
            self._cycles[number] = cycle
        return cycle

    def _served_before(self, number: int) -> tuple[int, ...]:
        """Samples of each source before a stretch: a few microseconds for each stretch before it, once."""
        for built in range(len(self._served), number + 1):
            start, end = (
                (built - 1) * self._stretch_length,
                min(built * self._stretch_length, self._length),
            )
            # Two threads that get here at the same time set the same value.
            self._served[built] = _rounded(
                self._served[built - 1], self._asked(end), self._shares(end), end - start
            )
        return self._served[number]

    def _asked(self, offset: int) -> list[Fraction]:
        # The integral of a + (b - a) x / length.
        return [
            before + offset * a + (b - a) * offset * offset / (2 * self._length)
            for before, a, b in zip(self._start.asked, self._first, self._last, strict=True)
        ]

    def _shares(self, offset: int) -> list[Fraction]:
        part = Fraction(offset, self._length)
        return [a + (b - a) * part for a, b in zip(self._first, self._last, strict=True)]


def _rounded(
    served: Sequence[int], asked: Sequence[Fraction], shares: Sequence[Fraction], samples: int
) -> tuple[int, ...]:
    """Add `samples` to what was served so that each source has what it was asked for, rounded down or up.

    Rounded up are those that have served the next sample already, then those whose next sample would be due first.
    """
    result = [max(before, int(wanted)) for before, wanted in zip(served, asked, strict=True)]
    left = sum(served) + samples - sum(result)
    while left:
        step = 1 if left > 0 else -1
        source = min(
            (
                source
                for source in range(len(result))
                if step > 0 and shares[source] > 0 or step < 0 and result[source] > served[source]
            ),
            key=lambda source: (
                step > 0 and result[source] >= asked[source],
                step * _samples_until_due(result[source], asked[source], shares[source]),
            ),
        )
        result[source] += step
        left -= step
    return tuple(result)


def _samples_until_due(served: int, asked: Fraction, share: Fraction) -> float:
    """In how many samples a source will be one behind, if its share stays."""
    return float((served + 1 - asked) / share) if share else float("inf")
