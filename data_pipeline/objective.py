"""How an objective makes rows: from a row's stored tokens to windows of segments.

The records of all objectives are in configs/objectives.py; each names its maker. Everything that is specific to an
objective is in its maker; no other code asks which objective a row has.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from configs.objectives import Objective, imported
from configs.schema import ObjectiveConfig
from data_pipeline.blanks import Segment
from data_pipeline.sentences import SentenceBlanks
from data_pipeline.special_tokens import SpecialTokens


@dataclass(frozen=True)
class Making:
    """What rows are made with, the same for all rows of a data set."""

    config: ObjectiveConfig
    seq_length: int
    """Length of a row, in tokens."""
    special: SpecialTokens
    sentences: SentenceBlanks | None = None
    """What hiding whole sentences needs; None if the objective hides none."""

    @property
    def window_length(self) -> int:
        """Tokens of one of `objective.windows_per_row` windows."""
        return self.seq_length // self.config.windows_per_row


class Windows(NamedTuple):
    """The windows that a maker builds from the tokens of a row."""

    segments: list[list[Segment]]
    """Segments of each window, in order; together they must fit the window."""
    redraws: int = 0
    """Span plans that were drawn again because they did not fit."""
    objectives: tuple[Objective, ...] = ()
    """Objective of each window; empty: all have the row's."""


class RowMaker:
    """Makes the rows of one objective. A pure function of its arguments: a row must be the same whenever it is made."""

    marks_end: bool = True
    """True if each target ends with `<eop>`; otherwise it is cut off or ends with the text."""

    def num_windows(self, config: ObjectiveConfig) -> int:
        """Number of equal windows that a row is laid into."""
        return 1

    def row_tokens(self, seq_length: int, config: ObjectiveConfig) -> int:
        """Stored tokens that a full row reads, at least 1."""
        return seq_length - 1

    def slices(
        self, num_tokens: int, seq_length: int, config: ObjectiveConfig
    ) -> list[tuple[int, int]]:
        """Half-open ranges of a row's stored tokens, one per window; `show` traces a row back with them."""
        return [(0, num_tokens)]

    def check(self, seq_length: int, config: ObjectiveConfig) -> None:
        """Raise a ConfigError if the rows that are asked for cannot be made."""

    def windows(self, rng: np.random.Generator, tokens: np.ndarray, making: Making) -> Windows:
        """Make the windows of a row.

        Args:
            rng: the row's own source of randomness.
            tokens: (n,) int64 stored tokens of the row, 1 to `row_tokens` of them.
            making: what rows are made with.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no windows")


@lru_cache(maxsize=64)
def maker_of(objective: Objective) -> RowMaker:
    """The maker of an objective that has rows of text."""
    assert objective.maker is not None, f"{objective.label} has no rows of text"
    return imported(objective.maker)()
