"""The arithmetic of the two pipeline schedules, against tables written by hand."""

import pytest

from configs import pipeline
from configs.load import load_config

# With this vocabulary the head is half a layer, which changes nothing.
INTERLEAVED = (
    "model.num_layers=6",
    "model.vocab_size=2048",
    "parallel.pp=2",
    "parallel.schedule=interleaved",
)


def test_groups_are_the_smallest_that_leave_no_rest_or_a_full_one() -> None:
    sizes = [pipeline.group_size(4, count) for count in range(4, 17)]
    #               4  5  6  7  8  9 10 11 12 13 14 15 16
    assert sizes == [4, 5, 6, 7, 4, 5, 5, 6, 4, 7, 5, 5, 4]
    assert pipeline.group_size(8, 176) == 8
    with pytest.raises(ValueError, match="3 micro-batches do not fill 4 stages"):
        pipeline.group_size(4, 3)


def test_a_group_goes_through_all_chunks_before_the_next_one() -> None:
    order = list(pipeline.forward_order(5, 2, 3))
    #                micro-batch, chunk
    assert order == [
        *[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)],
        *[(3, 0), (4, 0), (3, 1), (4, 1)],
    ]


def test_the_parts_go_round_the_stages() -> None:
    config = load_config([*INTERLEAVED], 2)
    assert pipeline.num_chunks(config.parallel) == 2
    assert pipeline.stage_chunks(config) == [[range(0, 2), range(4, 6)], [range(2, 4), range(6, 9)]]
    assert pipeline.num_chunks(load_config([*INTERLEAVED, "parallel.chunks=4"], 2).parallel) == 4
    assert pipeline.num_chunks(load_config(["parallel.pp=2"], 2).parallel) == 1


def test_one_forward_one_backward_keeps_as_many_passes_as_stages_follow() -> None:
    assert [pipeline.kept_passes(4, stage, 8, 1) for stage in range(4)] == [
        ((4,),),
        ((3,),),
        ((2,),),
        ((1,),),
    ]
    assert pipeline.kept_passes(4, 0, 2, 1) == ((2,),)


def test_the_interleaved_schedule_keeps_whole_groups_of_all_chunks_but_the_last() -> None:
    # 2 stages of 2, groups of 2. Stage 1 runs 2 passes ahead: F00 F10, then F01 B01, F11 B11, F20 B00, F30 B10, ...
    assert pipeline.warm_up_passes(2, 1, 4, 2) == 2
    assert set(pipeline.kept_passes(2, 1, 4, 2)) == {(2, 1), (3, 0)}
    # Stage 0 runs 4 ahead: F00 F10 F01 F11, then F20 B01, F30 B11, F21 B00, F31 B10, ...
    assert pipeline.warm_up_passes(2, 0, 4, 2) == 4
    assert set(pipeline.kept_passes(2, 0, 4, 2)) == {(3, 2), (4, 1)}


def test_more_chunks_wait_less() -> None:
    assert pipeline.bubble(8, 176) == 7 / 183
    assert pipeline.bubble(8, 176, 7) == 1 / 177
    assert pipeline.bubble(1, 5) == 0
    assert pipeline.slots(4, 8, 3) == 9
