"""The position of a run: a value that the loop replaces after each step and that checkpoints store."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Position after some number of steps.

    A step that was skipped for overflow or NaN has consumed its samples like any other: it counts as trained.
    """

    step: int = 0
    samples_seen: int = 0
    """Trained samples: drives every schedule."""
    tokens_seen: int = 0
    samples_drawn: int = 0
    """Position in the data stream: trained samples and the skipped ranges before it."""
    skipped_steps: int = 0
    """Steps whose update was skipped for overflow or NaN."""

    def after(
        self, num_samples: int, seq_length: int, samples_drawn: int, was_skipped: bool
    ) -> "Progress":
        """The position one step later."""
        return Progress(
            self.step + 1,
            self.samples_seen + num_samples,
            self.tokens_seen + num_samples * seq_length,
            samples_drawn,
            self.skipped_steps + int(was_skipped),
        )

    def to_dict(self) -> dict[str, int]:
        """Convert to plain numbers, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Progress":
        """Create a position from the numbers that `to_dict` returned."""
        return cls(**{name: int(value) for name, value in stored.items()})
