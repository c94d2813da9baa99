"""Segments made one at a time."""

import numpy as np

from data_pipeline.blanks import Segment, mask_segments
from data_pipeline.special_tokens import SpecialTokens


def mask_segment(
    tokens: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    order: np.ndarray,
    special: SpecialTokens,
) -> Segment:
    """Hide spans of one text."""
    (segment,) = mask_segments(tokens, [0, len(tokens)], starts, ends, order, special)
    return segment
