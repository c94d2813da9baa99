"""The samples of a step are the same for every number of ranks, and skipped ranges shift nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import ObjectiveConfig
from data_pipeline.batch import collate
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.sampler import (
    check_skip_samples,
    drawn_index,
    micro_batch_indices,
    samples_drawn,
    trained_position,
)
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL


def test_formula_by_hand():
    # Micro-batch 1 of the step from sample 100, replica 2 of 3, 4 rows each: 100 + (1 * 3 + 2) * 4 = 120.
    assert list(micro_batch_indices(100, 1, 3, 2, 4)) == [120, 121, 122, 123]


@pytest.mark.parametrize("dp", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_every_layout_trains_the_same_samples(dp: int, micro_batch_size: int):
    dataset = GLMDataset([Source("text", CountingStream(10**5))], SPECIAL, ObjectiveConfig(), 64, 1)
    first, batch_size, skips = 48, 96, [[50, 60], [70, 71]]
    by_position: dict[int, np.ndarray] = {}
    for rank in range(dp):
        for number in range(batch_size // (dp * micro_batch_size)):
            indices = micro_batch_indices(first, number, dp, rank, micro_batch_size)
            batch = collate([dataset[drawn_index(index, skips)] for index in indices])
            assert not by_position.keys() & set(indices)
            by_position.update(zip(indices, batch.tokens, strict=True))
    assert sorted(by_position) == list(range(first, first + batch_size))
    expected = [i for i in range(48, 48 + 96 + 11) if not 50 <= i < 60 and i != 70]
    for position, index in zip(range(first, first + batch_size), expected, strict=True):
        assert (by_position[position] == dataset[index].tokens).all()


def test_skipped_ranges_by_hand():
    skips = [[2, 4], [5, 6]]
    assert [drawn_index(position, skips) for position in range(5)] == [0, 1, 4, 6, 7]
    # After two samples the range [2, 4) lies ahead; after three it was passed.
    assert [samples_drawn(seen, skips) for seen in range(6)] == [0, 1, 2, 5, 7, 8]


def test_touching_ranges_and_a_range_at_the_start_are_passed_over_together():
    assert drawn_index(0, [[0, 3], [3, 5]]) == 5
    assert samples_drawn(0, [[0, 3]]) == 0
    assert samples_drawn(1, [[0, 3]]) == 4


@st.composite
def skip_ranges(draw: st.DrawFn) -> list[list[int]]:
    edges = sorted(draw(st.sets(st.integers(0, 200), max_size=10)))
    return [list(pair) for pair in zip(edges[::2], edges[1::2], strict=False)]


@given(skip_ranges())
def test_drawn_indices_are_all_those_outside_the_ranges(skips: list[list[int]]):
    skipped = {index for start, stop in skips for index in range(start, stop)}
    expected = [index for index in range(400) if index not in skipped][:150]
    assert [drawn_index(position, skips) for position in range(150)] == expected
    for seen in range(1, 150):
        assert samples_drawn(seen, skips) == expected[seen - 1] + 1


@given(skip_ranges(), st.integers(0, 100), st.integers(1, 50))
def test_range_added_ahead_changes_nothing_that_was_drawn(
    skips: list[list[int]], seen: int, length: int
):
    drawn = samples_drawn(seen, skips)
    ahead = [pair for pair in skips if pair[0] < drawn] + [[drawn, drawn + length]]
    check_skip_samples(ahead, skips, drawn)
    for position in range(seen):
        assert drawn_index(position, ahead) == drawn_index(position, skips)
    assert samples_drawn(seen, ahead) == drawn


def test_range_that_begins_before_the_position_is_refused():
    with pytest.raises(
        DataError, match=r"\[90, 120\]\) begins before the current position .* \(100\)"
    ):
        check_skip_samples([[90, 120]], [], 100)
    check_skip_samples([[100, 120]], [], 100)


def test_range_that_was_skipped_may_not_be_forgotten_or_changed():
    with pytest.raises(DataError, match=r"lacks the range \[10, 20\]"):
        check_skip_samples([], [[10, 20]], 100)
    with pytest.raises(DataError, match=r"\[10, 30\]\) begins before"):
        check_skip_samples([[10, 30]], [[10, 20]], 100)
    check_skip_samples([[10, 20]], [[10, 20]], 100)
    check_skip_samples([], [[100, 120]], 100)


@given(skip_ranges(), st.integers(0, 300))
def test_trained_position_undoes_drawn_index(skips: list[list[int]], position: int):
    drawn = drawn_index(position, skips)
    assert trained_position(drawn, skips) == position
    for start, stop in skips:
        assert all(trained_position(index, skips) is None for index in range(start, stop))
