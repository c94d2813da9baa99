"""Which source a sample comes from, with weights that change along the stream: arithmetic and short cycles.

The weights asked for at a drawn index n are those of the last stage that began at or before n; with a ramp they move
linearly over `ramp_samples` drawn samples from each stage's start, from the weights that held there. Their integral
from 0 to n is what each source is asked for in the first n samples. The stream gives it

- within one sample, at any n, while the weights stand still, whatever stages lie before. What a source is ahead or
  behind at a change is carried into the next stage's cycles.
- within two samples, and nearly always one and a fraction, during a ramp (data_pipeline/mixing/ramp.py), and after a jump at
  which sources that happen to be behind are asked for faster than one sample at a time, until they have caught up. No
  order that does not know the future can do better there, and this one must not know it: a stage that is added ahead of
  a run leaves every earlier index as it was.

Any index is found at once, from a cycle of at most 65,536 places that is built when its stage is first asked for.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from data_pipeline.mixing.cycle import (
    Cycle,
    Standing,
    Weight,
    build_cycle,
    cycle_counts,
    exact_weight,
)
from data_pipeline.mixing.ramp import Ramp


@dataclass(frozen=True)
class Stage:
    """Weights from a drawn index on."""

    first_sample: int
    weights: tuple[Weight, ...]
    """One per source, at least 0, not all 0; in any unit. A float stands for the decimal that was typed."""


class Stretch(Protocol):
    """A stretch of the stream, counted from its own start."""

    def locate(self, offset: int) -> tuple[int, int]:
        """Map an offset from the stretch's start to (source, index within the source)."""
        ...

    def standing_at(self, offset: int) -> Standing:
        """What was asked of each source, and served, before an offset."""
        ...


class Mixture:
    """Interleaving of sources.

    Args:
        stages: in order, the first from sample 0 on; all of as many weights.
        ramp_samples: over how many samples the weights move from a stage's start on; 0: they jump.
    """

    def __init__(self, stages: Sequence[Stage], ramp_samples: int = 0) -> None:
        assert stages, "a mixture needs a stage"
        assert stages[0].first_sample == 0, "the first stage begins at sample 0"
        self.ramp_samples = ramp_samples
        kept = [(stage.first_sample, _shares(stage.weights)) for stage in stages]
        self.stages = [
            stage
            for number, stage in enumerate(kept)
            if not number or ramp_samples or stage[1] != kept[number - 1][1]
        ]
        """(first sample, share of each source) of each stage, without stages that change nothing."""
        self._num_sources = len(stages[0].weights)
        self._starts, self._plans = _plan(self.stages, ramp_samples)
        self._pieces: dict[int, Stretch] = {}

    @classmethod
    def constant(cls, weights: Sequence[Weight]) -> "Mixture":
        """A mixture whose weights never change."""
        return cls([Stage(0, tuple(weights))])

    def locate(self, index: int) -> tuple[int, int]:
        """Map a drawn index >= 0 to (source, index within the source)."""
        number = bisect_right(self._starts, index) - 1
        return self._piece(number).locate(index - self._starts[number])

    def shares_at(self, index: int) -> tuple[float, ...]:
        """Weights that are asked for at a drawn index, as shares."""
        number = bisect_right(self._starts, index) - 1
        first, last, length = self._plans[number]
        part = Fraction(index - self._starts[number], length) if length else 0
        return tuple(float(a + (b - a) * part) for a, b in zip(first, last, strict=True))

    def describe(self) -> dict[str, Any]:
        """Plain JSON; shares as exact fractions."""
        return {
            "ramp_samples": self.ramp_samples,
            "stages": [[first, [str(share) for share in shares]] for first, shares in self.stages],
        }

    def _piece(self, number: int) -> Stretch:
        for built in range(len(self._pieces), number + 1):
            standing = Standing.start(self._num_sources)
            if built:
                length = self._starts[built] - self._starts[built - 1]
                standing = self._pieces[built - 1].standing_at(length)
            first, last, length = self._plans[built]
            # Two threads that get here at the same time set the same value.
            self._pieces[built] = (
                Ramp(first, last, length, standing) if length else _Steady(first, standing)
            )
        return self._pieces[number]


