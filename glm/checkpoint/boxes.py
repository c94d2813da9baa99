"""Boxes: rectangular parts of a tensor, in the coordinates of the whole tensor.

Under ZeRO a rank owns flat ranges of tensor slices. A flat range is at most three rectangles of a matrix (a part of a
row, whole rows, a part of a row), each contiguous in memory; shifted by the slice's offset they are boxes of the whole
matrix. Any layout can then be read from any other by intersecting boxes.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MOST_COMPARED = 1024


@dataclass(frozen=True)
class Box:
    """The part [offset, offset + shape) of a tensor, per axis."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> "Box":
        """The box that is all of a tensor."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def volume(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def shifted(self, axis: int, distance: int) -> "Box":
        """The same box further along one axis."""
        offset = list(self.offset)
        offset[axis] += distance
        return Box(tuple(offset), self.shape)

    def intersection(self, other: "Box") -> "Box | None":
        """The common part; None if there is none."""
        starts = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        stops = [
            min(a + n, b + m)
            for a, n, b, m in zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        ]
        if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
            return None
        shape = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
        return Box(tuple(starts), shape)

    def within(self, outer: "Box") -> tuple[slice, ...]:
        """Slices that pick this box out of a tensor that holds `outer`."""
        return tuple(
            slice(start - base, start - base + size)
            for start, base, size in zip(self.offset, outer.offset, self.shape, strict=True)
        )


@dataclass(frozen=True)
class TensorSlice:
    """What a tensor-parallel rank holds of a tensor: the slice's own shape and its place in the whole tensor."""

    shape: tuple[int, ...]
    axis: int | None
    """Axis along which the whole tensor is cut; None: the slice is the whole tensor."""
    index: int
    """Number of this slice along the axis, from 0."""
    count: int
    """Number of slices along the axis."""

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        if self.axis is None:
            return self.shape
        shape = list(self.shape)
        shape[self.axis] *= self.count
        return tuple(shape)

    def boxes(self, start: int, count: int) -> Iterator[tuple[int, Box]]:
        """Cut the flat range [start, start + count) of this slice into boxes of the whole tensor.

        Yields:
            (position within the range, box); the box's elements are contiguous from that position on.
        """
        position = 0
        for box in flat_boxes(self.shape, start, start + count):
            volume = box.volume
            if self.axis is not None:
                box = box.shifted(self.axis, self.index * self.shape[self.axis])
            yield position, box
            position += volume


def flat_boxes(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    """Cut a flat range of a C-ordered tensor into boxes, in order; each is contiguous in memory."""
    if start >= stop:
        return
    if len(shape) <= 1:
        yield Box((start,), (stop - start,)) if shape else Box((), ())
        return
    inner = math.prod(shape[1:])
    first, last = start // inner, stop // inner
    if first == last:  # inside one row
        yield from _in_row(shape, first, start - first * inner, stop - first * inner)
        return
    if start % inner:
        yield from _in_row(shape, first, start % inner, inner)
        first += 1
    if first < last:
        zeros = (0,) * (len(shape) - 1)
        yield Box((first, *zeros), (last - first, *shape[1:]))
    if stop % inner:
        yield from _in_row(shape, last, 0, stop % inner)


def _in_row(shape: Sequence[int], row: int, start: int, stop: int) -> Iterator[Box]:
    for box in flat_boxes(shape[1:], start, stop):
        yield Box((row, *box.offset), (1, *box.shape))


def covers(full_shape: Sequence[int], boxes: Sequence[Box]) -> bool:
    """True if non-empty boxes inside a tensor fill it without overlap: equal volumes, and no two intersect."""
    return sum(box.volume for box in boxes) == math.prod(full_shape) and _are_disjoint(boxes, 0)


def _are_disjoint(boxes: Sequence[Box], axis: int) -> bool:
    """True if no two of the boxes, which agree on all axes before `axis`, have an element in common.

    The tensor slices of all ranks are cut at the same rows, so the boxes fall into groups with the same extent along an
    axis, and each group is compared along the next axis. Boxes of an arbitrary cut are compared in pairs.
    """
    if len(boxes) < 2:
        return True
    if axis == len(boxes[0].shape):
        return False
    groups: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        groups.setdefault((box.offset[axis], box.shape[axis]), []).append(box)
    extents = sorted(groups)
    if all(start + size <= next_ for (start, size), (next_, _) in itertools.pairwise(extents)):
        return all(_are_disjoint(group, axis + 1) for group in groups.values())
    # Our own checkpoints get here with few boxes only; a hostile manifest must not cost days of comparing.
    return len(boxes) <= _MOST_COMPARED and not any(
        one.intersection(other) for one, other in itertools.combinations(boxes, 2)
    )
