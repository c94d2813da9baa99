"""Reading runs that train: again when files change, never two readings at once, never more than a share of the time."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from configs.errors import RunFolderError
from train.report import live
from train.report.live import SHORTEST_PAUSE, LiveReport


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    grow(folder, 1, 3)
    (folder / "status.json").write_text('{"state": "done"}')
    return folder


def grow(folder: Path, first: int, last: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            line = {"step": step, "samples_seen": 8 * step, "tokens_seen": step, "train/loss": 1.0}
            file.write(json.dumps(line) + "\n")


def step_of(report: LiveReport) -> int:
    return json.loads(report.snapshot().data)["runs"][0]["step"]


def test_what_was_read_is_kept_until_a_file_changes(run: Path) -> None:
    clock = Clock()
    report = LiveReport([run], clock=clock)
    first = report.snapshot()
    clock.now += SHORTEST_PAUSE
    assert report.snapshot() is first
    grow(run, 4, 5)
    assert step_of(report) == 5
    assert report.snapshot().tag != first.tag


def test_a_line_that_is_just_being_written_is_left_out(run: Path) -> None:
    clock = Clock()
    report = LiveReport([run], clock=clock)
    report.snapshot()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "samples_seen": 3')
    clock.now += SHORTEST_PAUSE
    assert step_of(report) == 3
    with (run / "metrics.jsonl").open("a") as file:
        file.write('2, "tokens_seen": 4, "train/loss": 0.5}\n')
    clock.now += SHORTEST_PAUSE
    assert step_of(report) == 4


def test_every_file_that_the_page_shows_counts(run: Path) -> None:
    clock = Clock()
    report = LiveReport([run], clock=clock)
    known = report.snapshot()
    for name in ("events.jsonl", "details.jsonl", "samples.jsonl", "config.yaml", "overrides.txt"):
        (run / name).write_text("")
        clock.now += SHORTEST_PAUSE
        assert report.snapshot() is not known, name
        known = report.snapshot()


def test_the_end_of_the_process_that_trains_counts(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    report = LiveReport([run], clock=clock)
    known = report.snapshot()
    monkeypatch.setattr(live, "shown_state", lambda folder: "interrupted")
    clock.now += SHORTEST_PAUSE
    assert report.snapshot() is not known


def test_a_long_reading_is_followed_by_a_longer_pause(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = Clock(), live.read_run

    def slowly(*arguments: Any) -> Any:
        clock.now += 5.0
        return read(*arguments)

    monkeypatch.setattr(live, "read_run", slowly)
    report = LiveReport([run], clock=clock)
    assert step_of(report) == 3
    grow(run, 4, 4)
    clock.now += 44.9
    assert step_of(report) == 3
    clock.now += 0.2
    assert step_of(report) == 4


def test_one_thread_reads_and_others_do_not_wait(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, read = Clock(), live.read_run
    report = LiveReport([run], clock=clock)
    report.snapshot()
    begun, may_go_on = threading.Event(), threading.Event()
    readings = []

    def held(*arguments: Any) -> Any:
        readings.append(arguments)
        begun.set()
        assert may_go_on.wait(30)
        return read(*arguments)

    monkeypatch.setattr(live, "read_run", held)
    grow(run, 4, 4)
    clock.now += SHORTEST_PAUSE
    found = list[int]()
    thread = threading.Thread(target=lambda: found.append(step_of(report)))
    thread.start()
    assert begun.wait(30)
    assert step_of(report) == 3  # at once, while the other reads
    may_go_on.set()
    thread.join(30)
    assert found == [4] and len(readings) == 1


def test_nothing_is_written(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run, *run.rglob("*"))}
    LiveReport([run]).snapshot()
    assert {path: path.stat().st_mtime_ns for path in (run, *run.rglob("*"))} == before


def test_a_run_that_cannot_be_read_is_said_each_time_and_a_remark_once(run: Path) -> None:
    clock, told = Clock(), list[str]()
    report = LiveReport([run], told.append, clock)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("damaged\n")
    report.snapshot()
    grow(run, 4, 4)
    clock.now += SHORTEST_PAUSE
    report.snapshot()
    assert len(told) == 1
    (run / "metrics.jsonl").write_text("")
    clock.now += SHORTEST_PAUSE
    with pytest.raises(RunFolderError):
        report.snapshot()
    grow(run, 1, 2)
    with pytest.raises(RunFolderError):  # a reading that failed is followed by the same rest
        report.snapshot()
    clock.now += SHORTEST_PAUSE
    assert step_of(report) == 2
