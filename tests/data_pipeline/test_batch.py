"""A batch stacks samples in order, and its checksum sees every array."""

import numpy as np
import pytest

from configs.schema import ObjectiveConfig
from data_pipeline.batch import Batch, collate
from data_pipeline.dataset import GLMDataset, Source
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL

DATASET = GLMDataset([Source("text", CountingStream(10**5))], SPECIAL, ObjectiveConfig(), 64, 1)


def test_rows_are_stacked_in_order():
    samples = [DATASET[index] for index in (5, 3, 9)]
    batch = collate(samples)
    assert batch.tokens.shape == (3, 64)
    assert batch.sample_index.tolist() == [5, 3, 9]
    for row, sample in enumerate(samples):
        for name in set(Batch._fields) - {"sample_index"}:
            assert (getattr(batch, name)[row] == getattr(sample, name)).all()


@pytest.mark.parametrize("name", Batch._fields)
def test_checksum_changes_when_one_value_of_any_array_does(name: str):
    batch = collate([DATASET[index] for index in range(3)])
    array = getattr(batch, name).copy()
    array.flat[-1] = not array.flat[-1] if array.dtype == np.bool_ else array.flat[-1] + 1
    assert batch._replace(**{name: array}).checksum() != batch.checksum()


def test_checksum_changes_with_the_order_of_rows():
    assert (
        collate([DATASET[0], DATASET[1]]).checksum() != collate([DATASET[1], DATASET[0]]).checksum()
    )


def test_checksum_is_the_same_for_equal_batches():
    assert collate([DATASET[0]]).checksum() == collate([DATASET[0]]).checksum()
