"""Which checkpoint a diverged run can go back to."""

import json
import math
from collections.abc import Sequence

import pytest

from train.checkpoint.health import Health, HealthWatch


def follow(
    watch: HealthWatch, losses: Sequence[float | None], step: int, skipped: bool = False
) -> Health:
    """Train, then save at `step`."""
    for loss in losses:
        watch.observe(loss, was_skipped=skipped)
    health = watch.at_save(step)
    watch.settle(was_written=True)
    return health


def test_a_checkpoint_is_healthy_once_training_went_on_well_to_the_next() -> None:
    watch = HealthWatch(Health(), None, margin=0.5)
    assert follow(watch, [5.0, 4.8], 2).healthy_step is None
    assert follow(watch, [4.6, 4.5], 4).healthy_step == 2
    assert follow(watch, [4.4, 4.7], 6).healthy_step == 4


@pytest.mark.parametrize(
    "losses, skipped",
    [([math.nan, 4.0], False), ([math.inf], False), ([9.0, 9.5], False), ([4.0], True)],
    ids=["nan", "inf", "diverged", "skipped"],
)
def test_after_things_went_wrong_the_last_good_one_stays_known(
    losses: list[float], skipped: bool
) -> None:
    watch = HealthWatch(Health(), None, margin=0.5)
    for step in (2, 4, 6):
        follow(watch, [4.5], step)
    for step in (8, 10, 12):
        assert follow(watch, losses, step, skipped).healthy_step == 4
    # And when it recovers, the checkpoint from which it went on well is the one to go back to.
    assert follow(watch, [4.4], 14).healthy_step == 12


def test_a_loss_that_rises_little_by_little_is_measured_against_the_last_good_stretch() -> None:
    watch = HealthWatch(Health(), None, margin=0.5)
    follow(watch, [4.0], 1)
    assert follow(watch, [4.4], 2).healthy_step == 1
    assert follow(watch, [4.8], 3).healthy_step == 2
    assert follow(watch, [5.4], 4).healthy_step == 2


def test_a_step_without_targets_is_neither_good_nor_bad() -> None:
    watch = HealthWatch(Health(), None, margin=0.5)
    follow(watch, [4.0], 1)
    # It does not lower the mean: 4.4, 4.8 and 5.5 are what was trained, and 5.5 is too much after 4.8.
    assert follow(watch, [None, 4.4, None], 2) == Health(healthy_step=1, mean_loss=4.4)
    assert follow(watch, [None, 4.8], 3) == Health(healthy_step=2, mean_loss=4.8)
    assert follow(watch, [None, 5.5], 4).healthy_step == 2
    # A stretch of nothing else says nothing of the checkpoint before it; one that was skipped went wrong.
    assert follow(watch, [None, None], 5) == Health(healthy_step=2, mean_loss=4.8)
    assert follow(watch, [4.6], 6).healthy_step == 5
    assert follow(watch, [None, 4.6], 7, skipped=True).healthy_step == 5


def test_what_is_known_outlasts_the_process() -> None:
    straight = HealthWatch(Health(), None, margin=0.5)
    known = [follow(straight, [loss], step) for step, loss in enumerate([4.0, 3.9, 9.0, 3.8, 3.7])]
    for stop in range(1, 5):
        watch = HealthWatch(Health(), None, margin=0.5)
        for step, loss in enumerate([4.0, 3.9, 9.0, 3.8, 3.7]):
            if step == stop:
                stored = json.loads(json.dumps(known[step - 1].to_dict()))
                watch = HealthWatch(Health.from_dict(stored), step - 1, margin=0.5)
            assert follow(watch, [loss], step) == known[step]


def test_a_save_that_failed_is_no_checkpoint_to_go_back_to() -> None:
    watch = HealthWatch(Health(), None, margin=0.5)
    follow(watch, [4.0], 1)
    watch.observe(math.nan, was_skipped=False)
    watch.at_save(2)
    watch.observe(4.0, was_skipped=False)
    watch.settle(was_written=False)
    # The stretch since step 1 holds the bad loss.
    assert follow(watch, [4.0], 3).healthy_step is None
    assert follow(watch, [4.0], 4).healthy_step == 3


@pytest.mark.parametrize(
    "stored", [None, 3, {}, {"healthy_step": "x"}, {"healthy_step": True, "mean_loss": math.nan}]
)
def test_what_is_no_such_thing_knows_nothing(stored: object) -> None:
    assert Health.from_dict(stored) == Health()
