"""Golden tables, worked out by hand from the papers' text: GLM section 2.1, GLM-130B section 2.2 and appendix B.3.

Token ids: 1 [MASK], 2 [gMASK], 3 <sop>, 4 <eop>, 5 <eos>, 0 <pad>; the document is 101, 102, ...
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.blanks import gmask_segment
from data_pipeline.objective import Objective
from data_pipeline.packing import attention_mask, pack_row
from tests.helpers.rows import assert_row
from tests.helpers.segments import mask_segment
from tests.helpers.tiny import SPECIAL

M, G, SOP, EOP, PAD = 1, 2, 3, 4, 0

DOCUMENT = np.array([101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112])
# Spans 101-102 (at the start), 106, and 110-112 (at the end), predicted in the order: last, first, middle.
STARTS, ENDS, ORDER = np.array([0, 5, 9]), np.array([2, 6, 12]), np.array([2, 0, 1])

MASK_ROW = {
    #         the text with a [MASK] for each span  | the last span   | the first     | middle  | padding
    "tokens": [
        M,
        103,
        104,
        105,
        M,
        107,
        108,
        109,
        M,
        SOP,
        110,
        111,
        112,
        SOP,
        101,
        102,
        SOP,
        106,
        0,
        0,
    ],
    "targets": [0, 0, 0, 0, 0, 0, 0, 0, 0, 110, 111, 112, EOP, 101, 102, EOP, 106, EOP, 0, 0],
    "loss_mask": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    "position_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 0, 0, 0, 4, 4, 0, 0],
    "block_position_ids": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 1, 2, 0, 0],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    "is_context": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
}
MASK_ATTENTION = """
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxx...........
    xxxxxxxxxx..........
    xxxxxxxxxxx.........
    xxxxxxxxxxxx........
    xxxxxxxxxxxxx.......
    xxxxxxxxxxxxxx......
    xxxxxxxxxxxxxxx.....
    xxxxxxxxxxxxxxxx....
    xxxxxxxxxxxxxxxxx...
    xxxxxxxxxxxxxxxxxx..
    ....................
    ....................
"""

# Three tokens stay visible and five are predicted; no <eop> is appended (glm_facts: labels end with the text).
GMASK_ROW = {
    #         the prefix     |    | the hidden end, shifted | padding
    "tokens": [101, 102, 103, G, SOP, 104, 105, 106, 107, 0, 0],
    "targets": [0, 0, 0, 0, 104, 105, 106, 107, 108, 0, 0],
    "loss_mask": [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0],
    "position_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
    "block_position_ids": [0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    "is_context": [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
}
GMASK_ATTENTION = """
    xxxx.......
    xxxx.......
    xxxx.......
    xxxx.......
    xxxxx......
    xxxxxx.....
    xxxxxxx....
    xxxxxxxx...
    xxxxxxxxx..
    ...........
    ...........
"""

# Two windows of 14: the [MASK] segment above, 18 tokens long, loses all of its middle span and most of its first;
# the second window holds the document 201..204 with its last two tokens hidden, whole.
TRUNCATED_ROW = {
    "tokens": [M, 103, 104, 105, M, 107, 108, 109, M, SOP, 110, 111, 112, SOP]
    + [201, 202, M, SOP, 203, 204, 0, 0, 0, 0, 0, 0, 0, 0],
    "targets": [0, 0, 0, 0, 0, 0, 0, 0, 0, 110, 111, 112, EOP, 101]
    + [0, 0, 0, 203, 204, EOP, 0, 0, 0, 0, 0, 0, 0, 0],
    "loss_mask": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    + [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    "position_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 0]
    + [0, 1, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    "block_position_ids": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1]
    + [0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    + [2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    "is_context": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    + [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
}
TRUNCATED_ATTENTION = """
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxx...................
    xxxxxxxxxx..................
    xxxxxxxxxxx.................
    xxxxxxxxxxxx................
    xxxxxxxxxxxxx...............
    xxxxxxxxxxxxxx..............
    ..............xxx...........
    ..............xxx...........
    ..............xxx...........
    ..............xxxx..........
    ..............xxxxx.........
    ..............xxxxxx........
    ............................
    ............................
    ............................
    ............................
    ............................
    ............................
    ............................
    ............................
