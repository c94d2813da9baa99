"""An earlier attempt that was cut off and comes back: it changes nothing, and ends."""

import json
import os
import signal
import time
from pathlib import Path

from configs.run_checkpoints import committed
from glm.checkpoint.reader import read_manifest
from tests.helpers.whole_runs import command, compared, run_attempt, start


def test_a_cut_off_attempt_comes_back_and_changes_nothing(tmp_path: Path) -> None:
    overrides = command(tmp_path, "checkpoint.save_every_samples=8", "checkpoint.keep_last=20")
    assert run_attempt(1, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0]
    run = tmp_path / "run"
    overrides = (*overrides, f"run.dir={run}")
    cut_off = start(1, overrides, SLURM_JOB_ID="7")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
        assert cut_off.processes[0].is_alive(), "it ended before its first checkpoint"
        time.sleep(0.01)
    pid = cut_off.processes[0].pid
    os.kill(pid, signal.SIGSTOP)
    # Its node answers no more: the scheduler requeues the job, and the new attempt does not wait.
    requeued = start(1, overrides, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    assert requeued.wait(120) == [0]
    state = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    os.kill(pid, signal.SIGCONT)
    assert cut_off.wait(120) == [3]
    later = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    changed = {path.relative_to(run).as_posix() for path in later if later[path] != state.get(path)}
    assert changed <= {"generations/000001"}, "its own last word is all it may write"
    assert compared(run) == compared(tmp_path / "whole")
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    found = [read_manifest(folder) for folder in committed(run / "checkpoints")]
    assert {manifest.generation for manifest in found} == {1, 2}
    takeover = min(manifest.step for manifest in found if manifest.generation == 2)
    assert all(manifest.step < takeover for manifest in found if manifest.generation == 1)