class _Steady:
    """Constant weights: cycles, the same ones again and again.

    A cycle leaves the fractions of a sample that each source is asked for as they were, and who is ahead nearly always,
    too. Until it does, another cycle is built.
    """

    def __init__(self, shares: Sequence[Fraction], standing: Standing) -> None:
        self._shares = shares
        self._counts = cycle_counts(shares)
        self._length = sum(self._counts)
        self._start = standing
        self._cycles: list[Cycle] = []
        self._served = [list(standing.served)]
        lags = [standing.lags]
        while True:
            cycle = build_cycle(self._counts, lags[-1])
            self._cycles.append(cycle)
            surplus = [a - b for a, b in zip(cycle.served, self._counts, strict=True)]
            lag = tuple(a - b for a, b in zip(lags[-1], surplus, strict=True))
            if lag in lags:
                self._repeat = lags.index(lag)
                return
            lags.append(lag)
            before = self._served[-1]
            self._served.append([a + b for a, b in zip(before, cycle.served, strict=True)])

    def locate(self, offset: int) -> tuple[int, int]:
        number, place = divmod(offset, self._length)
        which = self._which(number)
        cycle = self._cycles[which]
        source = int(cycle.sources[place])
        before = self._served[which][source] + (number - which) * self._counts[source]
        return source, before + int(cycle.ranks[place])

    def standing_at(self, offset: int) -> Standing:
        number, place = divmod(offset, self._length)
        which = self._which(number)
        served = [
            before + (number - which) * count + within
            for before, count, within in zip(
                self._served[which],
                self._counts,
                self._cycles[which].served_before(place),
                strict=True,
            )
        ]
        asked = [
            before + share * offset
            for before, share in zip(self._start.asked, self._shares, strict=True)
        ]
        return Standing(tuple(asked), tuple(served))

    def _which(self, number: int) -> int:
        """Place of cycle `number` in the list of built cycles."""
        built = len(self._cycles)
        if number < built:
            return number
        return self._repeat + (number - self._repeat) % (built - self._repeat)


def with_share(stages: Sequence[Stage], shares: Sequence[tuple[int, Weight]]) -> list[Stage]:
    """Add one source, at the end, that takes a share of the whole, and leave the others the rest in their proportion.

    Args:
        stages: of the other sources.
        shares: (first sample, share between 0 and 1), in order, the first from sample 0 on.

    Returns:
        A stage for each place where either changes.
    """
    combined: list[Stage] = []
    for start in sorted({stage.first_sample for stage in stages} | {first for first, _ in shares}):
        stage = [stage for stage in stages if stage.first_sample <= start][-1]
        share = exact_weight([share for first, share in shares if first <= start][-1])
        rest = [(1 - share) * part for part in _shares(stage.weights)]
        combined.append(Stage(start, (*rest, share)))
    return combined


def stages_of(rows: Sequence[Sequence[float]], num_sources: int) -> list[Stage]:
    """Read the rows of `data.stages`: [from_sample, weight, ...] with a 0 for each weight that is not given."""
    stages: list[Stage] = []
    for first, *weights in rows:
        missing = num_sources - len(weights)
        stages.append(Stage(int(first), (*weights, *(0.0,) * missing)))
    return stages


_Plan = tuple[tuple[Fraction, ...], tuple[Fraction, ...], int]


def _plan(
    stages: list[tuple[int, tuple[Fraction, ...]]], ramp_samples: int
) -> tuple[list[int], list[_Plan]]:
    """Cut the stream where its weights begin or cease to move: starts, and (first shares, last shares, ramp length)."""
    starts: list[int] = [0]
    plans: list[_Plan] = [(stages[0][1], stages[0][1], 0)]
    for number, (start, shares) in enumerate(stages[1:], 1):
        held = plans[-1][1]
        first, last, length = plans[-1]
        if length:  # the ramp before is not over
            part = Fraction(start - starts[-1], length)
            held = tuple(a + (b - a) * part for a, b in zip(first, last, strict=True))
        if ramp_samples:
            starts.append(start)
            plans.append((held, shares, ramp_samples))
            is_last = number + 1 == len(stages)
            if not is_last and stages[number + 1][0] <= start + ramp_samples:
                continue
        starts.append(start + ramp_samples)
        plans.append((shares, shares, 0))
    return starts, plans


def _shares(weights: Sequence[Weight]) -> tuple[Fraction, ...]:
    """Weights as shares of one, as exact as a cycle keeps them."""
    counts = cycle_counts(weights)
    return tuple(Fraction(count, sum(counts)) for count in counts)
