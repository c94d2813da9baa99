"""Records of healthy steps, what can be done to them, and what the detector says of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from configs.schema import StabilityConfig
from train.engine import GradientNorms
from train.stability.detector import Detector
from train.stability.records import Alarm, Kind, StepRecord

LOSSES = ("loss", "loss_mask")
LAYERS = 3
CONFIG = StabilityConfig()
STEPS = 400
"""Healthy steps before a fault: more than a window, and enough for a level of the drift."""


def healthy(num_steps: int = STEPS, seed: int = 0) -> list[StepRecord]:
    """A run without faults: loss 2 and 3, norms .5, .2 and .3, with two percent of normal noise."""
    rng = np.random.default_rng(seed)
    records = []
    for step in range(1, num_steps + 1):
        near = np.exp(0.02 * rng.standard_normal(2 + 2 + LAYERS))
        loss, mask, total, embedding, *layers = map(float, near)
        norms = GradientNorms(0.5 * total, 0.2 * embedding, tuple(0.3 * each for each in layers))
        records.append(
            StepRecord(
                step,
                {"loss": 2 * loss, "loss_mask": 3 * mask},
                norms,
                learning_rate=1e-3,
                num_samples=64,
                shares={"text": 0.5, "code": 0.5},
                data="corpus",
            )
        )
    return records


def changed(
    records: Sequence[StepRecord], since: int, change: Callable[[StepRecord, int], StepRecord]
) -> list[StepRecord]:
    """From a step on, `change(record, steps since then)`."""
    return [change(each, each.step - since) if each.step >= since else each for each in records]


def lossy(record: StepRecord, factor: float) -> StepRecord:
    return replace(
        record,
        losses={
            name: None if loss is None else loss * factor for name, loss in record.losses.items()
        },
    )


def steep(record: StepRecord, factor: float) -> StepRecord:
    assert record.norms is not None
    norms = record.norms
    layers = tuple(each * factor for each in norms.layers)
    return replace(
        record, norms=GradientNorms(norms.total * factor, norms.embedding * factor, layers)
    )


def detector(config: StabilityConfig = CONFIG) -> Detector:
    return Detector(config, LOSSES, LAYERS)


def step_of(watching: Detector, record: StepRecord) -> tuple[Alarm | None, list[Alarm]]:
    """What is said of the gradient before the update, and of the step afterwards."""
    watching.declare(record)
    judged = None if record.norms is None else watching.judge(record.norms, record.step)
    return judged, watching.observe(record)


def alarms(records: Sequence[StepRecord], config: StabilityConfig = CONFIG) -> list[Alarm]:
    watching = detector(config)
    return [alarm for record in records for alarm in step_of(watching, record)[1]]


def kinds(found: Sequence[Alarm]) -> list[tuple[Kind, str]]:
    return [(alarm.kind, alarm.signal) for alarm in found]


def explosion(each: StepRecord, since: int) -> StepRecord:
    """The loss doubles every ten steps, the gradient every three."""
    return steep(lossy(each, 2 ** (since / 10)), 2 ** (since / 3))


def data(each: StepRecord, _: int) -> StepRecord:
    return replace(each, data="another corpus")


def shares(each: StepRecord, _: int) -> StepRecord:
    return replace(each, shares={"text": 0.4, "code": 0.4, "books": 0.2})


def batch(each: StepRecord, _: int) -> StepRecord:
    return replace(each, num_samples=128)


def rate(each: StepRecord, _: int) -> StepRecord:
    return replace(each, learning_rate=2e-3)
