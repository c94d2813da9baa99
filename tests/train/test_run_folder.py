"""The run folder: who holds it, what it says, and what a start does to its metrics."""

import json
import os
import signal
from pathlib import Path

import pytest

from configs.errors import RunFolderError
from train.metrics import KEYS, metrics_line, to_json_value
from train.run_folder import RunFolder
from train.stop import StopSignal
from train.trackers import JsonlTracker, lines_up_to


def line(step: int) -> dict[str, object]:
    return metrics_line({"step": step, "train/loss": 1.0 / 3, "optim/grad_norm": float("inf")})


def test_the_status_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", 10, "training")

    def refuse(*_: object) -> None:
        raise OSError("the power failed")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        folder.write_status("done", 20, "all samples seen")
    status = folder.read_status()
    assert status is not None and (status["state"], status["samples_seen"]) == ("running", 10)


def test_every_line_has_the_same_keys_and_full_precision(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "metrics.jsonl", 0)
    tracker.log(line(1))
    tracker.close()
    stored = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert tuple(stored) == KEYS
    assert stored["train/loss"] == 1.0 / 3
    assert stored["optim/grad_norm"] == "inf"
    assert stored["valid/loss"] is None
    assert to_json_value(float("nan")) == "nan"


def test_a_start_keeps_the_lines_before_its_checkpoint_and_drops_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    former = JsonlTracker(path, 0)
    for step in (1, 2, 3):
        former.log(line(step))
    with path.open("a") as file:
        file.write('{"step": 4, "train/lo')
    again = JsonlTracker(path, 2)
    former.log(line(4))  # a life that was cut off writes into a file that nobody reads
    again.log(line(3))
    steps = [json.loads(text)["step"] for text in path.read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_missing_lines_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    JsonlTracker(path, 0).log(line(1))
    with pytest.raises(RunFolderError, match="lines for 1 of the 5 steps"):
        lines_up_to(path, 5)


def test_a_gap_is_a_bug(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "metrics.jsonl", 0)
    with pytest.raises(AssertionError):
        tracker.log(line(2))


def test_a_stop_is_asked_for_by_file_or_signal(tmp_path: Path) -> None:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    try:
        stop = StopSignal(tmp_path / "stop").install()
        assert stop.reason is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.reason == "SIGUSR1"
        other = StopSignal(tmp_path / "stop")
        (tmp_path / "stop").touch()
        assert other.reason is not None and "stop" in other.reason
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
