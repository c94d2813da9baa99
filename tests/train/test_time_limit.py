"""The time limit: known in advance, and enough time kept for a step and a save."""

import pytest

from configs.load import load_config
from train.time_limit import TimeLimit, deadline_of
from train.world import job_end


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def near_after(limit: TimeLimit, clock: Clock, step_seconds: float) -> bool:
    """One pass of the loop: its step, the question, and a second for the rest."""
    limit.begin_pass()
    clock.now += step_seconds
    is_near = limit.is_near
    clock.now += 1.0
    return is_near


def test_another_step_and_a_save_as_slow_as_the_slowest_must_fit() -> None:
    clock = Clock()
    limit = TimeLimit(1000.0 + 100.0, 5.0, clock)
    assert not near_after(limit, clock, 9.0)  # 9: another 9 + 5 (no save yet) + 5 end at 28
    limit.begin_save(2)
    assert not near_after(limit, clock, 19.0)  # at 29
    limit.end_save(2)  # 20 seconds after it began
    assert not near_after(limit, clock, 9.0)  # 39 + 20 (slowest pass) + 20 + 5 = 84
    assert not near_after(limit, clock, 9.0)  # 49: 94
    assert near_after(limit, clock, 9.0)  # 59: 104 is too late


def test_without_a_limit_it_never_comes() -> None:
    assert not TimeLimit(None, 60.0).is_near


def test_a_step_that_has_become_slow_counts_at_once() -> None:
    clock = Clock()
    limit = TimeLimit(1100.0, 1.0, clock)
    assert near_after(limit, clock, 50.0)


@pytest.mark.parametrize(
    "own, job, expected",
    [
        (None, None, None),
        ("01:00:00", None, 100.0 + 3600),
        ("01:00:00", 500.0, 500.0),
        (None, 500.0, 500.0),
        ("00:00:10", 500.0, 110.0),
        ("1-00:00:00", None, 100.0 + 86400),
    ],
)
def test_the_earlier_of_two_limits_counts(
    own: str | None, job: float | None, expected: float | None
) -> None:
    config = load_config([] if own is None else [f"run.time_limit={own}"])
    assert deadline_of(config, 100.0, job) == expected


def test_slurm_says_when_the_job_ends_or_when_it_began() -> None:
    assert job_end(60, {}) is None
    assert job_end(60, {"SLURM_JOB_START_TIME": "1000"}) == 1060.0
    assert job_end(60, {"SLURM_JOB_START_TIME": "1000", "SLURM_JOB_END_TIME": "1500"}) == 1500.0


def test_a_save_lasts_until_its_second_copy_is_there() -> None:
    clock = Clock()
    limit = TimeLimit(1000.0 + 100.0, 5.0, clock)
    limit.begin_save(1)
    clock.now += 2.0
    limit.end_save(1)
    clock.now += 28.0
    limit.end_save(1)  # the copy, 30 seconds after the save began
    assert not near_after(limit, clock, 9.0)  # at 39: 9 + 30 + 5 end at 83
    clock.now += 10.0
    limit.begin_save(2)
    limit.end_save(1)  # of an earlier save: not timed
    assert near_after(limit, clock, 9.0)  # at 59: 9 + 30 + 5 would end at 103 or later
