"""A second copy that not all ranks see is refused at the start, and a disk that does not work is not."""

import os
from pathlib import Path

import pytest

from configs.errors import CheckpointError
from tests.helpers.checkpoints import NUM_RANKS
from tests.helpers.distributed import Ranks, run_distributed
from tests.helpers.savers import session_of
from tests.helpers.whole_runs import command


def ask(rank: int, world_size: int, disks: list[str | None]) -> str:
    from train.checkpoint import check_copy_is_shared, shared

    shared._PATIENCE_SECONDS = 0.0
    try:
        check_copy_is_shared(disks[rank], session_of(rank))
    except CheckpointError as error:
        return str(error).replace(str(disks[rank]), "DISK")
    return ""


def test_disks_of_their_own_are_refused_on_every_rank(tmp_path: Path) -> None:
    disks = [str(tmp_path / name) for name in ("node0", "node0", "node1")]
    (message, *others) = run_distributed(ask, NUM_RANKS, disks)
    assert others == [message] * (NUM_RANKS - 1)
    assert "checkpoint.copy_to (DISK)" in message and "1 of 3 do not see" in message
    assert "rank 2" in message and "checkpoint.copy_to=null" in message
    assert list(tmp_path.rglob(".seen-*")) == []


@pytest.mark.parametrize("disk", ["shared", "a file/below", None])
def test_one_disk_is_taken_and_a_broken_one_is_left_to_the_save(
    tmp_path: Path, disk: str | None
) -> None:
    (tmp_path / "a file").touch()
    disks = [None if disk is None else str(tmp_path / disk)] * NUM_RANKS
    assert run_distributed(ask, NUM_RANKS, disks) == [""] * NUM_RANKS
    assert list(tmp_path.rglob(".seen-*")) == []


def attempt_on_a_node_of_its_own(rank: int, world_size: int, overrides: tuple[str, ...]) -> None:
    from train.checkpoint import shared
    from train.main import cli

    if rank == 1:
        shared._sees = lambda path: False
    os._exit(cli(list(overrides)))


def test_a_run_is_refused_before_it_trains(tmp_path: Path) -> None:
    run = tmp_path / "run"
    copy_to = f"checkpoint.copy_to={tmp_path / 'disk'}"
    ranks = Ranks(attempt_on_a_node_of_its_own, 2, command(tmp_path, f"run.dir={run}", copy_to))
    try:
        assert ranks.wait(120) == [2, 2]
    finally:
        ranks.kill_all()
    assert not list(run.glob("checkpoints/step_*")) and not (run / "config.yaml").exists()
