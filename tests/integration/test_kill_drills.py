"""Kill -9 of random ranks at random moments of every phase of one long run, which always continues.

Long: run it with  pytest -m slow tests/integration/test_kill_drills.py -s  ; docs/reliability.md reports what it printed.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from configs.run_checkpoints import committed
from tests.helpers.distributed import Ranks
from tests.helpers.faults import PHASES, Fault, attempt_in_phases, lines_of, usual_seconds
from tests.helpers.whole_runs import command, compared, metrics

OVERRIDES = (
    "model.hidden_dropout=0.1",
    "optim.micro_batch_size=1",
    "optim.total_samples=3200",
    "checkpoint.save_every_samples=16",
    "checkpoint.keep_every_samples=400",
    "eval.every_samples=40",
)
# An attempt that was not killed where it should have been is killed wherever it is by then.
LONGEST_ATTEMPT_SECONDS = 120
# So often may a phase have come before the one in which the kill falls.
LATEST_OCCURRENCE = {"step": 6, "copy": 3, "write": 3, "commit": 3, "clean": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout, world_size, num_kills", [("tp2 x pp2", 4, 100), ("tp2 x pp2 x dp2", 8, len(PHASES))]
)
def test_kills_in_every_phase_leave_the_metrics_of_an_undisturbed_run(
    layout: str, world_size: int, num_kills: int, tmp_path: Path
) -> None:
    overrides = command(tmp_path, *OVERRIDES, "parallel.tp=2", "parallel.pp=2")
    if num_kills < 50:
        overrides = (*overrides, "optim.total_samples=640")
    whole, durations = tmp_path / "whole", tmp_path / "durations"
    ranks = Ranks(
        attempt_in_phases, world_size, (*overrides, f"run.dir={whole}"), -1, None, durations
    )
    assert ranks.wait(1800) == [0] * world_size
    expected = compared(whole)
    usual = usual_seconds(durations)

    chance = random.Random(20220506)
    run, record = tmp_path / "run", tmp_path / "record"
    overrides = (*overrides, f"run.dir={run}")
    started = time.monotonic()
    late = 0
    order = list(PHASES)
    for number in range(num_kills):
        phase = order[number % len(order)]
        if phase == "load" and not committed(run / "checkpoints"):
            phase = "step"
        owner, _ = PHASES[phase]
        victim = chance.randrange(world_size) if owner is None else owner
        occurrence = chance.randint(1, LATEST_OCCURRENCE.get(phase, 1))
        delay = chance.random() * usual.get(phase, 1.0)
        fault = Fault(phase, occurrence, delay, record)
        ranks = Ranks(attempt_in_phases, world_size, overrides, victim, fault, None)
        process = ranks.processes[victim]
        process.join(LONGEST_ATTEMPT_SECONDS)
        if process.is_alive():
            late += 1
            process.kill()
        process.join()
        ranks.wait(1)  # some of the others notice; a launcher ends what is left
        ranks.kill_all()
        assert process.exitcode == -9, f"kill {number} in {phase}: it ended with {process.exitcode}"
    kills = Counter(str(line["phase"]) for line in lines_of(record))
    steps_when_killed_last = len(metrics(run))
    ranks = Ranks(attempt_in_phases, world_size, overrides, -1, None, None)
    assert ranks.wait(1800) == [0] * world_size
    sys.stderr.write(
        f"\n{layout}: {num_kills} kills in {time.monotonic() - started:.0f} s, {late} of them late, the last after "
        f"{steps_when_killed_last} of {len(expected)} steps; by phase {dict(kills)}\n"
    )
    assert compared(run) == expected
    assert sum(kills.values()) + late == num_kills
    assert set(kills) == set(PHASES), "a phase was never hit"
