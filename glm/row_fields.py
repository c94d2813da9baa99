"""The fields of a row: what every pipeline stage must know about a batch besides its hidden states.

One int64 tensor (batch, 6, seq) of fixed shape travels with the hidden states from stage to stage; attention masks,
rotary tables, dropout masks and the rows that have a loss are rebuilt from it. (DeepSpeed sends one float tensor and
any number of integer ones safely; several floats, or bools, can hang at three stages or more.)
"""

import torch
from torch import Tensor

from configs.computation import ROW_FIELDS

SEGMENT = 0
"""Segment number, 1..; 0 is padding."""
CONTEXT = 1
"""1 in the context, 0 in targets and padding."""
POSITION = 2
"""Rotary position."""
BLOCK_POSITION = 3
"""Position inside a target, 1..; 0 in the context."""
TARGET = 4
"""1 where a loss is computed."""
SAMPLE = 5
"""Index of the sample, the same along the row."""
NUM_FIELDS = ROW_FIELDS


def pack_fields(
    segment_ids: Tensor,
    is_context: Tensor,
    position_ids: Tensor,
    block_position_ids: Tensor,
    loss_mask: Tensor,
    sample_index: Tensor,
) -> Tensor:
    """Stack the fields.

    Args:
        segment_ids: (batch, seq).
        is_context: (batch, seq).
        position_ids: (batch, seq).
        block_position_ids: (batch, seq).
        loss_mask: (batch, seq).
        sample_index: (batch,).

    Returns:
        (batch, 6, seq) int64.
    """
    rows = (segment_ids, is_context, position_ids, block_position_ids, loss_mask)
    sample = sample_index[:, None].expand_as(segment_ids)
    return torch.stack([field.long() for field in (*rows, sample)], dim=1)


def may_attend(fields: Tensor) -> Tensor:
    """The attention mask: (batch, seq, seq) bool, True if the query (axis 1) may attend to the key (axis 2).

    Within a segment, every token sees the context, and a target token also the targets up to itself. Padding sees only
    padding. GLM (Du et al. 2022) figure 2.
    """
    segment, context = fields[:, SEGMENT], fields[:, CONTEXT].bool()
    place = torch.arange(fields.shape[-1], device=fields.device)
    same = segment[:, :, None] == segment[:, None, :]
    before = place[:, None] >= place[None, :]
    return same & (context[:, None, :] | (~context[:, :, None] & before))
