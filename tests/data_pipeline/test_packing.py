"""Segments keep to their windows, and see only themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.blanks import Segment, gmask_segment
from data_pipeline.objective import Objective
from data_pipeline.packing import attention_mask, pack_row
from tests.helpers.tiny import SPECIAL

WINDOW = 16


@st.composite
def windows_of_segments(draw: st.DrawFn) -> list[list[Segment]]:
    """Up to four windows, each with segments that fit it together."""
    windows = []
    for _ in range(draw(st.integers(1, 4))):
        left, segments = WINDOW, []
        while left >= 2 and draw(st.booleans()):
            length = draw(st.integers(1, left - 1))
            context = draw(st.integers(0, length - 1))
            segments.append(gmask_segment(np.arange(100, 100 + length), context, SPECIAL))
            left -= len(segments[-1])
        windows.append(segments)
    return windows


@given(windows_of_segments())
def test_every_segment_is_found_again_inside_its_window(windows: list[list[Segment]]):
    sample = pack_row(windows, WINDOW * len(windows), SPECIAL.pad, Objective.MASK, index=3)
    number, used = 0, 0
    for window, segments in enumerate(windows):
        for segment in segments:
            number += 1
            places = np.flatnonzero(sample.segment_ids == number)
            assert (np.diff(places) == 1).all()
            assert (places // WINDOW == window).all()
            for name in Segment._fields:
                assert getattr(sample, name)[places].tolist() == getattr(segment, name).tolist()
            used += len(segment)
    padding = sample.segment_ids == 0
    assert padding.sum() == WINDOW * len(windows) - used
    assert (sample.tokens[padding] == SPECIAL.pad).all()
    assert not sample.loss_mask[padding].any()
    assert not sample.is_context[padding].any()


@given(windows_of_segments())
def test_attention_follows_the_rule_token_by_token(windows: list[list[Segment]]):
    sample = pack_row(windows, WINDOW * len(windows), SPECIAL.pad, Objective.MASK, index=3)
    seen = attention_mask(sample)
    segment, is_context = sample.segment_ids, sample.is_context
    for query in range(len(segment)):
        for key in range(len(segment)):
            expected = segment[query] == segment[key] != 0 and (
                is_context[key] or (not is_context[query] and key <= query)
            )
            assert seen[query, key] == expected


def test_no_segment_at_all_is_a_row_of_padding():
    sample = pack_row([[], []], 8, SPECIAL.pad, Objective.MASK, index=0)
    assert sample.tokens.tolist() == [SPECIAL.pad] * 8
    assert not attention_mask(sample).any()
