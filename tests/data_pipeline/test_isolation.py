"""Documents kept apart: hand-written golden tables, and nothing else changes.

Token ids: 1 [MASK], 2 [gMASK], 3 <sop>, 4 <eop>, 5 <eos>, 0 <pad>. The slice holds the end of a document (11, 12),
a whole one (21 to 24) and the beginning of a third (31, 32, 33).
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Documents, ObjectiveConfig, SliceRule
from data_pipeline.blanks import Segment, mask_segments
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.isolation import (
    document_borders,
    isolate,
    isolated_gmask_segments,
)
from data_pipeline.objective import Objective
from data_pipeline.packing import attention_mask, pack_row
from tests.helpers.rows import assert_row
from tests.helpers.streams import DocumentStream, read_isolated
from tests.helpers.tiny import SPECIAL

M, G, SOP, EOP, EOS = 1, 2, 3, 4, 5
SLICE = np.array([11, 12, EOS, 21, 22, 23, 24, EOS, 31, 32, 33])

# Spans 12-<eos>-21 (cut to 12-<eos>), 23, and none in the third document; drawn order: the second span first.
MASK_ROW = {
    #         document 1        | document 2                   | document 3 | padding
    "tokens": [11, M, SOP, 12, EOS, 21, 22, M, 24, EOS, SOP, 23, 31, 32, 33, 0],
    "targets": [0, 0, 12, EOS, EOP, 0, 0, 0, 0, 0, 23, EOP, 0, 0, 0, 0],
    "loss_mask": [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
    "position_ids": [0, 1, 1, 1, 1, 0, 1, 2, 3, 4, 2, 2, 0, 1, 2, 0],
    "block_position_ids": [0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0],
    "segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 0],
    "is_context": [1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0],
}
MASK_ATTENTION = """
    xx..............
    xx..............
    xxx.............
    xxxx............
    xxxxx...........
    .....xxxxx......
    .....xxxxx......
    .....xxxxx......
    .....xxxxx......
    .....xxxxx......
    .....xxxxxx.....
    .....xxxxxxx....
    ............xxx.
    ............xxx.
    ............xxx.
    ................
"""

# Five tokens stay visible: document 1 whole, and 21, 22 of document 2.
GMASK_ROW = {
    #         document 1     | document 2                | document 3  | padding
    "tokens": [11, 12, EOS, 21, 22, G, SOP, 23, 24, SOP, 31, 32, 0],
    "targets": [0, 0, 0, 0, 0, 0, 23, 24, EOS, 31, 32, 33, 0],
    "loss_mask": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0],
    "position_ids": [0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1, 2, 0],
    "block_position_ids": [0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 2, 3, 0],
    "segment_ids": [1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 0],
    "is_context": [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
}
GMASK_ATTENTION = """
    xxx..........
    xxx..........
    xxx..........
    ...xxx.......
    ...xxx.......
    ...xxx.......
    ...xxxx......
    ...xxxxx.....
    ...xxxxxx....
    .........x...
    .........xx..
    .........xxx.
    .............
"""


def isolated(starts: np.ndarray, ends: np.ndarray, order: np.ndarray) -> list[Segment]:
    borders, ends, order = isolate(SLICE, [0, len(SLICE)], starts, ends, order, EOS)
    return mask_segments(SLICE, borders, starts, ends, order, SPECIAL)


def test_isolated_mask_row_equals_the_hand_written_table():
    starts, ends, order = np.array([1, 5]), np.array([4, 6]), np.array([1, 0])
    segments = isolated(starts, ends, order)
    assert_row(pack_row([segments], 16, 0, Objective.MASK, 0), MASK_ROW, MASK_ATTENTION)


def test_isolated_gmask_row_equals_the_hand_written_table():
    segments = isolated_gmask_segments(SLICE, 5, SPECIAL)
    assert_row(pack_row([segments], 13, 0, Objective.GMASK, 0), GMASK_ROW, GMASK_ATTENTION)


def test_spans_of_one_document_keep_the_order_that_was_drawn():
    starts, ends, order = np.array([0, 3, 5, 8]), np.array([1, 4, 6, 9]), np.array([3, 2, 0, 1])
    segments = isolated(starts, ends, order)
    predicted = [segment.targets[segment.loss_mask].tolist() for segment in segments]
    assert predicted == [[11, EOP], [23, EOP, 21, EOP], [31, EOP]]


@pytest.mark.parametrize(
    ("context_length", "tokens"),
    [
        (0, [[G, SOP, 11, 12], [SOP, 21, 22, 23, 24], [SOP, 31, 32]]),
        # The cut lies between two documents: the second is predicted from [gMASK] alone.
        (3, [[11, 12, EOS], [G, SOP, 21, 22, 23, 24], [SOP, 31, 32]]),
        (10, [[11, 12, EOS], [21, 22, 23, 24, EOS], [31, 32, G, SOP]]),
    ],
)
def test_gmask_stands_in_the_document_of_the_first_predicted_token(
    context_length: int, tokens: list[list[int]]
):
    segments = isolated_gmask_segments(SLICE, context_length, SPECIAL)
    assert [segment.tokens.tolist() for segment in segments] == tokens


@given(st.lists(st.sampled_from([EOS, 10, 11]), min_size=1, max_size=12))
def test_borders_lie_behind_every_eos_and_at_both_ends(tokens: list[int]):
    borders = document_borders(np.array(tokens), EOS)
    behind = [place + 1 for place, token in enumerate(tokens) if token == EOS]
    assert borders == sorted({0, *behind, len(tokens)})


CROSSED = ObjectiveConfig()
ISOLATED = replace(CROSSED, documents=Documents.isolated)


@pytest.mark.parametrize("rule", SliceRule)
def test_isolation_keeps_windows_targets_and_the_length_of_every_row(rule: SliceRule):
    source = Source("text", DocumentStream(60_000, 37))
    crossed, isolated = (
        GLMDataset([source], SPECIAL, replace(objective, slice_rule=rule), 512, seed=3)
        for objective in (CROSSED, ISOLATED)
    )
    objectives = set()
    for index in range(60):
        plain, cut = crossed[index], isolated[index]
        objectives.add(cut.objective)
        assert cut.objective is plain.objective
        assert ((cut.segment_ids > 0) == (plain.segment_ids > 0)).all()
        assert cut.segment_ids.max() > plain.segment_ids.max()
        if cut.objective is Objective.GMASK:
            assert cut.loss_mask.sum() == plain.loss_mask.sum()
            predicted = [row.targets[row.loss_mask].tolist() for row in (plain, cut)]
            assert predicted[0] == predicted[1]
    assert objectives == {Objective.MASK, Objective.GMASK}


def test_isolated_rows_use_every_token_once_an_epoch():
    stream = DocumentStream(30_000, 61)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, ISOLATED, 512, seed=5)
    tokens: list[int] = []
    for index in range(dataset.rows_per_epoch):
        for segment in read_isolated(dataset[index]):
            assert SPECIAL.eos not in segment[:-1], "a segment reaches into another document"
            tokens += segment
    assert sorted(tokens) == sorted(stream.read(0, 30_000).tolist())


def test_no_token_sees_another_document():
    stream = DocumentStream(30_000, 61)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, ISOLATED, 256, seed=5)
    for index in range(20):
        sample = dataset[index]
        # Ordinary tokens tell their document: see DocumentStream.
        document = np.where(sample.tokens >= 100, stream.document_of(sample.tokens), -1)
        seen = attention_mask(sample)
        for query, key in np.argwhere(seen):
            if document[query] >= 0 and document[key] >= 0:
                assert document[query] == document[key]
