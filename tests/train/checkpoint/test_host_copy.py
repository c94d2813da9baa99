"""The copy in host memory: what is saved is the state of that moment, in buffers that are used again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm.checkpoint.boxes import Box
from glm.checkpoint.writer import Piece
from train.checkpoint.host_copy import HostCopy
from train.device import HostTransfer

CPU = torch.device("cpu")


def pieces_of(flats: list[torch.Tensor], ranges: list[tuple[int, int, int]]) -> list[Piece]:
    return [
        Piece(f"t{number}", "master", Box((0,), (stop - start,)), flats[which][start:stop])
        for number, (which, start, stop) in enumerate(ranges)
    ]


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Ranges of flat tensors, in any order, with gaps of any size, some of them overlapping."""
    ranges = []
    for _ in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, 60_000))
        ranges.append((draw(st.integers(0, 2)), start, start + draw(st.integers(1, 3_000))))
    return ranges


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_every_piece_is_copied_and_stays_as_it_was(ranges: list[tuple[int, int, int]]) -> None:
    flats = [
        torch.arange(64_000, dtype=torch.float32),
        torch.arange(64_000, dtype=torch.float32).to(torch.bfloat16),
        torch.arange(64_000, dtype=torch.float32).neg(),
    ]
    before = [flat.clone() for flat in flats]
    pieces = pieces_of(flats, ranges)
    copy = HostCopy(HostTransfer(CPU))
    copied = copy.take(pieces)
    copy.wait()
    for flat in flats:
        flat.zero_()
    for (which, start, stop), piece, original in zip(ranges, copied, pieces, strict=True):
        assert torch.equal(piece.values, before[which][start:stop])
        assert piece.values.dtype == original.values.dtype
        assert (piece.tensor, piece.kind, piece.box) == (
            original.tensor,
            original.kind,
            original.box,
        )


def test_neighbours_are_one_copy_and_the_next_save_takes_the_same_memory() -> None:
    flat = torch.arange(100_000, dtype=torch.float32)
    pieces = pieces_of([flat], [(0, 0, 50_000), (0, 50_000, 50_001), (0, 50_100, 100_000)])
    copy = HostCopy(HostTransfer(CPU))
    first = copy.take(pieces)
    assert len({piece.values.untyped_storage().data_ptr() for piece in first}) == 1
    assert first[0].values.untyped_storage().nbytes() == flat.nbytes
    flat.mul_(2)
    second = copy.take(pieces)
    assert [p.values.data_ptr() for p in second] == [p.values.data_ptr() for p in first]
    assert torch.equal(second[2].values, flat[50_100:])


def test_what_another_rank_stores_is_not_copied_along() -> None:
    flat = torch.arange(1_000_000, dtype=torch.float32)
    copied = HostCopy(HostTransfer(CPU)).take(
        pieces_of([flat], [(0, 0, 10), (0, 999_990, 1_000_000)])
    )
    stored = {piece.values.untyped_storage().data_ptr(): piece for piece in copied}
    assert sum(piece.values.untyped_storage().nbytes() for piece in stored.values()) == 80
