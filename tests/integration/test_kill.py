"""Kill -9 at any moment: the same command again, and the metrics are those of an undisturbed run, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.whole_runs import command, compared, live, start, torchrun

NUM_KILLS = 10
# For what takes seconds on a machine that does nothing else.
PATIENCE_SECONDS = 400
# Dropout and a batch ramp on; 20 steps, evaluated every 4th or so, saved every 2nd or so.
OVERRIDES = (
    "model.hidden_dropout=0.1",
    "model.attention_dropout=0.1",
    "optim.micro_batch_size=1",
    "optim.batch_ramp.start=4",
    "optim.batch_ramp.increment=2",
    "optim.batch_ramp.samples=40",
    "optim.total_samples=96",
    "checkpoint.save_every_samples=10",
    "eval.every_samples=24",
    "stability.embedding_shrink=[[0,0.1],[100,1.0]]",
)


@pytest.mark.parametrize(
    "layout", [(), ("parallel.tp=2", "parallel.pp=2")], ids=["one process", "tp 2 x pp 2"]
)
def test_ten_kills_leave_the_metrics_of_an_undisturbed_run(
    tmp_path: Path, layout: tuple[str, ...]
) -> None:
    world_size = 4 if layout else 1
    overrides = command(tmp_path, *OVERRIDES, *layout)
    started = time.monotonic()
    whole = (*overrides, f"run.dir={tmp_path / 'whole'}")
    assert live(world_size, whole, PATIENCE_SECONDS) == [0] * world_size
    lifetime = time.monotonic() - started
    expected = compared(tmp_path / "whole")
    assert len(expected) >= 12
    assert sum(line["valid/loss"] is not None for line in expected) >= 4

    chance = random.Random(20220506)
    kills, attempts, interrupted = 0, 0, 0
    while kills < NUM_KILLS or not interrupted:
        attempts += 1
        run = tmp_path / f"killed-{attempts}"
        # Preparing the data is part of what is killed.
        killed = (*overrides, f"run.dir={run}", f"data.cache_dir={tmp_path / f'cache-{attempts}'}")
        is_finished = False
        while not is_finished:
            ranks = start(world_size, killed)
            # Spread over the whole life: start-up, training, saves, evaluation, the end.
            deadline = time.monotonic() + lifetime * chance.random() * 1.05
            while time.monotonic() < deadline and any(p.is_alive() for p in ranks.processes):
                time.sleep(0.01)
            victim = chance.choice(ranks.processes)
            if victim.is_alive() and (kills < NUM_KILLS or not interrupted):
                os.kill(victim.pid, signal.SIGKILL)
                kills += 1
                interrupted += bool((run / "metrics.jsonl").exists())
                if not interrupted:
                    lifetime *= 1.2  # the machine is busier than it was: training begins later
                ranks.wait(5)  # the others notice; a launcher would end what is left
                ranks.kill_all()
            else:
                codes = ranks.wait(PATIENCE_SECONDS)
                ranks.kill_all()
                assert codes == [0] * world_size
                is_finished = True
        assert compared(run) == expected


def test_a_killed_launcher_takes_its_ranks_along_and_the_run_goes_on(tmp_path: Path) -> None:
    overrides = command(tmp_path, *OVERRIDES, "parallel.tp=2", "parallel.pp=2")
    assert live(4, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0] * 4
    run = tmp_path / "launched"
    process = torchrun((*overrides, f"run.dir={run}"), 4)
    checkpoints = run / "checkpoints" / "latest"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not checkpoints.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert checkpoints.exists(), "it never came to a checkpoint"
    process.kill()
    process.wait()
    # The ranks must be gone: otherwise the next life would find the run in use.
    codes = live(4, (*overrides, f"run.dir={run}"), PATIENCE_SECONDS)
    assert codes == [0] * 4
    assert compared(run) == compared(tmp_path / "whole")


@pytest.mark.slow
def test_ten_kills_of_the_launcher_leave_the_metrics_of_an_undisturbed_run(tmp_path: Path) -> None:
    overrides = command(tmp_path, *OVERRIDES, "parallel.tp=2", "parallel.pp=2")
    started = time.monotonic()
    assert torchrun((*overrides, f"run.dir={tmp_path / 'whole'}"), 4).wait(PATIENCE_SECONDS) == 0
    lifetime = time.monotonic() - started
    expected = compared(tmp_path / "whole")

    chance = random.Random(1306)
    run = tmp_path / "killed-0"
    kills, finished, interrupted = 0, 0, 0
    while kills < NUM_KILLS:
        process = torchrun((*overrides, f"run.dir={run}"), 4)
        try:
            code = process.wait(lifetime * chance.random() * 1.05)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            interrupted += (run / "metrics.jsonl").exists()
        else:
            assert code == 0
            assert compared(run) == expected
            finished += 1
            run = tmp_path / f"killed-{finished}"
    assert interrupted > 0, "no kill fell into training"
    assert torchrun((*overrides, f"run.dir={run}"), 4).wait(PATIENCE_SECONDS) == 0
    assert compared(run) == expected
    sys.stderr.write(f"\n{kills} launchers killed, {interrupted} of them while or after training\n")
