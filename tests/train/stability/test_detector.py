"""The detector: what it finds in a run's records, what it takes for a change on purpose, and that it depends on them alone."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.helpers.watched import (
    CONFIG,
    LAYERS,
    LOSSES,
    STEPS,
    alarms,
    batch,
    changed,
    data,
    detector,
    healthy,
    kinds,
    lossy,
    rate,
    shares,
    steep,
    step_of,
)
from train.engine import GradientNorms
from train.stability.detector import Detector
from train.stability.records import LEAD_STEPS, Alarm, Kind, StepRecord


def test_a_healthy_run_has_no_alarms() -> None:
    watching = detector()
    for record in healthy(1000):
        assert step_of(watching, record) == (None, [])


def test_a_spike_is_found_at_its_twelfth_outlier_and_reported_once() -> None:
    records = changed(healthy(STEPS + 60), STEPS + 1, lambda each, _: lossy(each, 1.4))
    found = [alarm for alarm in alarms(records) if alarm.kind is Kind.loss]
    assert kinds(found) == [(Kind.loss, "loss"), (Kind.loss, "loss_mask")]
    for alarm, level in zip(found, (2, 3), strict=True):
        assert alarm.step == STEPS + 12
        assert alarm.onset_step == STEPS + 1 - LEAD_STEPS
        assert alarm.goes_back
        assert alarm.usual == pytest.approx(level, rel=0.01)
        assert alarm.value == pytest.approx(1.4 * level, rel=0.2)
        assert alarm.score is not None and alarm.score > CONFIG.loss_limit
    assert f"step {STEPS + 12}: loss " in found[0].text
    assert found[0].text.endswith(f"since step {STEPS - 7} or later")


def test_a_second_spike_is_reported_again() -> None:
    def twice(each: StepRecord, since: int) -> StepRecord:
        return lossy(each, 1.4) if since < 20 or 60 <= since < 80 else each

    found = alarms(changed(healthy(STEPS + 100), STEPS + 1, twice))
    steps = [alarm.step for alarm in found if alarm.signal == "loss" and alarm.kind is Kind.loss]
    assert steps == [STEPS + 12, STEPS + 72]


def test_fewer_outliers_than_asked_for_are_no_spike() -> None:
    """Eleven of twenty, also when there are many of them one after the other."""
    records = changed(
        healthy(STEPS + 200),
        STEPS + 1,
        lambda each, since: lossy(each, 1.4) if since % 20 < 11 else each,
    )
    assert not [alarm for alarm in alarms(records) if alarm.kind is Kind.loss]
    strict = replace(CONFIG, spike_steps=[11, 20])
    assert [alarm for alarm in alarms(records, strict) if alarm.kind is Kind.loss]


def test_an_objective_is_watched_by_itself() -> None:
    """A spike of one that is too small to move the whole."""

    def change(each: StepRecord, _: int) -> StepRecord:
        return replace(each, losses={**each.losses, "loss_mask": 5.0})

    found = alarms(changed(healthy(STEPS + 30), STEPS + 1, change))
    assert kinds(found) == [(Kind.loss, "loss_mask")]


def test_an_objective_that_is_missing_now_and_then_is_still_watched() -> None:
    def change(each: StepRecord, since: int) -> StepRecord:
        loss = None if since % 2 else 5.0
        return replace(each, losses={**each.losses, "loss_mask": loss})

    found = alarms(changed(healthy(STEPS + 40), STEPS + 1, change))
    assert kinds(found) == [(Kind.loss, "loss_mask")]
    assert found[0].step == STEPS + 1 + 2 * 11


def test_a_new_level_raises_no_alarms_for_ever() -> None:
    records = changed(healthy(STEPS + 600), STEPS + 1, lambda each, _: lossy(each, 1.4))
    assert max(alarm.step for alarm in alarms(records)) < STEPS + 100


@pytest.mark.parametrize(
    ("total", "embedding", "layer", "signal"),
    [
        (50.0, 1.0, 1.0, "grad_norm"),
        (1.0, 50.0, 1.0, "grad_norm_embedding"),
        (40.0, 50.0, 1.0, "grad_norm_embedding"),
        (1.0, 1.0, 50.0, "layer 1"),
        (20.0, 1.0, 500.0, "grad_norm"),
    ],
)
def test_a_wild_gradient_is_judged_before_its_update(
    total: float, embedding: float, layer: float, signal: str
) -> None:
    """Layers are named, but a step is left out for the global norm or the embedding's only."""
    watching = detector()
    records = healthy(STEPS + 1)
    for record in records[:-1]:
        step_of(watching, record)
    last = records[-1].norms
    assert last is not None
    layers = (last.layers[0], last.layers[1] * layer, last.layers[2])
    norms = GradientNorms(last.total * total, last.embedding * embedding, layers)
    before = json.dumps(watching.state())
    alarm = watching.judge(norms, STEPS + 1)
    assert json.dumps(watching.state()) == before
    assert alarm is not None and (alarm.kind, alarm.signal) == (Kind.gradient, signal)
    assert watching.leaves_out(alarm) == (not signal.startswith("layer"))
    assert not alarm.goes_back
    assert alarm.step == alarm.onset_step == STEPS + 1
    step = replace(records[-1], norms=norms)
    assert watching.observe(step) == [alarm]


