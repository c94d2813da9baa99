"""Goodput: three attempts calculated by hand, and parts that always add up to the wall time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.run_files import Event
from train.report.columns import Columns
from train.report.goodput import IDLE, PARTS, Goodput, goodput
from train.report.goodput_panels import panels
from train.report.read import read_run

SAMPLES = 10
Events = list[tuple[Event, dict[str, Any]]]


def event(kind: str, time: float, **details: Any) -> tuple[Event, dict[str, Any]]:
    return Event(event=kind, time=time), details


def line(step: int, seconds: float, skipped: int = 0, **more: float) -> dict[str, Any]:
    return {
        "step": step,
        "samples_seen": SAMPLES * step,
        "tokens_seen": SAMPLES * step,
        "speed/seconds_per_step": seconds,
        "optim/skipped_steps": skipped,
        "speed/checkpoint_blocked_seconds": more.get("blocked", 0.0),
        "speed/evaluation_seconds": more.get("evaluation", 0.0),
    }


# A process that is killed after step 6; one that trains from the checkpoint of step 4 again, goes back from step 10 to
# step 6, and is asked to stop; one that ends the run.
EVENTS = [
    event("start", 110.0, samples_seen=0, attempt_start=100.0, world_size=2),
    event("checkpoint", 121.0, samples_seen=40),
    event(
        "resume",
        206.0,
        samples_seen=40,
        attempt_start=200.0,
        repeated_steps=[5, 6],
        repeated_samples=[40, 60],
        repeated_seconds=4.0,
    ),
    event("checkpoint", 212.0, samples_seen=60),
    event("rollback", 220.0, checkpoint_samples=60, found_samples=100),
    event(
        "resume",
        223.0,
        samples_seen=60,
        attempt_start=200.0,
        repeated_steps=[7, 10],
        repeated_samples=[60, 100],
        repeated_seconds=8.0,
    ),
    event("stop", 240.0, reason="time limit"),
    event("resume", 253.0, samples_seen=90, attempt_start=250.0),
    event("done", 260.0, samples_seen=110),
]
LINES = [
    *(line(step, 2.0) for step in (1, 2, 3)),
    line(4, 2.0, evaluation=1.0),
    line(5, 2.0),
    line(6, 2.0),
    line(7, 3.0, blocked=0.5),
    line(8, 3.0, skipped=1),  # left out
    line(9, 3.0, skipped=1),
    line(10, 2.0, skipped=1),
    line(11, 2.0, skipped=1),
]
# Seconds of each attempt, in the order of PARTS: productive, evaluation, checkpoint, left out, rolled back, repeated,
# start-up, other.
BY_HAND = [
    [
        8.0,
        1.0,
        0.0,
        0.0,
        0.0,
        4.0,
        10.0,
        0.0,
    ],  # 100 to 123: its last event is at 121, but its steps took 13 from 110 on
    [
        10.0,
        0.0,
        0.5,
        3.0,
        11.0,
        0.0,
        6.0,
        9.5,
    ],  # 200 to 240; going back took 3 s beside the 8 of the steps
    [4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 3.0],  # 250 to 260
]


def calculated(
    events: Events, lines: list[dict[str, Any]], times: tuple[float, ...] = ()
) -> Goodput:
    found = goodput(events, Columns(lines), times)
    assert found is not None
    return found


def test_three_attempts_by_hand() -> None:
    found = calculated(EVENTS, LINES)
    assert [list(each.parts.values()) for each in found.attempts] == BY_HAND
    assert [each.idle_before for each in found.attempts] == [0.0, 77.0, 10.0]
    assert found.seconds == 160.0
    assert found.parts["productive"] == 22.0 and found.parts[IDLE] == 87.0
    assert found.share == 22 / 160
    assert [each.attempt.ending for each in found.attempts] == ["", "stop: time limit", "done"]


def test_an_error_of_a_later_start_is_no_record_of_the_attempt_before() -> None:
    failed = event("error", 190.0, message="The device is gone.")
    events = [*EVENTS[:2], failed, *EVENTS[2:]]
    # A process took hold of the run at 185 and failed before it trained.
    found = calculated(events, LINES, (99.0, 185.0, 199.0))
    assert list(found.attempts[0].parts.values()) == BY_HAND[0]
    assert found.attempts[0].attempt.ending == ""
    # Without that process it is the first one's own end.
    own = calculated(events, LINES, (99.0, 199.0)).attempts[0]
    assert (own.seconds, own.parts["other"]) == (90.0, 67.0)
    assert own.attempt.ending == "error: The device is gone."


def test_a_checkpoint_that_failed_does_not_end_an_attempt() -> None:
    failed = event("error", 121.0, message="checkpoint step_00000004: No space left on device")
    found = calculated([EVENTS[0], failed, *EVENTS[2:]], LINES)
    assert found.attempts[0].attempt.ending == ""
    assert found.attempts[0].attempt.end == 123.0


def test_a_process_that_was_cut_off_trained_in_vain_from_the_next_start_on() -> None:
    events = [
        event("start", 10.0, samples_seen=0, attempt_start=0.0),
        event(
            "start",
            30.0,
            samples_seen=0,
            attempt_start=20.0,
            repeated_samples=[0, 50],
            repeated_seconds=40.0,
        ),
        event("done", 50.0, samples_seen=50),
    ]
    found = calculated(events, [line(step, 2.0) for step in range(1, 6)])
    first, second = found.attempts
    assert (first.attempt.end, first.parts["repeated"], first.parts["start_up"]) == (
        20.0,
        10.0,
        10.0,
    )
    assert (second.parts["productive"], second.idle_before) == (10.0, 0.0)


def test_steps_that_two_attempts_had_trained_are_divided_by_their_samples() -> None:
    events = [
        event("start", 0.0, samples_seen=0, attempt_start=0.0),
        event("resume", 100.0, samples_seen=40, attempt_start=100.0),
        event(
            "resume",
            200.0,
            samples_seen=20,
            attempt_start=200.0,
            repeated_samples=[20, 100],
            repeated_seconds=16.0,
        ),
        event("done", 300.0, samples_seen=100),
    ]
    found = calculated(events, [line(step, 2.0) for step in range(1, 11)])
    assert [each.parts["repeated"] for each in found.attempts] == [4.0, 12.0, 0.0]
    assert [each.parts["productive"] for each in found.attempts] == [4.0, 0.0, 16.0]


def test_a_run_without_a_start_has_none() -> None:
    assert goodput([event("checkpoint", 1.0, samples_seen=1)], Columns(LINES)) is None


COUNTS = st.integers(0, 200)
SECONDS = st.floats(0, 1e4, allow_nan=False)
ANY_EVENT = st.one_of(
    st.builds(
        lambda kind, time, seen, begun, first, last, seconds: event(
            kind,
            time,
            samples_seen=seen,
            attempt_start=begun,
            repeated_samples=[first, last],
            repeated_seconds=seconds,
        ),
        st.sampled_from(["start", "resume"]),
        SECONDS,
        COUNTS,
        st.none() | st.sampled_from([0.0, 500.0, 1000.0]),
        COUNTS,
        COUNTS,
        SECONDS,
    ),
    st.builds(
        lambda kind, time: event(kind, time, message="x", reason="y"),
        st.sampled_from(["rollback", "checkpoint", "stop", "done", "error", "hang", "skip"]),
        SECONDS,
    ),
)


@given(
    st.lists(ANY_EVENT, max_size=12),
    st.lists(st.tuples(SECONDS, st.booleans(), SECONDS, SECONDS), max_size=20),
    st.lists(SECONDS, max_size=3),
)
def test_parts_add_up_to_the_wall_time_whatever_the_events(
    events: Events, steps: list[tuple[float, bool, float, float]], times: list[float]
) -> None:
    lines, skipped = [], 0
    for step, (seconds, is_left_out, blocked, evaluation) in enumerate(steps, start=1):
        skipped += is_left_out
        lines.append(line(step, seconds, skipped, blocked=blocked, evaluation=evaluation))
    found = goodput(events, Columns(lines), times)
    if found is None:
        assert not any(each.event in ("start", "resume") for each, _ in events)
        return
    near = {"rel": 1e-9, "abs": 1e-6}
    assert list(found.parts) == [*PARTS, IDLE]
    assert all(seconds >= -1e-9 for seconds in found.parts.values())
    assert sum(found.parts.values()) == pytest.approx(found.seconds, **near)
    assert found.share is None or 0 <= found.share <= 1 + 1e-9
    for each in found.attempts:
        assert sum(each.parts.values()) == pytest.approx(each.seconds, **near)
    for one, next_one in zip(found.attempts, found.attempts[1:], strict=False):
        assert next_one.attempt.begin == pytest.approx(
            one.attempt.end + next_one.idle_before, **near
        )


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 12), st.booleans()), min_size=1, max_size=6
    ),
    st.floats(0.5, 3),
)
def test_what_is_repeated_is_what_the_attempts_trained_beyond_the_history(
    attempts: list[tuple[int, int, bool]], step_seconds: float
) -> None:
    """Attempts that train some steps, of which the next one keeps some; nothing else takes time."""
    events, lines, now = list[tuple[Event, dict[str, Any]]](), list[dict[str, Any]](), 0.0
    trained = cut_seconds = 0.0
    for count, kept, says_so in attempts:
        position, cut = min(kept, len(lines)), lines[min(kept, len(lines)) :]
        details: dict[str, Any] = {"samples_seen": SAMPLES * position, "attempt_start": now}
        if cut:
            details["repeated_samples"] = [SAMPLES * position, SAMPLES * len(lines)]
            details["repeated_seconds"] = sum(each["speed/seconds_per_step"] for each in cut)
            cut_seconds += details["repeated_seconds"]
        events.append(event("resume" if position else "start", now, **details))
        lines = [*lines[:position], *(line(position + 1 + n, step_seconds) for n in range(count))]
        now += count * step_seconds
        trained += count * step_seconds
        if says_so:
            events.append(event("stop", now, reason="asked"))
    found = calculated(events, lines)
    assert found.seconds == pytest.approx(trained)
    assert found.parts["repeated"] == pytest.approx(cut_seconds)
    assert found.parts["productive"] == pytest.approx(len(lines) * step_seconds)
    assert found.parts[IDLE] == pytest.approx(0, abs=1e-9)


def test_the_panel_shows_every_attempt_and_the_sum(tmp_path: Path) -> None:
    run = tmp_path / "three"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in LINES))
    (run / "events.jsonl").write_text(
        "".join(
            json.dumps({"event": each.event, "time": each.time, **details}) + "\n"
            for each, details in EVENTS
        )
    )
    (panel,) = panels([read_run(run)])
    assert panel.title == "Goodput 13.8 %"
    assert [each["parts"] for each in panel.data["attempts"]] == BY_HAND
    assert [(each["from"], each["to"]) for each in panel.data["attempts"]] == [
        (0, 60),
        (40, 90),
        (90, 110),
    ]
    named = {part["name"]: part["seconds"] for part in panel.data["parts"]}
    assert sum(named.values()) == panel.data["seconds"] == 160.0
    assert len(panel.rows) == 4 and all(len(row) == len(panel.columns) for row in panel.rows)
    assert panel.rows[1][:6] == [2, "1970-01-01 00:03:20", None, 40, 90, "stop: time limit"]
    assert panel.rows[3][6] == 160.0 and panel.rows[3][7] == 13.75
