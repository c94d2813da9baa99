"""A copy of the state in host memory, in buffers that every save reuses.

The optimizer's state lies in a few long flat tensors that are cut into thousands of boxes. Boxes that are adjacent in
memory are copied together, at memory bandwidth. Each box is then a view of the copy, and the file is written from
there without copying again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glm.checkpoint.writer import Piece
from train.device import HostTransfer

# Copying a small gap as well (padding, a box that another rank stores) is cheaper than starting another copy.
_LARGEST_GAP_BYTES = 64 * 1024


@dataclass
class _Run:
    """Pieces that are adjacent in memory, and copied together."""

    begin: int
    """Address of the first byte."""
    end: int
    pieces: list[int]
    """Indices of the pieces in the list given to `take`."""


class HostCopy:
    """Copies pieces of the state into host memory.

    Args:
        transfer: copies from this rank's device.
    """

    def __init__(self, transfer: HostTransfer) -> None:
        self._transfer = transfer
        self._source: Sequence[Piece] | None = None
        self._copied: list[Piece] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def take(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Start copying; the previous copy is overwritten.

        Args:
            pieces: pieces of the state. If it is the same list as in the previous call, its tensors must not have moved.

        Returns:
            The same boxes with values in host memory, which are valid after `wait`.
        """
        if pieces is not self._source:
            self._plan(pieces)
        self._transfer.start(self._pairs)
        return self._copied

    def _plan(self, pieces: Sequence[Piece]) -> None:
        runs = _runs(pieces)
        buffers = [buffer for _, buffer in self._pairs]
        sizes = [run.end - run.begin for run in runs]
        if [len(buffer) for buffer in buffers] != sizes:
            # Release the old buffers first, so that old and new ones do not take memory at the same time.
            buffers, self._pairs, self._copied = [], [], []
            buffers = [self._transfer.buffer(size) for size in sizes]
        self._pairs = [
            (_bytes(pieces[run.pieces[0]].values, run), buffer)
            for run, buffer in zip(runs, buffers, strict=True)
        ]
        copied: dict[int, Piece] = {}
        for run, buffer in zip(runs, buffers, strict=True):
            for index in run.pieces:
                values = pieces[index].values
                begin = values.data_ptr() - run.begin
                part = buffer[begin : begin + values.nbytes].view(values.dtype)
                copied[index] = replace(pieces[index], values=part)
        self._copied = [copied[index] for index in range(len(pieces))]
        self._source = pieces

    def hold_updates(self) -> None:
        """Make the device finish the copy before it changes the state; the host does not wait."""
        self._transfer.hold_device()

    def wait(self) -> None:
        """Return once the copy is complete."""
        self._transfer.wait()


def _runs(pieces: Sequence[Piece]) -> list[_Run]:
    """Group pieces of one allocation that are separated by small gaps only."""
    runs: list[_Run] = []
    storage = None
    for index in sorted(range(len(pieces)), key=lambda index: pieces[index].values.data_ptr()):
        values = pieces[index].values
        assert values.is_contiguous(), "a piece is copied as contiguous bytes"
        begin, own = values.data_ptr(), values.untyped_storage().data_ptr()
        end = begin + values.nbytes
        if own == storage and begin - runs[-1].end <= _LARGEST_GAP_BYTES:
            runs[-1].end = max(runs[-1].end, end)
            runs[-1].pieces.append(index)
        else:
            runs.append(_Run(begin, end, [index]))
        storage = own
    return runs


def _bytes(values: Tensor, run: _Run) -> Tensor:
    """The bytes of a run, as a view of the memory that `values` lies in."""
    storage = values.untyped_storage()
    whole = torch.empty(0, dtype=torch.uint8, device=values.device)
    return whole.set_(storage, run.begin - storage.data_ptr(), (run.end - run.begin,), (1,))
