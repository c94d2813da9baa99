"""The split of a stretch of time into parts, on clocks that the tests set."""

import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from train.observe import step_clock
from train.observe.step_clock import Entry, HostMoments, Pass, StepClock, timeline_of
from train.parts import PARTS, part


def split(
    entries: list[Entry], first: float, last: float, within: tuple[str, ...] = ()
) -> tuple[dict[str, float], list[Pass], list[str]]:
    timeline, goes_on = timeline_of(entries, first, last, first, within, HostMoments())
    return timeline.seconds, timeline.passes, goes_on


def test_a_moment_counts_for_the_innermost_part_alone() -> None:
    seconds, passes, goes_on = split(
        [
            ("forward", 11.0),
            ("communication", 13.0),  # a sum over tensor-parallel ranks
            (None, 17.0),
            (None, 18.0),
            ("backward", 20.0),
            (None, 29.0),
            ("logging", 31.0),
        ],
        10.0,
        33.0,
    )
    assert seconds == {
        "": 1 + 2 + 2,
        "forward": 2 + 1,
        "communication": 4,
        "backward": 9,
        "logging": 2,
    }
    assert sum(seconds.values()) == 33.0 - 10.0
    # A pass lasts as long as it has the stage, its waits included.
    assert passes == [Pass("forward", 1.0, 8.0), Pass("backward", 10.0, 19.0)]
    assert goes_on == ["logging"]


def test_what_had_begun_before_goes_on() -> None:
    seconds, _, goes_on = split([(None, 3.0), ("data", 4.0), (None, 6.0)], 0.0, 7.0, ("logging",))
    assert seconds == {"logging": 3.0, "": 1 + 1, "data": 2.0}
    assert goes_on == []


@pytest.mark.parametrize("outer", ["evaluation", "checkpoint", "logging", "bubble", "data"])
def test_passes_and_waits_of_an_evaluation_are_the_evaluation(outer: str) -> None:
    entries: list[Entry] = [
        (outer, 1.0),
        ("forward", 2.0),
        ("communication", 3.0),
        (None, 4.0),
        (None, 5.0),
        (None, 6.0),
    ]
    seconds, passes, _ = split(entries, 0.0, 8.0)
    assert seconds == {"": 3.0, outer: 5.0}
    assert not passes


def test_blanks_that_are_filled_for_the_log_are_an_evaluation() -> None:
    entries: list[Entry] = [
        ("logging", 1.0),
        ("evaluation", 3.0),
        ("forward", 4.0),
        (None, 6.0),
        (None, 7.0),
        (None, 8.0),
    ]
    seconds, _, _ = split(entries, 0.0, 8.0)
    assert seconds == {"": 1.0, "logging": 2.0 + 1.0, "evaluation": 4.0}


@given(st.lists(st.tuples(st.sampled_from((*PARTS, None)), st.integers(0, 9))))
def test_the_parts_add_up_to_the_whole(steps: list[tuple[str | None, int]]) -> None:
    now, entries = 0.0, []
    for name, passed in steps:
        now += passed
        entries.append((name, now))
    seconds, _, _ = split(entries, 0.0, now + 1)
    assert sum(seconds.values()) == now + 1


def test_each_lap_begins_where_the_one_before_has_ended() -> None:
    clock = StepClock(torch.device("cpu"))
    started = time.perf_counter()
    clock.start()
    begun = time.perf_counter()
    with part("logging"):
        first = clock.lap()
        between = time.perf_counter()
    with part("forward"):
        pass
    second = clock.lap()
    ended = time.perf_counter()
    clock.stop()
    total = sum(first.seconds.values()) + sum(second.seconds.values())
    # The first lap ends before `between`, and the second one begins at the same moment.
    assert ended - started > total > between - begun
    assert [each.kind for each in second.passes] == ["forward"]
    assert second.seconds["logging"] > 0
    assert not clock.is_running


def test_on_cuda_the_stream_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for the device, whose clock is advanced by hand; operations run on the stream of the computation."""
    now = SimpleNamespace(seconds=0.0)

    class Events:
        def mark(self) -> float:
            return now.seconds

        def seconds(self, first: float, last: float) -> float:
            return last - first

    class Work:
        def wait(self) -> None:
            now.seconds += 5.0

    class Group:
        def allreduce(self) -> Work:
            now.seconds += 10.0
            return Work()

    monkeypatch.setattr(step_clock, "GpuEvents", Events)
    monkeypatch.setattr("train.waits._OPERATIONS", ("allreduce",))
    monkeypatch.setattr(dist, "Work", Work)
    monkeypatch.setattr(dist, "ProcessGroup", Group)
    clock = StepClock(torch.device("cuda"))
    clock.start()
    now.seconds += 1.0
    with part("backward"):
        now.seconds += 2.0
        Group().allreduce().wait()
    with part("bubble"):
        now.seconds += 3.0
        Group().allreduce()
    timeline = clock.lap()
    clock.stop()
    assert timeline.seconds == {"": 1.0, "backward": 2.0, "communication": 15.0, "bubble": 13.0}
    assert timeline.passes == [Pass("backward", 1.0, 18.0)]
    Group().allreduce().wait()
    assert clock._entries == []
