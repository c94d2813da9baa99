"""An objective of a package of its own: repeat a text that is in sight. One file, and one line in entry_points.txt."""

import numpy as np

from configs.objectives import Objective
from configs.schema import ObjectiveConfig
from data_pipeline.blanks import mip_segment
from data_pipeline.objective import Making, RowMaker, Windows

COPY = Objective("copy", "COPY", "copied texts", maker="copy_objective:CopyRows")


class CopyRows(RowMaker):
    """A text behind which the same text is asked for."""

    def row_tokens(self, seq_length: int, config: ObjectiveConfig) -> int:
        """Half of what `[MASK]` and `<sop>` leave."""
        return (seq_length - 2) // 2

    def windows(self, rng: np.random.Generator, tokens: np.ndarray, making: Making) -> Windows:
        """One window of one segment."""
        return Windows([[mip_segment(tokens, tokens, making.special, is_consecutive=True)]])
