"""Under torchrun: a rank that dies starts the group again, and a mistake of the user's does not."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.whole_runs import command, compared, live, torchrun


@contextlib.contextmanager
def launched(
    overrides: tuple[str, ...], ranks: int, max_restarts: int
) -> Iterator[subprocess.Popen[str]]:
    """A torchrun whose words arrive on standard error. Whatever fails, it is ended."""
    launcher = torchrun(overrides, ranks, max_restarts)
    try:
        yield launcher
    finally:
        launcher.kill()
        launcher.communicate()


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Process ids of the ranks that a torchrun has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"train" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


def test_a_killed_rank_starts_the_group_again_and_nothing_is_lost(tmp_path: Path) -> None:
    overrides = command(tmp_path, "parallel.tp=2", "checkpoint.save_every_samples=16")
    assert live(2, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0, 0]
    run = tmp_path / "run"
    with launched((*overrides, f"run.dir={run}"), 2, 2) as launcher:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
            assert launcher.poll() is None, launcher.communicate()[1]
            time.sleep(0.02)
        os.kill(ranks_of(launcher)[1], signal.SIGKILL)
        _, said = launcher.communicate(timeout=180)
    assert launcher.returncode == 0, said
    assert len(list((run / "generations").iterdir())) == 2
    assert compared(run) == compared(tmp_path / "whole")


@pytest.mark.parametrize("mistake", ["data.paths=missing.txt", "optim.learning_rate=1"])
def test_a_mistake_is_told_once_and_not_tried_again(mistake: str, tmp_path: Path) -> None:
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", mistake)
    with launched(overrides, 2, 100) as launcher:
        _, said = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    told = (
        "does not exist" if mistake.startswith("data") else 'There is no key "optim.learning_rate"'
    )
    assert said.count(told) == 1
