"""Several samples stacked: what one forward pass reads."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.packing import Sample


class Batch(NamedTuple):
    """Arrays of `batch` rows; the fields of a Sample with one more axis in front."""

    tokens: np.ndarray
    """(batch, seq) int64."""
    targets: np.ndarray
    """(batch, seq) int64."""
    loss_mask: np.ndarray
    """(batch, seq) bool."""
    position_ids: np.ndarray
    """(batch, seq) int64."""
    block_position_ids: np.ndarray
    """(batch, seq) int64."""
    segment_ids: np.ndarray
    """(batch, seq) int64, 0 is padding."""
    is_context: np.ndarray
    """(batch, seq) bool."""
    objectives: np.ndarray
    """(batch, seq) int64, numbers in `configs.objectives.objectives_of`."""
    sample_index: np.ndarray
    """(batch,) int64."""

    def checksum(self) -> int:
        """CRC-32 of every array: ranks that should hold the same batch compare it."""
        value = 0
        for array in self:
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of equal length."""
    stacked = {
        name: np.stack([getattr(sample, name) for sample in samples])
        for name in Batch._fields
        if name != "sample_index"
    }
    return Batch(
        **stacked,
        sample_index=np.array([sample.index for sample in samples]),
    )
