"""Boxes: every cut of a tensor holds each element exactly once, and can be read back by any other cut."""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glm.checkpoint.boxes import Box, TensorSlice, covers, flat_boxes

Stored = tuple[Box, np.ndarray]
untimed = settings(deadline=None, max_examples=60)


@st.composite
def cuts(draw: st.DrawFn, full_shape: tuple[int, ...]) -> list[Stored]:
    """Cut a tensor numbered 0, 1, 2, ... over tp ranks along one axis, then each shard flatly over dp ranks."""
    whole = np.arange(math.prod(full_shape)).reshape(full_shape)
    axis = draw(st.none() | st.integers(0, len(full_shape) - 1))
    counts = [n for n in (1, 2, 3, 4) if axis is not None and full_shape[axis] % n == 0]
    count = draw(st.sampled_from(counts)) if counts else 1
    stored = []
    for index in range(count):
        local = whole if axis is None else np.split(whole, count, axis)[index]
        shard = TensorSlice(local.shape, axis, index, count)
        assert shard.full_shape == full_shape
        borders = draw(st.lists(st.integers(0, local.size), max_size=4).map(sorted))
        for start, stop in itertools.pairwise([0, *borders, local.size]):
            flat = local.reshape(-1)[start:stop]
            for position, box in shard.boxes(start, stop - start):
                stored.append((box, flat[position : position + box.volume].reshape(box.shape)))
    return stored


shapes = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)


@untimed
@given(st.data(), shapes)
def test_every_cut_holds_each_element_exactly_once(data: st.DataObject, shape: tuple) -> None:
    stored = data.draw(cuts(shape))
    times, whole = np.zeros(shape, int), np.full(shape, -1)
    for box, values in stored:
        place = box.within(Box.whole(shape))
        times[place] += 1
        whole[place] = values
    np.testing.assert_array_equal(times, 1)
    np.testing.assert_array_equal(whole, np.arange(whole.size).reshape(shape))
    assert covers(shape, [box for box, _ in stored])


@untimed
@given(st.data(), shapes)
def test_any_cut_can_be_read_from_any_other(data: st.DataObject, shape: tuple) -> None:
    stored, wanted = data.draw(cuts(shape)), data.draw(cuts(shape))
    for target, expected in wanted:
        found = np.full(target.shape, -1)
        for box, values in stored:
            common = target.intersection(box)
            if common is not None:
                found[common.within(target)] = values[common.within(box)]
        np.testing.assert_array_equal(found, expected)


@untimed
@given(st.data(), shapes)
def test_a_missing_or_doubled_box_is_noticed(data: st.DataObject, shape: tuple) -> None:
    boxes = [box for box, _ in data.draw(cuts(shape))]
    chosen = data.draw(st.integers(0, len(boxes) - 1))
    others = boxes[:chosen] + boxes[chosen + 1 :]
    assert not covers(shape, others)
    assert not covers(shape, [*boxes, boxes[chosen]])


@untimed
@given(st.data())
def test_coverage_is_what_counting_says(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    boxes = []
    for _ in range(data.draw(st.integers(0, 4))):
        offset = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        sizes = tuple(data.draw(st.integers(1, n - s)) for s, n in zip(offset, shape, strict=True))
        boxes.append(Box(offset, sizes))
    times = np.zeros(shape, int)
    for box in boxes:
        times[box.within(Box.whole(shape))] += 1
    assert covers(shape, boxes) == bool((times == 1).all())


def test_a_range_of_a_matrix_is_three_rectangles() -> None:
    # 4 x 5, elements 3 .. 16: the end of row 0, rows 1 and 2 whole, the start of row 3.
    assert list(flat_boxes((4, 5), 3, 17)) == [
        Box((0, 3), (1, 2)),
        Box((1, 0), (2, 5)),
        Box((3, 0), (1, 2)),
    ]


def test_a_range_inside_a_row_is_one_rectangle() -> None:
    assert list(flat_boxes((4, 5), 6, 9)) == [Box((1, 1), (1, 3))]


def test_a_shard_of_columns_lies_beside_its_neighbours() -> None:
    second_of_two = TensorSlice((2, 3), axis=1, index=1, count=2)
    assert list(second_of_two.boxes(1, 5)) == [
        (0, Box((0, 4), (1, 2))),
        (2, Box((1, 3), (1, 3))),
    ]


def test_a_number_is_one_box() -> None:
    assert list(flat_boxes((), 0, 1)) == [Box((), ())]


def test_boxes_that_only_touch_have_nothing_in_common() -> None:
    assert Box((0, 0), (2, 3)).intersection(Box((2, 0), (1, 3))) is None
