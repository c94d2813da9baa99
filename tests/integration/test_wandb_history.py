"""A run of three attempts - killed, resumed, rolled back, killed, resumed - as wandb's offline records have it.

They are read in the order of the attempts. Whatever a kill costs, the last row of each step is that of metrics.jsonl.
"""

import functools
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.interventions import read_interventions
from tests.helpers.poison import run_poisoned
from tests.helpers.wandb_files import Recorded, as_sent, attempts, read, service_processes
from tests.helpers.whole_runs import command, metrics

BATCH, STEPS = 8, 40
# Steps 21 to 25 of the data stream, found after three of them.
POISON = [(160, 200)]
SETTINGS = (
    "log.wandb=offline",
    "stability.on_spike=rollback",
    "stability.spike_steps=[3,5]",
    "stability.skip_steps=5",
    "stability.rollback_samples=80",
    "optim.lr=3e-3",
    f"optim.total_samples={BATCH * STEPS}",
    "checkpoint.save_every_samples=32",
    "checkpoint.keep_last=2",
    "eval.every_samples=64",
)
# Steps after which the first and the second attempt are killed, two behind a checkpoint.
KILLED_AFTER = (14, 34)
PATIENCE_SECONDS = 120


def be_patient(rank: int) -> None:
    """Wait longer for wandb at the end than training does: on a busy machine it takes long, and here its record counts."""
    import train.remote_trackers

    train.remote_trackers._CLOSE_OFFLINE_SECONDS = PATIENCE_SECONDS


