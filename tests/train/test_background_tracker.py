"""A tracker in a thread: what blocks, fails or cannot be made there neither stops nor delays the caller."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from train.background_tracker import BackgroundTracker
from train.trackers import Tracker


class Slow(Tracker):
    """Takes nothing until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.is_busy = threading.Event()
        self.taken: list[Any] = []

    def _take(self, what: Any) -> None:
        self.is_busy.set()
        assert self.may_go_on.wait(60)
        self.taken.append(what)

    def log_metrics(self, line: dict[str, Any]) -> None:
        self._take(line["step"])

    def log_details(self, line: dict[str, Any]) -> None:
        self._take(("details", line))

    def log_samples(self, line: dict[str, Any]) -> None:
        self._take(("samples", line))

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        self._take((folder, samples_seen))

    def alert(self, title: str, text: str) -> None:
        self._take((title, text))

    def sync(self) -> None:
        self._take("sync")

    def close(self) -> None:
        self._take("close")


@pytest.fixture
def slow() -> Iterator[Slow]:
    tracker = Slow()
    yield tracker
    tracker.may_go_on.set()


def test_calls_arrive_in_order_and_none_waits(slow: Slow) -> None:
    said: list[str] = []
    tracker = BackgroundTracker("it", lambda _: slow, said.append)
    # All of these return, although the thread is blocked in the first.
    tracker.log_metrics({"step": 1})
    assert slow.is_busy.wait(60)
    tracker.log_details({"a": 1})
    tracker.log_samples({"b": 2})
    tracker.log_checkpoint(Path("x"), 8)
    tracker.alert("Spike", "it spikes")
    tracker.sync()
    assert slow.taken == []
    slow.may_go_on.set()
    tracker.close()
    tracker.close()
    assert slow.taken == [
        *(1, ("details", {"a": 1}), ("samples", {"b": 2}), (Path("x"), 8)),
        *(("Spike", "it spikes"), "sync", "close"),
    ]
    assert said == []


def test_what_finds_no_room_is_counted_and_said_once(slow: Slow) -> None:
    said: list[str] = []
    tracker = BackgroundTracker("it", lambda _: slow, said.append, capacity=2)
    tracker.log_metrics({"step": 1})
    assert slow.is_busy.wait(60)
    for step in range(2, 8):
        tracker.log_metrics({"step": step})
    assert said == [
        "it does not keep up: what comes now is left out there. The run folder has all of it."
    ]
    slow.may_go_on.set()
    tracker.close()
    assert slow.taken == [1, 2, 3, "close"]
    assert said[1:] == ["it lacks 4 records of this attempt."]


@pytest.mark.parametrize("capacity", [1, 10])
def test_the_end_does_not_wait_for_what_hangs(slow: Slow, capacity: int) -> None:
    said: list[str] = []
    abandoned: list[bool] = []
    tracker = BackgroundTracker(
        "it", lambda _: slow, said.append, lambda: abandoned.append(True), 0.05, capacity
    )
    tracker.log_metrics({"step": 1})
    assert slow.is_busy.wait(60)
    tracker.log_metrics({"step": 2})
    tracker.close()
    assert slow.taken == [] and abandoned == [True]
    assert said == [
        "it has not taken everything 0.05 seconds after the end, and is not waited for; the run folder has all of it."
    ]


def test_a_tracker_that_is_not_made_in_time_is_not_waited_for() -> None:
    may_go_on = threading.Event()

    def make(_: Any) -> Tracker:
        may_go_on.wait(60)
        return Tracker()

    said: list[str] = []
    tracker = BackgroundTracker("it", make, said.append, None, 0.05)
    tracker.log_metrics({"step": 1})
    tracker.close()
    may_go_on.set()
    assert len(said) == 1 and "not waited for" in said[0]


def test_a_failure_is_said_once_and_ends_what_was_started() -> None:
    class Failing(Tracker):
        def log_metrics(self, line: dict[str, Any]) -> None:
            raise OSError("no room\nat all")

    said: list[str] = []
    abandoned: list[bool] = []
    for make in (lambda _: Failing(), None):
        tracker = BackgroundTracker(
            "it", make or _absent, said.append, lambda: abandoned.append(True), capacity=3
        )
        for step in range(10):  # more than there is room for
            tracker.log_metrics({"step": step})
            tracker._has_failed.wait(60)
        tracker.close()
    assert said == [
        "it failed (no room); training goes on without it.",
        "it failed (No module named 'absent'); training goes on without it.",
    ]
    assert abandoned == [True, True]


def _absent(_: Any) -> Tracker:
    raise ModuleNotFoundError("No module named 'absent'")


def test_sentences_are_said_by_the_caller_in_its_own_thread() -> None:
    threads: list[tuple[str, threading.Thread]] = []
    has_spoken = threading.Event()

    def make(say: Any) -> Tracker:
        say("hello")
        has_spoken.set()
        return Tracker()

    tracker = BackgroundTracker(
        "it", make, lambda text: threads.append((text, threading.current_thread()))
    )
    assert has_spoken.wait(60)
    assert threads == []
    tracker.log_metrics({"step": 1})
    assert threads == [("hello", threading.current_thread())]
    tracker.close()
