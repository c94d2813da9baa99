"""Saving together: all ranks agree on what happened, and the folder always holds something whole."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from configs.run_checkpoints import step_of, unfinished
from glm.checkpoint import writer
from glm.checkpoint.folder import newest_good
from tests.helpers.checkpoints import NUM_RANKS, save, write_files
from tests.helpers.distributed import Ranks, run_distributed
from tests.helpers.savers import (
    check_content,
    fake_saver,
    save_step,
    session_of,
    steps_in,
)


def save_many(rank: int, world_size: int, checkpoints: Path) -> list[list[int]]:
    saver = fake_saver(
        rank, checkpoints, "checkpoint.keep_last=2", "checkpoint.keep_every_samples=40"
    )
    seen = []
    for step in range(1, 11):
        outcome = save_step(saver, step)
        assert outcome.error is None
        check_content(outcome.folder, seed=step)
        seen.append(steps_in(checkpoints))
        dist.barrier()
    assert saver.take_blocked_seconds() > 0
    assert saver.take_blocked_seconds() == 0
    return seen


def test_retention_keeps_the_last_ones_and_the_milestones(tmp_path: Path) -> None:
    write_files(
        tmp_path, 3, seed=9, attempt="dead0000"
    )  # a killed attempt, of the same and other ranks
    (tmp_path / "step_00000003" / "rank00007-dead0000.safetensors").write_bytes(b"xx")
    write_files(tmp_path, 77, seed=9, attempt="dead0000")
    seen = run_distributed(save_many, NUM_RANKS, tmp_path)[0]
    assert seen == [
        [1],
        [2, 1],
        [3, 2],
        [4, 3],
        [5, 4],
        [6, 5, 4],
        [7, 6, 4],
        [8, 7, 4],
        [9, 8, 4],
        [10, 9, 8, 4],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest",
        *(f"step_{step:08d}" for step in (4, 8, 9, 10)),
    ]
    assert (tmp_path / "latest").read_text() == "step_00000010\n"


def save_on_a_full_disk(
    rank: int, world_size: int, checkpoints: Path, full_rank: int, call: str
) -> tuple[str | None, list[int]]:
    saver = fake_saver(rank, checkpoints, "checkpoint.keep_last=2")
    assert save_step(saver, 1).error is None
    with pytest.MonkeyPatch.context() as patch:
        if rank == full_rank:

            def refuse(*arguments: Any) -> None:
                if call == "fsync" or "manifest" in str(arguments[1]):
                    raise OSError(errno.ENOSPC, "No space left on device")
                os.rename(*arguments)

            patch.setattr(writer.os, call, refuse)
        error = save_step(saver, 2).error
    dist.barrier()
    steps = steps_in(checkpoints)
    files = list(checkpoints.glob("step_00000002/*"))
    assert files == [], "a save that was given up takes no room"
    dist.barrier()
    outcome = save_step(saver, 3)
    assert outcome.error is None
    check_content(outcome.folder, seed=3)
    return error, steps


@pytest.mark.parametrize("full_rank, call", [(1, "fsync"), (0, "fsync"), (0, "replace")])
def test_a_disk_full_on_one_rank_is_one_message_on_all(
    tmp_path: Path, full_rank: int, call: str
) -> None:
    results = run_distributed(save_on_a_full_disk, NUM_RANKS, tmp_path, full_rank, call)
    errors = {error for error, _ in results}
    assert len(errors) == 1
    message = errors.pop()
    assert message is not None and "No space left on device" in message
    assert call == "replace" or f"rank {full_rank}: pp 0, dp {full_rank}" in message
    assert all(steps == [1] for _, steps in results)
    assert steps_in(tmp_path) == [3, 1]
    assert not (tmp_path / "step_00000002").exists()


def save_twice(rank: int, world_size: int, checkpoints: Path) -> list[Path]:
    saver = fake_saver(rank, checkpoints)
    unfinished_then: list[Path] = []
    pieces = saver._state.pieces

    def look_around() -> list[writer.Piece]:
        unfinished_then.extend(unfinished(checkpoints))
        return pieces()

    saver._state.pieces = look_around
    save_step(saver, 2)
    dist.barrier()
    save_step(saver, 2)
    return [path for path in unfinished_then if step_of(path) != 2]


def test_leftovers_make_room_before_a_save_and_a_step_can_be_saved_again(tmp_path: Path) -> None:
    write_files(tmp_path, 99, seed=9, attempt="dead0000")
    assert run_distributed(save_twice, NUM_RANKS, tmp_path) == [[]] * NUM_RANKS
    folder = tmp_path / "step_00000002"
    check_content(folder, seed=2)
    assert len(list(folder.iterdir())) == NUM_RANKS + 1


def set_back(rank: int, world_size: int, checkpoints: Path) -> None:
    saver = fake_saver(rank, checkpoints, "checkpoint.keep_last=3")
    for step in (1, 3, 4):
        save_step(saver, step)
    # Another attempt begins after step 1.
    saver = fake_saver(rank, checkpoints, "checkpoint.keep_last=3")
    save_step(saver, 2)


def test_a_run_that_was_set_back_does_not_return_to_its_previous_future(tmp_path: Path) -> None:
    run_distributed(set_back, NUM_RANKS, tmp_path)
    assert steps_in(tmp_path) == [2, 1]
    assert not (tmp_path / "step_00000004").exists()


def choose_together(rank: int, world_size: int, checkpoints: Path) -> tuple[Path | None, list[str]]:
    from train.checkpoint import newest_good_together

    reports: list[str] = []
    return newest_good_together([checkpoints], session_of(rank), reports.append), reports


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_ranks_verify_together_and_choose_the_same(tmp_path: Path, damaged: int) -> None:
    good, bad = save(tmp_path, 1, seed=1), save(tmp_path, 2, seed=2)
    file = sorted(bad.glob("*.safetensors"))[damaged]  # each rank verifies another one
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    results = run_distributed(choose_together, NUM_RANKS, tmp_path)
    assert [chosen for chosen, _ in results] == [good] * NUM_RANKS
    assert file.name in results[0][1][0]
    assert [len(reports) for _, reports in results] == [1, 0, 0]


def die_while_saving(rank: int, world_size: int, checkpoints: Path, deadly_call: int) -> None:
    saver = fake_saver(rank, checkpoints)
    save_step(saver, 1)
    calls = [0]
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def step(*arguments: Any, original: Any = original) -> Any:
            calls[0] += 1
            if calls[0] == deadly_call:
                os._exit(9)
            return original(*arguments)

        setattr(writer.os, name, step)
    save_step(saver, 2)


@pytest.mark.parametrize("deadly_call", [1, 2, 3, 5, 7, 8])
def test_a_rank_that_dies_while_saving_costs_only_this_save(
    tmp_path: Path, deadly_call: int
) -> None:
    # The others lose their peer and end too; what counts is what the next attempt finds.
    ranks = Ranks(die_while_saving, NUM_RANKS, tmp_path, deadly_call)
    try:
        ranks.wait(30)
    finally:
        ranks.kill_all()
    good = newest_good([tmp_path], lambda _: None)
    assert good is not None
    check_content(good, seed=step_of(good))
