"""`python -m train` as a command whose output goes through a pipe: what it leaves when it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.places import ROOT
from tests.helpers.wandb_files import read
from tests.helpers.whole_runs import command, metrics


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    return subprocess.run(
        [sys.executable, "-m", "train", *overrides],
        cwd=ROOT,
        env={**environment, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )


def test_a_stopped_and_a_finished_run_leave_everything(tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(tmp_path, f"run.dir={run}", "log.wandb=offline", "optim.total_samples=24")
    stopped = train(tmp_path, *overrides, "run.stop_after_samples=16")
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stdout.splitlines()[-1].endswith(f"continues from {run}")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"

    finished = train(tmp_path, *overrides)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].strip().startswith("send wandb ")
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert [line["step"] for line in metrics(run)] == [1, 2, 3]
    assert (run / "checkpoints/step_00000003/manifest.json").exists()
    first, second = (read(path) for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")))
    assert first.has_ended and second.has_ended
    assert [[row["step"] for row in each.metrics] for each in (first, second)] == [[1, 2], [3]]


def test_a_mistake_is_told_and_ends_with_2(tmp_path: Path) -> None:
    done = train(tmp_path, "optim.lr=-1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("optim.lr (-1") and "Traceback" not in done.stderr
