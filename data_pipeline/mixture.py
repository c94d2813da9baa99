"""Which source a sample comes from: a repeating cycle, so that any index is found at once.

Inside a cycle the sources are interleaved so that every prefix holds each source within one sample of its weight
(each step takes the source that is furthest behind).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_LONGEST_CYCLE = 4096


@dataclass(frozen=True)
class Mixture:
    """Interleaving of sources with constant weights."""

    counts: tuple[int, ...]
    """How often each source appears in a cycle."""

    @classmethod
    def of(cls, weights: Sequence[float]) -> "Mixture":
        """Approximate weights by whole counts in a cycle of at most 4096 samples.

        Args:
            weights: one per source, at least 0, not all 0.
        """
        shares = np.asarray(weights, dtype=np.float64) / sum(weights)
        for length in range(1, _LONGEST_CYCLE):
            counts = shares * length
            if np.allclose(counts, counts.round(), atol=1e-9):
                return cls(tuple(int(count) for count in counts.round()))
        counts = np.floor(shares * _LONGEST_CYCLE).astype(int)
        behind = np.argsort(counts - shares * _LONGEST_CYCLE, kind="stable")
        counts[behind[: _LONGEST_CYCLE - counts.sum()]] += 1
        return cls(tuple(int(count) for count in counts))

    def locate(self, index: int) -> tuple[int, int]:
        """Map a sample index to (source, index within the source)."""
        cycle, place = divmod(index, len(self._sources))
        source = int(self._sources[place])
        return source, cycle * self.counts[source] + int(self._ranks[place])

    @cached_property
    def _sources(self) -> np.ndarray:
        """Source of each place in the cycle: (cycle,)."""
        counts = np.asarray(self.counts)
        length = int(counts.sum())
        taken = np.zeros_like(counts)
        sources = np.empty(length, dtype=np.int64)
        for place in range(length):
            source = int(np.argmax(counts * (place + 1) / length - taken))
            sources[place] = source
            taken[source] += 1
        return sources

    @cached_property
    def _ranks(self) -> np.ndarray:
        """How many earlier places of the cycle have the same source: (cycle,)."""
        ranks = np.empty_like(self._sources)
        for source in range(len(self.counts)):
            places = self._sources == source
            ranks[places] = np.arange(places.sum())
        return ranks
