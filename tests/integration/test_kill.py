"""Kill -9 in any phase: the same command again, and the metrics are those of an undisturbed run, byte for byte."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.faults import PHASES, Fault, attempt_in_phases, lines_of, usual_seconds
from tests.helpers.whole_runs import command, compared, metrics, run_attempt, torchrun

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


LAYOUT = ("parallel.tp=2", "parallel.pp=2")
WORLD_SIZE = 4
# In this step of an attempt the kill falls; any other phase is killed when it comes for the first time.
KILLED_STEP = 2


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to.

    Attributes:
        metrics: its lines.
        seconds: usual duration of each phase.
    """

    metrics: list[dict[str, Any]]
    seconds: dict[str, float]


def undisturbed(folder: Path, world_size: int, *overrides: str) -> Undisturbed:
    """Train without a kill."""
    words = (*command(folder, *OVERRIDES, *overrides), f"run.dir={folder / 'whole'}")
    durations = folder / "durations"
    ranks = Ranks(attempt_in_phases, world_size, words, -1, None, durations)
    try:
        assert ranks.wait(PATIENCE_SECONDS) == [0] * world_size
    finally:
        ranks.kill_all()
    return Undisturbed(compared(folder / "whole"), usual_seconds(durations))


@pytest.fixture(scope="module")
def on_four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("whole"), WORLD_SIZE, *LAYOUT)


def check_kills(folder: Path, world_size: int, expected: Undisturbed, *overrides: str) -> None:
    """Kill one run in each phase, one attempt after the other, then let it end; one rank dies, the others are ended."""
    assert len(expected.metrics) >= 12
    assert sum(line["valid/loss"] is not None for line in expected.metrics) >= 4
    run, record = folder / "run", folder / "record"
    # Preparing the data is part of what is killed.
    words = (*command(folder, *OVERRIDES, *overrides), f"run.dir={run}")
    chance = random.Random(20220506)
    for phase, (owner, _) in PHASES.items():
        victim = chance.randrange(world_size) if owner is None else owner
        occurrence = KILLED_STEP if phase == "step" else 1
        delay = chance.random() * expected.seconds.get(phase, 1.0)
        fault = Fault(phase, occurrence, delay, record, is_now=True)
        ranks = Ranks(attempt_in_phases, world_size, words, victim, fault, None)
        try:
            ranks.processes[victim].join(PATIENCE_SECONDS)
            assert ranks.processes[victim].exitcode == -signal.SIGKILL, f"in {phase}"
            ranks.wait(1)  # some of the others notice; a launcher ends what is left
        finally:
            ranks.kill_all()
    assert [line["phase"] for line in lines_of(record)] == list(PHASES)
    assert 0 < len(metrics(run)) < len(expected.metrics), "the last kill came after the end"
    assert run_attempt(world_size, words, PATIENCE_SECONDS) == [0] * world_size
    assert compared(run) == expected.metrics


def test_kills_in_every_phase_leave_the_metrics_of_an_undisturbed_run_on_four_ranks(
    tmp_path: Path, on_four_ranks: Undisturbed
) -> None:
    check_kills(tmp_path, WORLD_SIZE, on_four_ranks, *LAYOUT)


def test_kills_in_every_phase_leave_the_metrics_of_an_undisturbed_run_in_one_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    check_kills(tmp_path, 1, undisturbed(tmp_path / "other", 1))


def test_a_killed_launcher_takes_its_ranks_along_and_the_run_goes_on(
    tmp_path: Path, on_four_ranks: Undisturbed
) -> None:
    run = tmp_path / "launched"
    overrides = (*command(tmp_path, *OVERRIDES, *LAYOUT), f"run.dir={run}")
    process = torchrun(overrides, WORLD_SIZE)
    checkpoints = run / "checkpoints" / "latest"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not checkpoints.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert checkpoints.exists(), "it never came to a checkpoint"
    process.kill()
    process.wait()
    # The ranks must be gone: otherwise the next attempt would find the run in use.
    assert run_attempt(WORLD_SIZE, overrides, PATIENCE_SECONDS) == [0] * WORLD_SIZE
    assert compared(run) == on_four_ranks.metrics


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
    while kills < 10:
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
