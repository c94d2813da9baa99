"""The makers of the objectives that are built in: [MASK] rows, in whose windows sentences may be hidden, and [gMASK] rows."""

import numpy as np

from configs.derive import slice_length
from configs.objectives import Objective
from configs.schema import ObjectiveConfig
from data_pipeline.objective import Making, RowMaker, Windows
from data_pipeline.windows import (
    check_objective,
    gmask_windows,
    mask_windows_of_a_kind,
    row_slices,
)


class MaskRows(RowMaker):
    """Several short blanks, or whole sentences, in each of several windows."""

    def num_windows(self, config: ObjectiveConfig) -> int:
        """Number of windows: as configured."""
        return config.windows_per_row

    def row_tokens(self, seq_length: int, config: ObjectiveConfig) -> int:
        """Stored tokens that a full row reads: as many as leave room for the blanks of each window."""
        return config.windows_per_row * slice_length(seq_length // config.windows_per_row)

    def slices(
        self, num_tokens: int, seq_length: int, config: ObjectiveConfig
    ) -> list[tuple[int, int]]:
        """One slice per window, in as few windows as hold the tokens."""
        return row_slices(num_tokens, seq_length // config.windows_per_row, config)

    def check(self, seq_length: int, config: ObjectiveConfig) -> None:
        """Raise a ConfigError if the spans that are asked for hardly ever fit."""
        check_objective(seq_length, config)

    def windows(self, rng: np.random.Generator, tokens: np.ndarray, making: Making) -> Windows:
        """Hide spans or sentences."""
        segments, redraws, hides_sentences = mask_windows_of_a_kind(
            rng, tokens, making.window_length, making.config, making.special, making.sentences
        )
        if not any(hides_sentences):
            return Windows(segments, redraws)
        kinds = (Objective.SMASK if hides else Objective.MASK for hides in hides_sentences)
        return Windows(segments, redraws, tuple(kinds))


class LongBlankRows(RowMaker):
    """One long blank at the end of the row's text."""

    marks_end = False

    def windows(self, rng: np.random.Generator, tokens: np.ndarray, making: Making) -> Windows:
        """Hide the end; `[gMASK]` itself takes the one place that the text leaves."""
        return Windows(gmask_windows(rng, tokens, making.config, making.special))
