"""The goodput of a real run: its parts are the times that its own files hold."""

import itertools
import json
from pathlib import Path

import pytest

from tests.helpers.poison import run_poisoned
from tests.helpers.whole_runs import command, metrics, run_attempt
from train.report.rank_map import panels
from train.report.read import read_run

STOPPED = 75


def test_repeated_steps_of_a_real_run_are_lost_time(tmp_path: Path) -> None:
    words = command(
        tmp_path,
        "run.name=lost",
        f"run.dir={tmp_path / 'lost'}",
        "checkpoint.save_every_samples=16",
        "eval.every_samples=32",
        "parallel.tp=1",
    )
    run = tmp_path / "lost"
    assert run_attempt(2, (*words, "run.stop_after_samples=32")) == [STOPPED, STOPPED]
    before = metrics(run)
    oldest = sorted((run / "checkpoints").glob("step_*"))[0]
    again = (*words, f"checkpoint.resume={oldest}", "run.stop_after_samples=64")
    assert run_attempt(2, again) == [STOPPED, STOPPED]
    after = metrics(run)

    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    begun = [event for event in events if event["event"] in ("start", "resume")]
    assert [event["nodes"][0][1:] for event in begun] == [[0, 2], [0, 2]]
    assert begun[0]["attempt_start"] < begun[0]["time"] < begun[1]["attempt_start"]

    evaluations = [line["speed/evaluation_seconds"] for line in after]
    assert all(
        (seconds > 0) == (line["valid/loss"] is not None)
        for seconds, line in zip(evaluations, after, strict=True)
    )
    assert any(evaluations)

    first_again = begun[1]["repeated_steps"][0]
    found = read_run(run).goodput
    assert found is not None
    one, two = found.attempts
    lost = sum(line["speed/seconds_per_step"] for line in before if line["step"] >= first_again)
    assert lost > 0
    assert found.parts["repeated"] == one.parts["repeated"] == pytest.approx(lost)
    kept = sum(line["speed/seconds_per_step"] for line in after)
    assert found.parts["productive"] == pytest.approx(kept)
    assert found.parts["evaluation"] == pytest.approx(sum(evaluations))
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert all(each.parts["start_up"] > 0 for each in found.attempts)
    assert one.attempt.ending.startswith("stop") and two.idle_before > 0
    assert (
        list(itertools.chain.from_iterable(panel.rows for panel in panels([read_run(run)])))[0][1]
        == "0 to 1"
    )


def test_what_a_real_rollback_takes_out_is_lost_within_its_attempt(tmp_path: Path) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    words = command(
        tmp_path,
        f"run.dir={run}",
        "stability.on_spike=rollback",
        "stability.spike_steps=[3,5]",
        "stability.skip_steps=5",
        "stability.rollback_samples=80",
        "optim.lr=3e-3",
        "optim.total_samples=240",
        "checkpoint.save_every_samples=32",
        "eval.every_samples=1000",
    )
    assert run_poisoned(1, words, errors, [(160, 200)]) == [0], errors.read_text()
    kept = (run / "rolled_back" / "rollback_1_metrics.jsonl").read_text().splitlines()
    cut = sum(json.loads(line)["speed/seconds_per_step"] for line in kept)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    decided, resumed = (
        next(event["time"] for event in events if event["event"] == kind)
        for kind in ("rollback", "resume")
    )
    found = read_run(run).goodput
    assert found is not None and len(found.attempts) == 1
    assert found.parts["rollback"] == pytest.approx(cut + resumed - decided)
    assert found.parts["repeated"] == 0
    kept_now = sum(line["speed/seconds_per_step"] for line in metrics(run))
    assert found.parts["productive"] == pytest.approx(kept_now)
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert found.attempts[0].attempt.ending == "done"
