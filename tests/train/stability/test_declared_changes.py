"""Declared changes of a run reset what they move in the detector, and hide nothing else."""

from dataclasses import replace

import pytest

from tests.helpers.watched import (
    LAYERS,
    LOSSES,
    STEPS,
    alarms,
    batch,
    changed,
    data,
    detector,
    explosion,
    healthy,
    lossy,
    rate,
    shares,
    steep,
    step_of,
)
from train.stability.records import Kind, StepRecord

CHANGES = {"data": data, "shares": shares, "batch": batch, "rate": rate}
MOVES = {
    "data": {"loss", "gradient"},
    "shares": {"loss", "gradient"},
    "batch": {"gradient"},
    "rate": {"loss"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_declared_change_resets_what_it_moves_and_nothing_else(name: str) -> None:
    """Read off the state: the windows are empty, or as they were."""
    watching = detector()
    *records, last = healthy(STEPS + 1)
    for record in records:
        step_of(watching, record)
    before = watching.state()
    watching.declare(CHANGES[name](last, 0))
    after = watching.state()
    empty = {
        "loss": after["losses"]["num_values"] == [0] * len(LOSSES),
        "gradient": after["gradients"]["num_values"] == [0] * (2 + LAYERS),
    }
    assert {signal for signal, is_empty in empty.items() if is_empty} == MOVES[name]
    assert (after["losses"] == before["losses"]) == ("loss" not in MOVES[name])
    assert (after["drift"] == before["drift"]) == ("loss" not in MOVES[name])
    assert (after["gradients"] == before["gradients"]) == ("gradient" not in MOVES[name])


@pytest.mark.parametrize("name", CHANGES)
def test_a_declared_change_may_move_what_it_moves(name: str) -> None:
    """The loss by a third, the gradient by a factor of three; undeclared both are found."""
    moved, declared = MOVES[name], CHANGES[name]

    def change(each: StepRecord, since: int) -> StepRecord:
        each = lossy(each, 1.33) if "loss" in moved else each
        return steep(each, 3.0) if "gradient" in moved else each

    records = changed(healthy(2 * STEPS), STEPS + 1, change)
    assert {"loss" if alarm.goes_back else "gradient" for alarm in alarms(records)} == moved
    assert not alarms(changed(records, STEPS + 1, declared))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("since", [0, 4, 20])
def test_an_explosion_right_after_a_declared_change_is_found(name: str, since: int) -> None:
    records = changed(healthy(STEPS + 80), STEPS + 1, CHANGES[name])
    found = alarms(changed(records, STEPS + 1 + since, explosion))
    for kind in (Kind.gradient, Kind.loss):
        steps = [alarm.step - STEPS - since for alarm in found if alarm.kind is kind]
        assert steps and 0 < steps[0] <= 30, kind


def test_a_lower_rate_resets_nothing_so_that_a_spike_right_behind_it_is_found() -> None:
    """As after a rollback that lowered it, if that was not enough."""
    records = changed(
        healthy(STEPS + 30), STEPS + 1, lambda each, _: replace(each, learning_rate=2.5e-4)
    )
    spiky = changed(records, STEPS + 3, lambda each, _: lossy(each, 2.0))
    assert not alarms(records)
    assert [alarm.step for alarm in alarms(spiky) if alarm.signal == "loss"] == [STEPS + 14]


def test_a_slow_change_of_the_mixture_adds_up() -> None:
    """One percent a step, from half to none: each change alone is too small to count."""

    def ramp(each: StepRecord, since: int) -> StepRecord:
        text = max(0.5 - 0.01 * since, 0.0)
        moved = lossy(each, 1 + 0.005 * min(since, 50))
        return replace(moved, shares={"text": text, "code": 1 - text})

    records = changed(healthy(2 * STEPS), STEPS + 1, ramp)
    assert not [alarm for alarm in alarms(records) if alarm.goes_back]
    undeclared = [replace(each, shares=records[0].shares) for each in records]
    assert [alarm for alarm in alarms(undeclared) if alarm.goes_back]


def test_a_slow_change_of_the_rate_and_small_ones_reset_nothing() -> None:
    def little(each: StepRecord, since: int) -> StepRecord:
        return replace(
            each,
            learning_rate=each.learning_rate * 0.99**since,
            num_samples=64 + 4 * (since > 5),
            shares={"text": 0.52, "code": 0.48},
        )

    records = changed(healthy(STEPS + 200), STEPS + 1, little)
    watching = detector()
    for record in records:
        step_of(watching, record)
    assert min(watching.state()["losses"]["num_values"]) == STEPS + 200


def test_a_warm_up_resets_at_its_first_steps_only() -> None:
    """From 0; the rate doubles at step 3."""
    records = [
        replace(each, learning_rate=1e-3 * min(each.step - 1, 100) / 100) for each in healthy()
    ]
    watching = detector()
    for record in records:
        step_of(watching, record)
    assert watching.state()["losses"]["num_values"] == [STEPS - 2] * len(LOSSES)
