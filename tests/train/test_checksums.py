"""Copies of weights that silent errors have changed: which are found, and whom the comparison names."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import config_of, rank_session, train
from tests.helpers.silent import flip, flip_weight
from train.checksums import Copies, Difference, checksum

TYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 3, 7, 64, 70_001])
def test_one_flipped_bit_always_changes_the_checksum(dtype: torch.dtype, size: int) -> None:
    values = torch.linspace(-1, 1, size).to(dtype)
    as_integers = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    before = checksum(values)
    for place in {0, size // 2, size - 1}:
        for bit in range(8 * dtype.itemsize):
            changed = values.clone()
            flip(changed.view(as_integers), place, bit)
            assert checksum(changed) != before, (place, bit)


def test_the_checksum_of_a_few_numbers_by_hand() -> None:
    # 1.0 is 0x3F80 in bf16: four of them are a lane, the fifth counts by itself.
    assert checksum(torch.ones(5, dtype=torch.bfloat16)) == 0x3F803F803F803F80 + 0x3F80
    # The sum wraps around: 2 x 0x7FFFFFFF7FFFFFFF - 2^64.
    largest = torch.full((4,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    assert checksum(largest) == 2 * 0x7FFFFFFF7FFFFFFF - (1 << 64)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_checksum_does_not_depend_on_the_place_in_memory(dtype: torch.dtype) -> None:
    values = torch.linspace(-1, 1, 70_001).to(dtype)
    for offset in range(4):
        flat = torch.zeros(80_000, dtype=dtype)
        flat[offset : offset + len(values)] = values
        assert checksum(flat[offset : offset + len(values)]) == checksum(values)


def test_the_minority_is_named_and_without_one_all_are() -> None:
    """Ranks 0 to 3 hold `norm` whole and a slice of `matrix` each, as 2 replicas of 2; rank 4 holds something else."""
    whole, other = ("norm", None), ("late", None)
    held = [
        [whole, ("matrix", 0)],
        [whole, ("matrix", 1)],
        [whole, ("matrix", 0)],
        [whole, ("matrix", 1)],
        [other],
    ]
    copies = Copies(held)
    checksums = np.array([[5, 7], [5, 8], [5, 7], [5, 8], [9, 0]])
    assert copies.differences(checksums) == []
    assert copies.differences(_with(checksums, (2, 0), 6)) == [
        Difference("norm", (2,), (0, 1, 2, 3))
    ]
    # Two holders: nobody can say which is wrong.
    (found,) = copies.differences(_with(checksums, (3, 1), 6))
    assert found == Difference("matrix", (1, 3), (1, 3)) and not found.is_known
    # Two against two.
    halves = _with(_with(checksums, (0, 0), 6), (1, 0), 6)
    assert copies.differences(halves) == [Difference("norm", (0, 1, 2, 3), (0, 1, 2, 3))]
    # What is held once, or is padding, is compared with nothing.
    assert copies.differences(_with(_with(checksums, (4, 0), 1), (4, 1), 1)) == []
    assert not Copies([[whole], [other]]).exist


LAYOUTS = [
    (2, ("precision=fp32", "parallel.tp=2")),
    (2, ("precision=fp32", "parallel.pp=2")),
    (2, ("precision=fp32", "parallel.zero_stage=0")),
    (4, ("precision=bf16", "parallel.tp=2", "parallel.sequence=true", "parallel.overlap=true")),
    (4, ("precision=bf16", "parallel.pp=2", "parallel.schedule=interleaved")),
    (8, ("precision=fp32", "parallel.tp=2", "parallel.pp=2")),
]


@pytest.mark.parametrize("world_size, overrides", LAYOUTS)
def test_copies_agree_in_every_step_of_a_clean_run(
    world_size: int, overrides: tuple[str, ...]
) -> None:
    for found in run_distributed(compared_in_each_step, world_size, overrides):
        assert found == [[]] * 4


def compared_in_each_step(
    rank: int, world_size: int, overrides: tuple[str, ...]
) -> list[list[Difference]]:
    """Four steps; what each comparison before an update finds."""
    from train.checksums import WeightChecksums
    from train.engine.pipeline import PipelineEngine

    config = config_of(overrides, world_size)
    found: list[list[Difference]] = []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        checksums = WeightChecksums(engine, session)
        engine.add_hook(lambda _: found.append(checksums.compare()))
        train(engine, session, config, 0, 4)
        engine.close()
    return found


# (ranks, layout, parameter, rank with the error, ranks that are named, ranks that hold copies)
INJECTED = [
    pytest.param(
        *(2, ("parallel.tp=2",), "layers.1.input_norm.weight", 1, (0, 1), (0, 1)), id="norm"
    ),
    pytest.param(*(2, ("parallel.pp=2",), "word_embeddings.weight", 1, (0, 1), (0, 1)), id="tied"),
    pytest.param(
        *(3, ("optim.global_batch_size=6", "parallel.zero_stage=0")),
        *("layers.0.mlp.dense_out.weight", 2, (2,), (0, 1, 2)),
        id="replica",
    ),
    pytest.param(
        *(4, ("precision=bf16", "parallel.tp=2")),
        *("layers.3.mlp.dense_out.bias", 2, (2,), (0, 1, 2, 3)),
        id="gathered",
    ),
]


@pytest.mark.parametrize("world_size, overrides, parameter, rank, named, holders", INJECTED)
def test_a_flipped_bit_is_found_before_the_update(
    world_size: int,
    overrides: tuple[str, ...],
    parameter: str,
    rank: int,
    named: tuple[int, ...],
    holders: tuple[int, ...],
) -> None:
    results = run_distributed(flipped, world_size, overrides, parameter, rank)
    for before, after in results:
        assert before == []
        assert after == [Difference(parameter, named, holders)]


def flipped(
    rank: int, world_size: int, overrides: tuple[str, ...], parameter: str, guilty: int
) -> tuple[list[Difference], list[Difference]]:
    """Two steps; a bit of one copy flips after the passes of the second. What the comparisons find."""
    from train.checksums import WeightChecksums
    from train.engine.pipeline import PipelineEngine

    config = config_of(("precision=fp32", *overrides), world_size)
    found: list[list[Difference]] = []
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        checksums = WeightChecksums(engine, session)

        def hook(_: Any) -> None:
            if rank == guilty and len(found) == 1:
                flip_weight(engine, parameter)
            found.append(checksums.compare())

        engine.add_hook(hook)
        train(engine, session, config, 0, 2)
        engine.close()
    return found[0], found[1]


def _with(checksums: np.ndarray, place: tuple[int, int], value: int) -> np.ndarray:
    changed = checksums.copy()
    changed[place] = value
    return changed
