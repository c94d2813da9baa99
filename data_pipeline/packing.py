"""Segments into rows: a sample is one row of seq_length tokens, 1 window or 4, padded at the end of each window.

Segments never see each other, and positions restart in each. GLM-130B (Zeng et al. 2022), section 2.3.
"""

# pyright: reportIncompatibleMethodOverride=false
# (a sample's index, not tuple.index)
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from configs.objectives import Objective
from data_pipeline.blanks import Segment


class Sample(NamedTuple):
    """One row; arrays are (seq_length,)."""

    tokens: np.ndarray
    """int64 input ids."""
    targets: np.ndarray
    """int64 ids to predict; `<pad>` where there is no loss."""
    loss_mask: np.ndarray
    """bool, True where the loss counts."""
    position_ids: np.ndarray
    """int64, restart in every segment."""
    block_position_ids: np.ndarray
    """int64, 0 in the context, 1.. in targets."""
    segment_ids: np.ndarray
    """int64, 1.. in order; 0 is padding."""
    is_context: np.ndarray
    """bool, True in the context of a segment."""
    objectives: np.ndarray
    """int64, number of the window's objective in `configs.objectives.objectives_of`."""
    objective: Objective
    """Objective of the row."""
    index: int
    """Position in the data stream."""
    redraws: int
    """Span plans that were drawn again because they did not fit."""


def pack_row(
    windows: list[list[Segment]],
    seq_length: int,
    pad_token_id: int,
    objective: Objective,
    index: int,
    redraws: int = 0,
    numbers: Sequence[int] = (),
) -> Sample:
    """Lay segments into equal windows of one row.

    Args:
        windows: the segments of each window, in order; together they must fit it.
        seq_length: length of the row; the number of windows divides it.
        pad_token_id: id that fills the rest of each window.
        objective: objective of the row.
        index: index of the row in the data stream.
        redraws: rejected span plans.
        numbers: number of each window's objective; default: 0, the first.
    """
    window_length = seq_length // len(windows)
    # One array for all integers and one for all flags: this is done for every row of a run.
    integers = np.zeros((6, seq_length), dtype=np.int64)
    tokens, targets, position_ids, block_position_ids, segment_ids, objectives = integers
    if pad_token_id:
        integers[:2] = pad_token_id
    loss_mask, is_context = np.zeros((2, seq_length), dtype=bool)
    for number, kind in enumerate(numbers):
        if kind:
            objectives[number * window_length : (number + 1) * window_length] = kind
    segment_number = 0
    for number, segments in enumerate(windows):
        start = number * window_length
        for segment in segments:
            stop = start + len(segment)
            assert stop <= (number + 1) * window_length, "a segment does not fit its window"
            tokens[start:stop] = segment.tokens
            targets[start:stop] = segment.targets
            loss_mask[start:stop] = segment.loss_mask
            position_ids[start:stop] = segment.position_ids
            block_position_ids[start:stop] = segment.block_position_ids
            is_context[start:stop] = segment.is_context
            segment_number += 1
            segment_ids[start:stop] = segment_number
            start = stop
    return Sample(
        tokens,
        targets,
        loss_mask,
        position_ids,
        block_position_ids,
        segment_ids,
        is_context,
        objectives,
        objective,
        index,
        redraws,
    )


def attention_mask(sample: Sample) -> np.ndarray:
    """The attention mask of a row: the rule that the model applies, for tests and for readers.

    A token sees the whole context of its segment; a target token also sees the targets up to itself. Padding neither
    sees nor is seen.

    Returns:
        (seq_length, seq_length) bool, True where the row's token may attend to the column's.
    """
    is_same_segment = sample.segment_ids[:, None] == sample.segment_ids[None, :]
    is_before = np.tri(len(sample.tokens), dtype=bool)
    is_visible = sample.is_context[None, :] | (~sample.is_context[:, None] & is_before)
    return is_same_segment & is_visible & (sample.segment_ids[:, None] > 0)
