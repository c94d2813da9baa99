"""How a row's stored tokens are spread over its windows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.rng import rng_for
from data_pipeline.windows import (
    gmask_windows,
    longest_slice,
    mask_windows,
    original_row_length,
    split_evenly,
)
from tests.helpers.tiny import SPECIAL

ORIGINAL = ObjectiveConfig(slice_rule=SliceRule.glm_130b, short_segment_probability=0.0)


def test_gmask_lengths_reach_both_ends_of_their_range():
    def lengths(num_tokens: int) -> set[int]:
        tokens = np.arange(100, 100 + num_tokens)
        drawn = [gmask_windows(rng_for(s), tokens, ObjectiveConfig(), SPECIAL) for s in range(300)]
        return {int(windows[0][0].loss_mask.sum()) for windows in drawn}

    assert lengths(10) == {2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert lengths(1) == {1}


def test_original_rule_reads_2000_tokens_in_slices_of_500():
    assert original_row_length(2048) == 2000
    assert longest_slice(512, ORIGINAL) == 500
    assert longest_slice(512, ObjectiveConfig()) == 456


def test_original_segments_are_cut_to_their_windows():
    windows, _ = mask_windows(rng_for(1), np.arange(100, 2100), 512, ORIGINAL, SPECIAL)
    assert [len(segments) for segments in windows] == [1, 1, 1, 1]
    # 500 + 2 x about 23 tokens: every one of these slices is too long.
    assert [len(segment) for (segment,) in windows] == [512, 512, 512, 512]


@given(st.integers(1, 1824), st.integers(0, 2**32))
def test_short_row_fills_as_few_windows_as_it_can(num_tokens: int, seed: int):
    tokens = np.arange(100, 100 + num_tokens)
    windows, _ = mask_windows(rng_for(seed), tokens, 512, ObjectiveConfig(), SPECIAL)
    assert len(windows) == 4
    used = [bool(segments) for segments in windows]
    assert used == sorted(used, reverse=True)
    assert sum(used) == -(-num_tokens // 456)
    assert all(sum(map(len, segments)) <= 512 for segments in windows)


@given(st.integers(0, 500), st.integers(1, 20))
def test_even_split_covers_everything_with_sizes_that_differ_by_one(length: int, parts: int):
    pieces = split_evenly(length, parts)
    assert [index for start, stop in pieces for index in range(start, stop)] == list(range(length))
    sizes = [stop - start for start, stop in pieces]
    assert max(sizes) - min(sizes) <= 1
