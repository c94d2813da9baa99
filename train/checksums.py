"""Copies of one weight on several ranks, compared bit by bit from time to time: silent errors change one of them.

Norms and the biases of row-parallel layers are whole on every tensor-parallel rank, the tied matrix is on the first and
on the last stage, and every replica holds all weights of its stage. All of these stay equal to the last bit, so the ranks
exchange integer sums of the bits of what they hold. docs/stability.md says what this finds and what it misses.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.computation import squared_at_once
from train.engine import Engine
from train.session import Session

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Bytes of the integers that are added up: the sum wraps around at 64 bits, where every flipped bit still shows.
_LANE = 8

Holding = tuple[str, int | None]
"""What a rank holds of a weight: its name, and which tensor slice; None: all of it."""


@dataclass(frozen=True)
class Difference:
    """A weight whose copies differ."""

    parameter: str
    ranks: tuple[int, ...]
    """Those whose copy differs from what most ranks hold; all holders if no value is held by most."""
    holders: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        """True if it is known which copies are wrong."""
        return len(self.ranks) < len(self.holders)


class WeightChecksums:
    """Compares this rank's weights with the copies on other ranks.

    Args:
        engine: of this rank.
        session: the open process groups; every rank makes one of these at the same time.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self._weights = [held.values for held in engine.weights()]
        tp_rank = session.topology.tp_rank
        own = [(held.name, tp_rank if held.is_cut else None) for held in engine.weights()]
        held_by: list[list[Holding]] = [[]] * session.topology.world_size
        dist.all_gather_object(held_by, own, group=session.control_group)
        self._copies = Copies(held_by)

    def compare(self) -> list[Difference]:
        """Exchange checksums; the same result on every rank. Collective: every rank calls it at the same step."""
        if not self._copies.exist:
            return []
        self._engine.settle()
        own = torch.zeros(self._copies.width, dtype=torch.int64)
        own[: len(self._weights)] = torch.stack([checksum(each) for each in self._weights]).cpu()
        world_size = self._session.topology.world_size
        found = torch.empty(world_size * self._copies.width, dtype=torch.int64)
        dist.all_gather_into_tensor(found, own, group=self._session.control_group)
        return self._copies.differences(found.view(world_size, -1).numpy())


class Copies:
    """Which ranks hold copies of the same numbers.

    Args:
        held_by: what each rank holds, in the order of its checksums.
    """

    def __init__(self, held_by: Sequence[Sequence[Holding]]) -> None:
        self.width = max(map(len, held_by))
        """Checksums of a rank, at most."""
        places: dict[Holding, list[int]] = {}
        for rank, held in enumerate(held_by):
            for number, holding in enumerate(held):
                places.setdefault(holding, []).append(rank * self.width + number)
        self._shared = [
            (name, np.array(found)) for (name, _), found in places.items() if len(found) > 1
        ]
        none = [np.zeros(0, np.int64)]
        self._places = np.concatenate([*none, *(found for _, found in self._shared)])
        firsts = [np.full(len(found), found[0]) for _, found in self._shared]
        self._firsts = np.concatenate([*none, *firsts])

    @property
    def exist(self) -> bool:
        """True if any weight has copies."""
        return bool(self._shared)

    def differences(self, checksums: np.ndarray) -> list[Difference]:
        """The weights whose copies differ.

        Args:
            checksums: (ranks, width) int64.
        """
        flat = checksums.reshape(-1)
        if np.array_equal(flat[self._places], flat[self._firsts]):
            return []
        return [
            _difference(name, (found // self.width).tolist(), flat[found].tolist())
            for name, found in self._shared
            if (flat[found] != flat[found[0]]).any()
        ]


def _difference(name: str, holders: list[int], checksums: list[int]) -> Difference:
    (usual, count), *_ = Counter(checksums).most_common(1)
    if 2 * count <= len(holders):
        return Difference(name, tuple(holders), tuple(holders))
    odd = [rank for rank, found in zip(holders, checksums, strict=True) if found != usual]
    return Difference(name, tuple(odd), tuple(holders))


def checksum(values: Tensor) -> Tensor:
    """Sum of the bits of a tensor, read as 64-bit integers, modulo 2^64; on its device.

    One flipped bit always changes it. It is the same wherever the tensor lies in memory.

    Args:
        values: contiguous, of any floating-point type.

    Returns:
        () int64.
    """
    flat = values.detach().reshape(-1)
    bits = flat.view(_INTEGERS[flat.element_size()])
    in_lane = _LANE // flat.element_size()
    whole = bits.numel() // in_lane * in_lane
    sums = [bits[whole:].sum(dtype=torch.int64)]
    # A piece is a whole number of lanes. One that begins in the middle of a lane's bytes must be moved.
    for piece in bits[:whole].split(squared_at_once(flat.is_cuda) // in_lane * in_lane):
        is_aligned = piece.storage_offset() % in_lane == 0
        sums.append((piece if is_aligned else piece.clone()).view(torch.int64).sum())
    return torch.stack(sums).sum()