"""


def test_mask_row_equals_the_hand_written_table():
    segment = mask_segment(DOCUMENT, STARTS, ENDS, ORDER, SPECIAL)
    sample = pack_row([[segment]], 20, PAD, Objective.MASK, index=7)
    assert_row(sample, MASK_ROW, MASK_ATTENTION)
    assert (sample.objective, sample.index) == (Objective.MASK, 7)


def test_gmask_row_equals_the_hand_written_table():
    segment = gmask_segment(DOCUMENT[:8], context_length=3, special=SPECIAL)
    assert_row(pack_row([[segment]], 11, PAD, Objective.GMASK, 0), GMASK_ROW, GMASK_ATTENTION)


def test_truncated_slice_of_the_original_rule_equals_the_hand_written_table():
    truncated = mask_segment(DOCUMENT, STARTS, ENDS, ORDER, SPECIAL).cut(14)
    whole = mask_segment(
        np.array([201, 202, 203, 204]), np.array([2]), np.array([4]), np.array([0]), SPECIAL
    )
    sample = pack_row([[truncated], [whole]], 28, PAD, Objective.MASK, 0)
    assert_row(sample, TRUNCATED_ROW, TRUNCATED_ATTENTION)


def test_gmask_with_an_empty_prefix_predicts_everything_from_gmask_alone():
    segment = gmask_segment(DOCUMENT[:4], context_length=0, special=SPECIAL)
    assert segment.tokens.tolist() == [G, SOP, 101, 102, 103]
    assert segment.targets.tolist() == [0, 101, 102, 103, 104]
    assert segment.loss_mask.tolist() == [False, True, True, True, True]
    assert segment.position_ids.tolist() == [0, 1, 2, 3, 4]
    assert segment.is_context.tolist() == [True, False, False, False, False]


def test_one_span_over_the_whole_slice_leaves_one_mask_token_as_context():
    one = np.array([0])
    segment = mask_segment(DOCUMENT[:3], one, np.array([3]), one, SPECIAL)
    assert segment.tokens.tolist() == [M, SOP, 101, 102, 103]
    assert segment.targets.tolist() == [0, 101, 102, 103, EOP]
    assert segment.position_ids.tolist() == [0, 0, 0, 0, 0]


def test_two_segments_in_one_window_follow_each_other_and_do_not_see_each_other():
    one = np.array([0])
    first = mask_segment(np.array([101, 102]), one, np.array([1]), one, SPECIAL)
    second = mask_segment(np.array([103, 104]), one + 1, np.array([2]), one, SPECIAL)
    sample = pack_row([[first, second], []], 18, PAD, Objective.MASK, 0)
    assert sample.tokens.tolist() == [M, 102, SOP, 101, 103, M, SOP, 104, 0] + [0] * 9
    assert sample.segment_ids.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0] + [0] * 9
    assert sample.position_ids.tolist() == [0, 1, 0, 0, 0, 1, 1, 1, 0] + [0] * 9
    seen = attention_mask(sample)
    assert not seen[:4, 4:].any()
    assert not seen[4:8, :4].any()


def test_segment_too_long_for_its_window_is_refused():
    segment = gmask_segment(DOCUMENT, 0, SPECIAL)
    with pytest.raises(AssertionError, match="does not fit its window"):
        pack_row([[segment], []], 24, PAD, Objective.MASK, 0)


@st.composite
def documents_with_spans(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Visible and hidden stretches in turn: spans that never touch."""
    lengths = st.lists(st.integers(1, 6), min_size=1, max_size=8)
    hidden = np.array(draw(lengths))
    visible = np.array(
        draw(st.lists(st.integers(1, 6), min_size=len(hidden) + 1, max_size=len(hidden) + 1))
    )
    visible[0] = draw(st.integers(0, 3))
    visible[-1] = draw(st.integers(0, 3))
    starts = visible[:-1].cumsum() + hidden.cumsum() - hidden
    order = np.array(draw(st.permutations(range(len(hidden)))))
    tokens = 100 + np.arange(visible.sum() + hidden.sum())
    return tokens, starts, starts + hidden, order


@given(documents_with_spans())
def test_filling_the_blanks_with_their_targets_gives_the_document_back(
    plan: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
):
    tokens, starts, ends, order = plan
    segment = mask_segment(tokens, starts, ends, order, SPECIAL)
    context = segment.tokens[segment.is_context].tolist()
    answers: dict[int, list[int]] = {}
    for position, target in zip(
        segment.position_ids[segment.loss_mask], segment.targets[segment.loss_mask], strict=True
    ):
        answers.setdefault(int(position), []).append(int(target))
    assert list(answers) == [int(np.flatnonzero(np.array(context) == M)[span]) for span in order]
    filled = []
    for position, token in enumerate(context):
        if token == M:
            assert answers[position][-1] == EOP
            filled += answers[position][:-1]
        else:
            filled.append(token)
    assert filled == tokens.tolist()
    assert len(segment) == len(tokens) + 2 * len(starts)


@given(st.integers(1, 50), st.data())
def test_gmask_segment_counts_its_loss_on_exactly_the_hidden_tokens(
    length: int, data: st.DataObject
):
    hidden = data.draw(st.integers(1, length))
    tokens = 100 + np.arange(length)
    segment = gmask_segment(tokens, length - hidden, SPECIAL)
    assert segment.loss_mask.sum() == hidden
    assert segment.targets[segment.loss_mask].tolist() == tokens[length - hidden :].tolist()
    first = int(np.flatnonzero(segment.loss_mask)[0])
    assert segment.tokens[first] == SOP
    assert segment.tokens[first - 1] == G
    assert segment.is_context[:first].all()
    assert segment.position_ids.tolist() == list(range(length + 1))
