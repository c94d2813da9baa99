"""Instruction records in windows: hand-written golden tables (GLM-130B, section 2.2), truncation and packing.

Token ids: 1 [MASK], 3 <sop>, 4 <eop>, 5 <eos>, 0 <pad>.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import MipPacking, MipPositions, MipTruncate, ObjectiveConfig
from data_pipeline.instructions import Record
from data_pipeline.mip_windows import mip_windows, records_per_window, share_room
from data_pipeline.objective import Objective
from data_pipeline.packing import Sample, pack_row
from tests.helpers.rows import assert_row
from tests.helpers.tiny import SPECIAL

M, SOP, EOP = 1, 3, 4
TWO = ObjectiveConfig(windows_per_row=2)


def record(prompt: list[int], target: list[int]) -> Record:
    return Record(np.array(prompt, dtype=np.int64), np.array(target, dtype=np.int64))


SHORT = record([11, 12, 13], [21, 22])
# 12 + 4 + 2 tokens for a window of 10: four of the prompt stay.
LONG = record(list(range(31, 43)), [51, 52, 53, 54])

ROW = {
    #         prompt     |   | answer     | padding | head of the prompt | answer
    "tokens": [11, 12, 13, M, SOP, 21, 22, 0, 0, 0, 31, 32, 33, 34, M, SOP, 51, 52, 53, 54],
    "targets": [0, 0, 0, 0, 21, 22, EOP, 0, 0, 0, 0, 0, 0, 0, 0, 51, 52, 53, 54, EOP],
    "loss_mask": [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    "position_ids": [0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    "block_position_ids": [0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
    "is_context": [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
}
BLANK_POSITIONS = [0, 1, 2, 3, 3, 3, 3, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
TAIL_TOKENS = [11, 12, 13, M, SOP, 21, 22, 0, 0, 0, 39, 40, 41, 42, M, SOP, 51, 52, 53, 54]
ATTENTION = """
    xxxx................
    xxxx................
    xxxx................
    xxxx................
    xxxxx...............
    xxxxxx..............
    xxxxxxx.............
    ....................
    ....................
    ....................
    ..........xxxxx.....
    ..........xxxxx.....
    ..........xxxxx.....
    ..........xxxxx.....
    ..........xxxxx.....
    ..........xxxxxx....
    ..........xxxxxxx...
    ..........xxxxxxxx..
    ..........xxxxxxxxx.
    ..........xxxxxxxxxx
"""


def row_of(records: list[Record], objective: ObjectiveConfig, length: int = 20) -> Sample:
    windows = mip_windows(records, length // objective.windows_per_row, objective, SPECIAL)
    return pack_row(windows, length, 0, Objective.MIP, 0)


@pytest.mark.parametrize("positions", MipPositions)
@pytest.mark.parametrize("truncate", MipTruncate)
def test_row_equals_the_hand_written_table(positions: MipPositions, truncate: MipTruncate):
    objective = replace(TWO, mip_positions=positions, mip_truncate=truncate)
    expected = dict(ROW)
    if positions is MipPositions.blank:
        expected["position_ids"] = BLANK_POSITIONS
    if truncate is MipTruncate.start:
        expected["tokens"] = TAIL_TOKENS
    assert_row(row_of([SHORT, LONG], objective), expected, ATTENTION)


def test_a_target_without_its_end_predicts_the_token_that_comes_next():
    # A window of 16 keeps 4 tokens of the prompt; 10 of the 12 target tokens follow.
    objective = ObjectiveConfig(windows_per_row=1)
    sample = row_of([record(list(range(31, 43)), list(range(51, 63)))], objective, 16)
    assert sample.tokens.tolist() == [31, 32, 33, 34, M, SOP, *range(51, 61)]
    assert sample.targets[sample.loss_mask].tolist() == list(range(51, 62))


def test_a_window_of_512_keeps_128_tokens_of_the_prompt():
    objective = ObjectiveConfig(windows_per_row=1)
    prompt, target = list(range(1000, 1600)), list(range(2000, 2600))
    sample = row_of([record(prompt, target)], objective, 512)
    assert sample.tokens[:129].tolist() == [*prompt[:128], M]
    sample = row_of([record(prompt[:100], target)], objective, 512)
    assert sample.tokens[:101].tolist() == [*prompt[:100], M]
    sample = row_of([record(prompt, target[:200])], objective, 512)
    assert sample.is_context.sum() == 512 - 200 - 1
    assert sample.targets[-1] == EOP


RECORDS = st.builds(
    lambda p, t: record(list(range(100, 100 + p)), list(range(500, 500 + t))),
    st.integers(0, 60),
    st.integers(1, 60),
)


@given(st.integers(1, 3), st.integers(1, 4), st.data())
def test_records_share_a_window_and_those_that_fit_are_whole(
    per_window: int, num_windows: int, data: st.DataObject
):
    objective = ObjectiveConfig(windows_per_row=num_windows, mip_packing=MipPacking.filled)
    number = per_window * num_windows
    records = data.draw(st.lists(RECORDS, min_size=number, max_size=number))
    windows = mip_windows(records, 48, objective, SPECIAL)
    assert [len(segments) for segments in windows] == [per_window] * num_windows
    for start in range(num_windows):
        segments = windows[start]
        assert sum(map(len, segments)) <= 48
        shared = records[start * per_window : (start + 1) * per_window]
        fair = 48 // per_window
        for segment, (prompt, target) in zip(segments, shared, strict=True):
            need = len(prompt) + len(target) + 2
            assert segment.loss_mask.any()
            if need <= fair:
                assert len(segment) == need
                assert segment.targets[-1] == EOP


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(8, 200))
def test_rooms_fill_the_window_and_only_the_longest_are_cut(needs: list[int], room: int):
    rooms = share_room(needs, room)
    assert sum(rooms) == min(sum(needs), room)
    limit = max(rooms)
    assert all(
        given == need or given >= limit - 1 for given, need in zip(rooms, needs, strict=True)
    )


def test_slots_hold_one_record_and_filled_windows_as_many_as_fit_on_average():
    filled = ObjectiveConfig(mip_packing=MipPacking.filled)
    assert records_per_window(512, 50.0, ObjectiveConfig()) == 1
    assert (
        records_per_window(512, 50.0, filled) == 10
    )  # 51 tokens each, with two markers and no <eos>
    assert records_per_window(512, 900.0, filled) == 1
