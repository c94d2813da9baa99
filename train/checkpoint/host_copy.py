"""The state in host memory: one copy, into buffers that every save uses again.

The optimizer's state lies in a few long flat tensors that are cut into thousands of boxes. Boxes that are neighbours in
memory are copied together, at the speed of the memory, and each box is then a view of the copy: the file is written
from there without copying again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glm.checkpoint.writer import Piece
from train.device import HostTransfer

# Copying a small gap along (padding, a box that another rank stores) is cheaper than starting another copy.
_LARGEST_GAP_BYTES = 64 * 1024


@dataclass
class _Run:
    """Neighbours in memory."""

    begin: int
    """Address of the first byte."""
    end: int
    pieces: list[int]
    """Their positions in the list that was given."""


class HostCopy:
    """Copies pieces of the state into host memory.

    Args:
        transfer: how to copy from this rank's device.
    """

    def __init__(self, transfer: HostTransfer) -> None:
        self._transfer = transfer
        self._source: Sequence[Piece] | None = None
        self._copied: list[Piece] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def take(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Start copying; the former copy is overwritten.

        Args:
            pieces: of the state; if it is the list of the former call, its tensors must lie where they lay.

        Returns:
            The same boxes with values in host memory, which are there after `wait`.
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
            # First let go: the old ones and the new ones need not be there together.
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
        """Let the device change the state only after it has been copied; the host goes on."""
        self._transfer.hold_device()

    def wait(self) -> None:
        """Return once the copy is complete."""
        self._transfer.wait()


def _runs(pieces: Sequence[Piece]) -> list[_Run]:
    """Group pieces that lie in one allocation with small gaps."""
    runs: list[_Run] = []
    storage = None
    for index in sorted(range(len(pieces)), key=lambda index: pieces[index].values.data_ptr()):
        values = pieces[index].values
        assert values.is_contiguous(), "a piece is taken as it lies"
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
