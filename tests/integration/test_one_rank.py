"""What only one rank finds, that rank reports; after an error of a file system a launcher starts the run again."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command, compared, run_attempt


def attempt(
    rank: int, world_size: int, overrides: tuple[str, ...], fault: str, errors: Path
) -> None:
    """An attempt whose last rank meets a fault."""
    from train import run_folder
    from train.checkpoint import save_attempt
    from train.main import cli

    with errors.open("a") as file, open(os.devnull, "w") as quiet:
        os.dup2(file.fileno(), 2)
        os.dup2(quiet.fileno(), 1)
    run_folder._SHARED_MISTAKE_SECONDS = 1.0  # nobody else meets what is done here
    os.environ["SLURMD_NODENAME"] = f"node{rank}"
    if rank == world_size - 1:
        read, num_reads = os.pread, 0

        def faulty(*arguments: int) -> bytes:
            nonlocal num_reads
            num_reads += 1
            if num_reads < 40:
                return read(*arguments)
            if fault == "unreadable":
                raise OSError(errno.EIO, "Input/output error")
            return read(*arguments)[:-1]

        def refuse(*arguments: Any) -> None:
            raise OSError(errno.EIO, "Input/output error", str(arguments[0]))

        if fault in ("unreadable", "truncated"):
            os.pread = faulty
        if fault == "unwritable checkpoint":
            save_attempt.write_rank_file = refuse
        if fault == "unwritable copy":
            overrides = (*overrides, "data.local_copy=/proc/self/nowhere")
    os._exit(cli(list(overrides)))


@pytest.mark.parametrize(
    "fault, code, words",
    [
        ("truncated", 2, "ends at byte"),
        ("unwritable copy", 2, "/proc/self/nowhere"),
        ("unreadable", 3, "cannot be read: Input/output error"),
    ],
)
def test_the_rank_that_cannot_read_its_data_says_so(
    tmp_path: Path, fault: str, code: int, words: str
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    overrides = command(tmp_path, f"run.dir={run}", f"data.local_copy={tmp_path / 'copies'}")
    ranks = Ranks(attempt, 2, overrides, fault, errors)
    try:
        ranks.processes[1].join(120)
        assert ranks.processes[1].exitcode == code, errors.read_text()
        if fault != "unwritable copy":  # the other one still waits for its peer to come
            assert ranks.wait(120) == [3, code]
    finally:
        ranks.kill_all()
    (message,) = [line for line in errors.read_text().splitlines() if words in line]
    assert message.startswith("[rank 1 on node1] ")
    assert "Traceback" not in errors.read_text()


def test_a_mistake_that_all_ranks_find_is_reported_by_rank_0_alone(tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", "data.paths=missing.txt")
    assert run_attempt(2, overrides, errors=errors) == [2, 2]
    (message,) = errors.read_text().splitlines()
    assert "missing.txt does not exist" in message


def test_a_last_save_that_a_failing_disk_refuses_is_started_again(tmp_path: Path) -> None:
    overrides = command(tmp_path)
    assert run_attempt(1, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0]
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    overrides = (*overrides, f"run.dir={run}")
    assert Ranks(attempt, 1, overrides, "unwritable checkpoint", errors).wait(120) == [3]
    assert "The last checkpoint was not written" in errors.read_text()
    assert run_attempt(1, overrides) == [0]
    assert compared(run) == compared(tmp_path / "whole")
