"""A run goes on with another number of replicas where it fits the batches still to come, and only there."""

import json
from pathlib import Path

import pytest

from tests.helpers.whole_runs import command, compared, metrics, run_attempt

# Batches of 4, 8, then 12 samples: three replicas fit only the last.
RAMP = (
    "optim.micro_batch_size=1",
    "optim.global_batch_size=12",
    "optim.batch_ramp.start=4",
    "optim.batch_ramp.increment=4",
    "optim.batch_ramp.samples=24",
)


def test_a_ramp_that_is_over_does_not_bind_the_number_of_replicas(tmp_path: Path) -> None:
    overrides = command(tmp_path, *RAMP)
    assert run_attempt(2, (*overrides, f"run.dir={tmp_path / 'whole'}")) == [0, 0]
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    overrides = (*overrides, f"run.dir={run}")

    # A new run is asked about all its batches, before anything is made.
    assert run_attempt(3, overrides, errors=errors) == [2, 2, 2]
    assert "(4) must be a multiple of" in errors.read_text() and not run.exists()

    # During the ramp only what is still to come counts; it does not fit yet.
    assert run_attempt(2, (*overrides, "run.stop_after_samples=12")) == [75, 75]
    errors.unlink()
    assert run_attempt(3, overrides, errors=errors) == [2, 2, 2]
    message = errors.read_text()
    assert message.count("\n") == 1, "only rank 0 reports"
    assert "A batch size of optim.batch_ramp (8) still to come after 12 samples must be" in message
    assert "Data-parallel sizes that work for the rest of the ramp: 1, 2, 4." in message

    assert run_attempt(2, (*overrides, "run.stop_after_samples=24")) == [75, 75]
    assert run_attempt(3, overrides) == [0, 0, 0]
    whole = compared(tmp_path / "whole")
    assert [line["samples_seen"] for line in metrics(run)] == [
        line["samples_seen"] for line in whole
    ]
    for line, expected in zip(compared(run), whole, strict=True):
        assert line["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5), line["step"]


def test_the_position_of_a_refused_start_is_that_of_its_checkpoint(tmp_path: Path) -> None:
    overrides = command(tmp_path, *RAMP, f"run.dir={tmp_path / 'run'}")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=12")) == [75]
    status = tmp_path / "run" / "status.json"
    # The nodes were chosen by this number; but its checkpoint is gone.
    status.write_text(json.dumps({**json.loads(status.read_text()), "samples_seen": 48}))
    assert run_attempt(3, overrides) == [2, 2, 2]
    assert json.loads(status.read_text())["samples_seen"] == 12
