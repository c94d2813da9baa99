"""A disk without room stops the saves, never the training, and says so: for real, in whole runs."""

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command, compared, run_attempt

OVERRIDES = ("checkpoint.save_every_samples=16",)


def attempt_with_small_files(
    rank: int, world_size: int, overrides: tuple[str, ...], limit: int, errors: Path
) -> None:
    """An attempt in which no file may become larger than `limit` bytes."""
    from train.main import cli

    with errors.open("a") as file, open(os.devnull, "w") as quiet:
        os.dup2(file.fileno(), 2)
        os.dup2(quiet.fileno(), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os._exit(cli(list(overrides)))


def events_of(run: Path, kind: str) -> list[dict[str, object]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


@pytest.mark.parametrize("layout", [(), ("parallel.tp=2",)], ids=["one rank", "two ranks"])
def test_files_that_may_not_grow_stop_every_save_and_no_step(
    tmp_path: Path, layout: tuple[str, ...]
) -> None:
    world_size = 2 if layout else 1
    overrides = command(tmp_path, *OVERRIDES, *layout)
    assert (
        run_attempt(world_size, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0] * world_size
    )
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    limited = (*overrides, f"run.dir={run}")
    ranks = Ranks(attempt_with_small_files, world_size, limited, 100_000, errors)
    try:
        codes = ranks.wait(120)
    finally:
        ranks.kill_all()
    assert codes == [2] * world_size, errors.read_text()
    assert compared(run) == compared(tmp_path / "whole"), "every step was trained"
    message = errors.read_text()
    assert "The last checkpoint was not written" in message and "File too large" in message
    assert "Traceback" not in message
    assert len(events_of(run, "error")) > 3 and events_of(run, "checkpoint") == []
    assert "was not written" in (run / "log.txt").read_text()
    assert list((run / "checkpoints").glob("*/*")) == [], "what was given up takes no room"
    # With room again, the same command completes the run.
    assert run_attempt(world_size, limited) == [0] * world_size
    assert compared(run) == compared(tmp_path / "whole")
    assert events_of(run, "checkpoint")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_keeps_its_last_checkpoint_and_the_run_goes_on(
    tmp_path: Path, small_disk: Path
) -> None:
    overrides = (*command(tmp_path, *OVERRIDES), "checkpoint.keep_last=100")
    assert run_attempt(1, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0]
    run, errors = small_disk / "run", tmp_path / "errors.txt"
    assert run_attempt(1, (*overrides, f"run.dir={run}"), errors=errors) == [2]
    assert "No space left on device" in errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert compared(run) == compared(tmp_path / "whole"), "every step was trained, every line kept"
    assert 1 <= len(events_of(run, "checkpoint")) < len(events_of(run, "error")) + 3
    # Room is made; the same command continues from the last good one.
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    assert run_attempt(1, (*overrides, f"run.dir={run}")) == [0]
    assert compared(run) == compared(tmp_path / "whole")