def test_wild_gradients_in_a_row_are_all_judged_and_reported_once() -> None:
    records = changed(
        healthy(STEPS + 30),
        STEPS + 1,
        lambda each, since: steep(each, 50.0 if since < 10 or since == 20 else 1.0),
    )
    watching = detector()
    found = [step_of(watching, record) for record in records]
    judged = [alarm.step for alarm, _ in found if alarm is not None]
    assert judged == [*range(STEPS + 1, STEPS + 11), STEPS + 21]
    assert [alarm.step for _, told in found for alarm in told] == [STEPS + 1, STEPS + 21]


def test_a_spike_does_not_hide_a_smaller_one_after_it() -> None:
    factors = {0: 1000.0, 1: 1000.0, 20: 5.0}
    records = changed(
        healthy(STEPS + 30), STEPS + 1, lambda each, since: steep(each, factors.get(since, 1.0))
    )
    assert [alarm.step for alarm in alarms(records)] == [STEPS + 1, STEPS + 21]


UNUSABLE = (math.nan, math.inf, -math.inf, 0.0, -1.0, None)


@pytest.mark.parametrize("value", UNUSABLE)
def test_unusable_figures_are_never_taken_in(value: float | None) -> None:
    """The state after such steps is that of a run without them, except for the number of the step."""
    watching = detector()
    for record in healthy(STEPS + 20):
        if record.step > STEPS:
            number = math.nan if value is None else value
            record = replace(
                record,
                losses=dict.fromkeys(LOSSES, value),
                norms=None if value is None else GradientNorms(number, number, (number,) * LAYERS),
                loss_scale=value,
            )
        assert step_of(watching, record) == (None, [])
        if record.step == STEPS:
            before = watching.state()
    assert watching.state() == before


def test_a_record_without_any_figures_is_taken() -> None:
    watching = detector()
    assert step_of(watching, StepRecord(1, {}, None)) == (None, [])


def scaled(scales: Sequence[float]) -> list[Alarm]:
    records = [
        replace(record, loss_scale=scale)
        for record, scale in zip(healthy(len(scales)), scales, strict=True)
    ]
    return alarms(records)


def test_a_collapse_of_the_loss_scale_is_dated_before_its_first_overflow() -> None:
    """Halved at each step after step 300; six halvings are reached at step 306."""
    falling = [65536.0 / 2**halvings for halvings in range(1, 11)]
    (alarm,) = scaled([65536.0] * 300 + falling)
    assert (alarm.kind, alarm.signal) == (Kind.loss_scale, "loss_scale")
    assert (alarm.step, alarm.value, alarm.usual) == (306, 1024.0, 65536.0)
    assert alarm.onset_step == 300 - LEAD_STEPS
    assert alarm.goes_back


