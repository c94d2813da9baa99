"""A longer run: what becomes of its schedules is said before it happens, and a key keeps them."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import load_config
from configs.schema import BatchRampConfig, Config, Schedule
from train.plan import TrainingPlan
from train.schedule_changes import schedule_changes

BASE = load_config(["optim.lr=1e-2", "optim.micro_batch_size=2", "optim.global_batch_size=16"])
RAMP = BatchRampConfig(start=8, increment=8)


def run_of(total: int, **optim: Any) -> Config:
    """A run of so many samples."""
    return replace(BASE, optim=replace(BASE.optim, total_samples=total, **optim))


def test_a_jump_of_the_learning_rate_is_said_with_what_follows_and_with_the_key_that_keeps_it() -> (
    None
):
    assert schedule_changes(run_of(96), run_of(960), 96) == [
        "learning rate at sample 96: 1.00e-03 -> 1.00e-02 (it reaches 1.00e-03 at sample 960)",
        "to keep the schedules as they were: optim.schedule_samples=96",
    ]
    (line, _) = schedule_changes(run_of(96), run_of(9600), 96)
    assert "(warm-up ends at sample 960, it reaches" in line


def test_nothing_is_said_where_nothing_changes() -> None:
    kept = run_of(192, schedule_samples=96)
    assert schedule_changes(run_of(96), kept, 96) == []
    assert schedule_changes(kept, run_of(400, schedule_samples=96), 192) == []
    constant = Schedule.constant
    assert schedule_changes(run_of(96, schedule=constant), run_of(192, schedule=constant), 96) == []
    assert schedule_changes(run_of(96), run_of(9600), 0) == []


def test_every_schedule_that_jumps_is_said() -> None:
    longer = run_of(9600, batch_ramp=RAMP)
    longer.stability = replace(longer.stability, embedding_shrink=[[0, 0.5]])
    found = schedule_changes(run_of(960), longer, 64)
    assert any(line.startswith("batch size at sample 64: 16 -> 8 samples") for line in found)
    assert any(line.startswith("embedding shrink at sample 64: ") for line in found)


def test_a_later_end_of_the_decay_is_said_where_the_learning_rate_does_not_jump() -> None:
    wsd: dict[str, Any] = {"schedule": Schedule.wsd, "warmup_samples": 16}
    assert schedule_changes(run_of(96, **wsd), run_of(192, **wsd), 64) == [
        "learning rate at sample 64 stays 1.00e-02 (it reaches 1.00e-03 at sample 192)",
        "to keep the schedules as they were: optim.schedule_samples=96",
    ]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(Schedule), st.integers(64, 4000), st.integers(1, 5000), st.integers(0, 9000))
def test_schedules_of_the_previous_length_are_the_same_function(
    schedule: Schedule, length: int, more: int, samples_seen: int
) -> None:
    short = run_of(length, schedule=schedule, batch_ramp=RAMP)
    longer = run_of(length + more, schedule=schedule, batch_ramp=RAMP, schedule_samples=length)
    plans = [TrainingPlan.from_config(config) for config in (short, longer)]
    assert plans[0].step_at(samples_seen) == plans[1].step_at(samples_seen)