def kill_after(rank: int, step: int, run: Path) -> None:
    """Kill this process and wandb's after a step, once wandb has written that step down."""
    from train.metrics_file import JsonlTracker

    log = JsonlTracker.log_metrics

    def logged(tracker: JsonlTracker, line: dict[str, Any]) -> None:
        if line["step"] != step + 1:
            log(tracker, line)
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while step not in steps_of_the_newest(run):
            assert time.monotonic() < deadline, "wandb has not recorded it"
            time.sleep(0.05)
        for process in service_processes():
            os.kill(process, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    JsonlTracker.log_metrics = logged  # type: ignore[method-assign]


def steps_of_the_newest(run: Path) -> list[int]:
    files = list(run.glob("wandb/offline-run-*/run-*.wandb"))
    return [row["step"] for row in read(max(files)).metrics] if files else []


def cut_off(run: Path, steps_back: int) -> None:
    """Take the last rows out of the newest file: what wandb had not written when it was killed."""
    path = max(run.glob("wandb/offline-run-*/run-*.wandb"))
    content, whole = path.read_bytes(), steps_of_the_newest(run)
    while len(steps_of_the_newest(run)) > len(whole) - steps_back:
        content = content[:-100]
        path.write_bytes(content)


def three_attempts(folder: Path, steps_back: int = 0) -> Path:
    """Run the attempts; what the killed ones have recorded of the last steps is lost."""
    run, errors = folder / "run", folder / "errors.txt"
    words = (*command(folder, *SETTINGS), f"run.dir={run}")
    changed = ((), ("optim.weight_decay=0.05",), ("optim.weight_decay=0.05", "optim.lr=2e-3"))
    for step, more in zip(KILLED_AFTER, changed[:2], strict=True):
        kill = functools.partial(kill_after, step=step, run=run)
        codes = run_poisoned(1, (*words, *more), errors, POISON, kill)
        assert codes == [-signal.SIGKILL], errors.read_text()
        cut_off(run, steps_back)
    assert run_poisoned(1, (*words, *changed[2]), errors, POISON, be_patient) == [0], (
        errors.read_text()
    )
    assert len(read_interventions(run).rollbacks) == 1
    return run


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def last_rows(recorded: list[Recorded]) -> list[dict[str, Any]]:
    """The last row of each step, in the order of the steps."""
    rows = {row["step"]: row for each in recorded for row in each.metrics}
    return [rows[step] for step in sorted(rows)]


def test_three_attempts_are_one_history(tmp_path: Path) -> None:
    run = three_attempts(tmp_path)
    recorded = attempts(run)
    assert len(recorded) == 3
    assert [each.exit_code for each in recorded] == [None, None, 0]
    assert last_rows(recorded) == [as_sent(line) for line in metrics(run)]
    assert [line["step"] for line in metrics(run)] == list(range(1, STEPS + 1))

    # One run.
    assert {name for each in recorded for name in each.run_ids} == {
        (run / "wandb" / "run_id.txt").read_text().strip()
    }

    # What is there more than once are the steps that were trained again, which the events name.
    times = Counter(row["step"] for each in recorded for row in each.metrics)
    again = Counter(
        step
        for event in events(run, "resume")
        for step in range(event["repeated_steps"][0], event["repeated_steps"][1] + 1)
    )
    (rollback,) = events(run, "rollback")
    cut = range(rollback["checkpoint_step"] + 1, rollback["found_step"] + 1)
    assert set(cut) <= set(again) and len(events(run, "resume")) == 3
    assert {step: count - 1 for step, count in times.items() if count > 1} == dict(again)

    # The configuration of each attempt, and what each resume has changed.
    keys = ("optim.weight_decay", "optim.lr")
    assert [[each.config[key] for key in keys] for each in recorded] == [
        [0.1, 3e-3],
        [0.05, 3e-3],
        [0.05, 2e-3],
    ]
    first, second = (event["changes"] for event in events(run, "config_change"))
    assert first == ["optim.weight_decay: 0.1 -> 0.05"]
    assert "optim.lr: 0.003 -> 0.002" in second
    positions = [event["samples_seen"] for event in events(run, "resume")]
    assert [each.config["config_changes"] for each in recorded] == [
        [],
        [f"after {positions[0]} samples: {each}" for each in first],
        [f"after {positions[0]} samples: {each}" for each in first]
        + [f"after {positions[-1]} samples: {each}" for each in second],
    ]

    # What people hear of, the checkpoints and the source.
    alerts = [title for each in recorded for title, _ in each.alerts]
    assert set(alerts) == {"Spike", "Rollback"} and alerts.count("Rollback") == 1
    assert all("source.txt" in each.files for each in recorded)
    last = recorded[-1].artifacts[-1]
    assert last.type == "model" and set(last.aliases) == {"latest", f"step_{STEPS:08d}"}


def fail_at(rank: int, where: str) -> None:
    """Make an attempt fail: in its last step, or behind it."""
    from train import run
    from train.metrics_file import JsonlTracker

    be_patient(rank)

    def fails(*_: object) -> None:
        raise ArithmeticError(where)

    log = JsonlTracker.log_metrics

    def logged(tracker: JsonlTracker, line: dict[str, Any]) -> None:
        (fails if line["step"] == 12 else log)(tracker, line)

    if where == "step":
        JsonlTracker.log_metrics = logged  # type: ignore[method-assign]
    else:
        setattr(run, where, fails)


@pytest.mark.parametrize("where", ["step", "_record_end", "show_what_was_learnt"])
def test_an_attempt_that_fails_anywhere_ends_as_a_failure_in_wandb(
    where: str, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    words = (*command(tmp_path, *SETTINGS, "optim.total_samples=96"), f"run.dir={run}")
    codes = run_poisoned(1, words, errors, [], functools.partial(fail_at, where=where))
    assert codes == [1] and where in errors.read_text()
    (recorded,) = attempts(run)
    assert recorded.exit_code == 1
    assert [row["step"] for row in recorded.metrics][-1] == (11 if where == "step" else 12)


def test_rows_that_a_kill_costs_are_reported_again(tmp_path: Path) -> None:
    run = three_attempts(tmp_path, steps_back=6)
    recorded = attempts(run)
    saved = [event["samples_seen"] // BATCH for event in events(run, "resume")]
    first, second, _ = ([row["step"] for row in each.metrics] for each in recorded)
    assert set(range(1, saved[0] + 1)) - set(first), "nothing was lost"
    # The second attempt has lost rows of the history after the rollback; those from before it are there.
    lost = set(range(second[-1] + 1, saved[-1] + 1))
    assert lost, "nothing was lost"
    assert last_rows(recorded) == [as_sent(line) for line in metrics(run)]


@pytest.mark.parametrize("lacks", ["all", "some"])
def test_a_run_that_turns_wandb_on_later_has_its_whole_history_there(
    lacks: str, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    words = (*command(tmp_path, *SETTINGS, "optim.total_samples=96"), f"run.dir={run}")
    first = "log.wandb=off" if lacks == "all" else "log.wandb=offline"
    stop = "run.stop_after_samples=64"
    assert run_poisoned(1, (*words, first, stop), errors, [], be_patient) == [75], (
        errors.read_text()
    )
    if lacks == "some":  # a block in the middle of the file is damaged
        (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert run_poisoned(1, words, errors, [], be_patient) == [0], errors.read_text()
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    steps = [row["step"] for row in read(files[-1]).metrics]
    lines = [as_sent(line) for line in metrics(run)]
    assert [row for row in read(files[-1]).metrics] == lines[12 - len(steps) :]
    assert len(steps) == 12 if lacks == "all" else 4 < len(steps) < 12