def test_a_loss_scale_that_works_raises_no_alarm() -> None:
    """Doubled every 20 steps and halved at an overflow; falls at the start, and by less than six halvings later."""
    start = [2.0**power for power in range(32, 10, -1)]
    usual = [2.0 ** (10 + step // 20 % 2) for step in range(400)]
    lower = [2.0 ** (10 - min(step, 4)) for step in range(400)]
    assert not scaled([*start, *usual, *lower])


def test_steps_that_are_all_left_out_are_found() -> None:
    records = changed(
        healthy(STEPS + 60), STEPS + 1, lambda each, since: replace(each, was_skipped=since != 3)
    )
    (alarm,) = alarms(records)
    assert (alarm.kind, alarm.step) == (Kind.skipped, STEPS + 4 + CONFIG.max_skipped_steps)
    assert alarm.onset_step == STEPS + 5 - LEAD_STEPS and alarm.goes_back


def test_what_is_suspected() -> None:
    """One outlier is; then twenty steps without make it good."""
    watching = detector()
    records = changed(
        healthy(STEPS + 60), STEPS + 1, lambda each, since: lossy(each, 1.4 if since < 3 else 1.0)
    )
    suspected = {}
    for record in records:
        step_of(watching, record)
        suspected[record.step] = watching.suspected_step
    assert set(list(suspected.values())[:STEPS]) == {None}
    assert set(list(suspected.values())[STEPS : STEPS + 20]) == {STEPS + 1 - LEAD_STEPS}
    assert suspected[STEPS + 21] == STEPS + 2 - LEAD_STEPS
    assert set(list(suspected.values())[STEPS + 22 :]) == {None}


def test_a_drift_is_suspected_and_then_found_from_before_it_began() -> None:
    records = changed(
        healthy(2000), 1501, lambda each, since: lossy(each, math.exp(0.001 * (since + 1)))
    )
    watching, suspected = detector(), {}
    for record in records:
        _, found = step_of(watching, record)
        if drifts := [alarm for alarm in found if alarm.kind is Kind.drift]:
            break
        suspected[record.step] = watching.suspected_step
    (alarm,) = drifts
    assert alarm.goes_back and alarm.signal == "loss"
    assert 1501 + 40 <= alarm.step <= 1501 + 140
    assert 1501 - 140 <= alarm.onset_step <= 1501
    assert alarm.usual == pytest.approx(2.0, rel=0.01) and alarm.value > 2.0
    assert suspected[alarm.step - 1] == alarm.onset_step


def test_a_spike_that_a_rise_led_up_to_begins_with_the_rise() -> None:
    """.3 % a step: the loss is an outlier long after it began to rise."""
    records = changed(
        healthy(STEPS + 200), STEPS + 1, lambda each, since: lossy(each, math.exp(0.003 * since))
    )
    spikes = [alarm for alarm in alarms(records) if alarm.kind is Kind.loss]
    assert spikes and spikes[0].onset_step <= STEPS + 1


def eventful() -> list[StepRecord]:
    """Everything that changes the state: faults, gaps, changes of all kinds, and a loss scale."""
    records = healthy(1150)
    records = changed(records, 330, lambda each, since: steep(each, 80.0 if since < 5 else 1.0))
    records = changed(records, 380, lambda each, since: lossy(each, 1.5 if since < 30 else 1.0))
    records = changed(records, 430, shares)
    records = changed(records, 440, batch)
    records = changed(records, 445, rate)
    records = changed(records, 800, lambda each, since: lossy(each, math.exp(0.001 * since)))
    records = changed(records, 950, data)
    records = changed(
        records, 1050, lambda each, since: replace(each, losses={}) if since < 9 else each
    )
    return [replace(each, loss_scale=65536.0 / 2 ** max(each.step - 1100, 0)) for each in records]


def test_it_depends_on_the_records_alone() -> None:
    """A run that is stopped and resumed after every step, through JSON, has the alarms of the undisturbed one."""
    records, undisturbed = eventful(), detector()
    expected = [step_of(undisturbed, record) for record in records]
    assert {alarm.kind for _, told in expected for alarm in told} == {
        *(Kind.gradient, Kind.loss, Kind.drift, Kind.loss_scale)
    }
    stored, suspected = json.dumps(detector().state()), []
    for record, each in zip(records, expected, strict=True):
        resumed = detector()
        assert resumed.load(json.loads(stored))
        assert step_of(resumed, record) == each
        stored = json.dumps(resumed.state())
        suspected.append(resumed.suspected_step)
    assert json.loads(stored) == json.loads(json.dumps(undisturbed.state()))
    assert any(suspected) and not all(suspected)


def test_loading_replaces_what_was_seen() -> None:
    records = eventful()
    fresh, used = detector(), detector()
    for record in records[:405]:
        step_of(used, record)
    state = json.loads(json.dumps(fresh.state()))
    assert used.load(state)
    assert json.loads(json.dumps(used.state())) == state


@pytest.mark.parametrize(
    "other",
    [
        Detector(replace(CONFIG, spike_window=128), LOSSES, LAYERS),
        Detector(CONFIG, LOSSES, LAYERS + 1),
        Detector(CONFIG, ("loss",), LAYERS),
    ],
)
def test_a_state_of_another_window_or_model_does_not_load(other: Detector) -> None:
    watching = detector()
    for record in healthy(100):
        step_of(watching, record)
    assert not other.load(watching.state())
    # It begins anew, and works.
    assert not watching.load(other.state())
    assert watching.state() == detector().state()
    assert alarms(changed(healthy(STEPS + 20), STEPS + 1, lambda each, _: lossy(each, 1.4)))


@pytest.mark.parametrize(
    "stored", [None, [], "text", {}, {"gradients": {}}, {**detector().state(), "drift": 5}]
)
def test_a_state_that_is_none_does_not_load(stored: object) -> None:
    watching = detector()
    assert not watching.load(stored)
    assert watching.state() == detector().state()


def test_other_thresholds_load() -> None:
    """They judge what was seen; a shorter count of losses keeps the last of them."""
    watching = detector()
    for record in healthy(100):
        step_of(watching, record)
    other = detector(replace(CONFIG, loss_limit=5.0, spike_steps=[3, 5]))
    assert other.load(json.loads(json.dumps(watching.state())))
    assert [len(each) for each in other.state()["outliers"]] == [5, 5]
