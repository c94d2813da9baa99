"""What each source of a mixture was asked for, and has served, before a place of the stream."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Standing:
    """One entry per source."""

    asked: tuple[Fraction, ...]
    """Integral of the weights, in samples."""
    served: tuple[int, ...]
    """Samples."""

    @classmethod
    def start(cls, num_sources: int) -> "Standing":
        """Nothing asked, nothing served."""
        return cls((Fraction(0),) * num_sources, (0,) * num_sources)

    @property
    def lags(self) -> tuple[Fraction, ...]:
        """Samples that each source is behind; negative: ahead. They sum to 0."""
        return tuple(a - b for a, b in zip(self.asked, self.served, strict=True))
