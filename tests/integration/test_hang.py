"""A rank that hangs, or is stopped: every rank leaves its stacks and ends, and the run goes on as if nothing was."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command, compared, run_attempt

WORLD_SIZE = 4
HANGS_AT_CALL = 5


def hang_for_ever() -> None:
    while True:
        time.sleep(1)


def attempt_that_hangs(rank: int, world_size: int, overrides: tuple[str, ...], victim: int) -> None:
    """An attempt in which one rank hangs in a step, or is stopped there (victim + world size)."""
    from train import watchdog
    from train.engine.pipeline import PipelineEngine
    from train.main import cli

    watchdog._GRACE_SECONDS = 4.0  # half of the limit is enough for stacks on this disk
    train_step, calls = PipelineEngine.train_step, 0

    def slow_step(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == HANGS_AT_CALL and rank == victim:
            hang_for_ever()
        if calls == HANGS_AT_CALL and rank + world_size == victim:
            os.kill(os.getpid(), signal.SIGSTOP)
        return train_step(*arguments)  # pyright: ignore

    PipelineEngine.train_step = slow_step  # pyright: ignore
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    os._exit(cli(list(overrides)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an undisturbed run."""
    folder = tmp_path_factory.mktemp("hang")
    assert (
        run_attempt(WORLD_SIZE, (*overrides_of(folder), f"run.dir={folder / 'whole'}")) == [0] * 4
    )
    return folder


def overrides_of(folder: Path) -> tuple[str, ...]:
    layout = ("parallel.tp=2", "parallel.pp=2", "checkpoint.save_every_samples=16")
    return command(folder, *layout, "stability.watchdog_seconds=8")


@pytest.mark.parametrize("victim", [2, 0 + WORLD_SIZE], ids=["rank 2 hangs", "rank 0 is stopped"])
def test_all_ranks_leave_their_stacks_and_the_run_goes_on(victim: int, folder: Path) -> None:
    run = folder / f"run-{victim}"
    overrides = (*overrides_of(folder), f"run.dir={run}")
    ranks = Ranks(attempt_that_hangs, WORLD_SIZE, overrides, victim)
    stopped = victim - WORLD_SIZE
    for rank, process in enumerate(ranks.processes):
        if rank != stopped:
            process.join(120)
    if stopped >= 0:
        os.kill(ranks.processes[stopped].pid, signal.SIGCONT)
    codes = ranks.wait(60)
    ranks.kill_all()
    assert codes == [3] * WORLD_SIZE
    stacks = {path.name: path.read_text() for path in sorted((run / "stacks").iterdir())}
    assert list(stacks) == [f"rank{rank:05d}.txt" for rank in range(WORLD_SIZE)]
    for rank, text in enumerate(stacks.values()):
        assert f"[rank {rank}] the step after 32 samples did not end" in text
    if stopped < 0:
        assert "in hang_for_ever" in stacks["rank00002.txt"]
        # One that reaches its own limit late may find first that its peers have ended, and then says where it found so.
        assert any("in train_step" in stacks[f"rank{rank:05d}.txt"] for rank in (0, 1, 3))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert any("did not end" in event["message"] for event in events if event["event"] == "hang")
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert run_attempt(WORLD_SIZE, overrides) == [0] * WORLD_SIZE
    assert compared(run) == compared(folder / "whole")
