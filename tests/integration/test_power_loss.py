"""metrics.jsonl is as safe as the checkpoints that rely on it: power fails, or its disk fills up before theirs does."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

from configs.run_checkpoints import committed, step_of
from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command, compared, metrics, run_attempt

SAVES = ("checkpoint.save_every_samples=16",)


def is_metrics(descriptor: int) -> bool:
    return os.readlink(f"/proc/self/fd/{descriptor}").endswith("metrics.jsonl")


def attempt_without_power(
    rank: int, world_size: int, overrides: tuple[str, ...], safe: Path
) -> None:
    """An attempt that is killed right after its second commit; `safe` gets what a power failure leaves of its lines."""
    from train.checkpoint.store import CheckpointStore
    from train.main import cli

    fsync, commit = os.fsync, CheckpointStore.commit
    num_commits = 0

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        if is_metrics(descriptor):
            safe.write_bytes(Path(f"/proc/self/fd/{descriptor}").read_bytes())

    def commit_and_die(*arguments: Any) -> None:
        nonlocal num_commits
        commit(*arguments)
        num_commits += 1
        if num_commits == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = recorded
    CheckpointStore.commit = commit_and_die
    os._exit(cli(list(overrides)))


def test_a_checkpoint_that_survives_a_power_failure_has_its_lines(tmp_path: Path) -> None:
    overrides = command(tmp_path, *SAVES)
    assert run_attempt(1, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0]
    run, safe = tmp_path / "run", tmp_path / "safe.jsonl"
    overrides = (*overrides, f"run.dir={run}")
    assert Ranks(attempt_without_power, 1, overrides, safe).wait(120) == [-signal.SIGKILL]
    (run / "metrics.jsonl").write_bytes(safe.read_bytes() if safe.exists() else b"")
    assert run_attempt(1, overrides) == [0]
    assert compared(run) == compared(tmp_path / "whole")


def attempt_without_room(rank: int, world_size: int, overrides: tuple[str, ...]) -> None:
    """An attempt whose metrics.jsonl takes no line after a while, as if its disk were full and the others not."""
    from train.main import cli

    write = os.write
    num_lines = 0

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal num_lines
        if is_metrics(descriptor):
            num_lines += 1
            if num_lines > 7:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    os.write = limited
    os._exit(cli(list(overrides)))


def test_no_place_gets_a_checkpoint_whose_lines_wait_for_room(tmp_path: Path) -> None:
    overrides = command(tmp_path, *SAVES, "checkpoint.keep_last=9", "checkpoint.copy_keep_last=9")
    assert run_attempt(1, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0]
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    overrides = (*overrides, f"run.dir={run}", f"checkpoint.copy_to={elsewhere}")
    assert Ranks(attempt_without_room, 1, overrides).wait(120) == [2]
    assert len(metrics(run)) == 7
    for checkpoints in (run / "checkpoints", *elsewhere.glob("*/checkpoints")):
        assert [step_of(folder) for folder in committed(checkpoints)] == [6, 4, 2]
    assert "metrics.jsonl: No space left on device" in (run / "log.txt").read_text()
    assert run_attempt(1, overrides) == [0]
    assert compared(run) == compared(tmp_path / "whole")
