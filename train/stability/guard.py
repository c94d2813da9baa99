"""The detector in the training loop: it is told of every step, leaves out wildly large gradients, and reports.

The same on all ranks, because all are told the same figures: what it decides needs no exchange.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from configs.schema import Config, OnSpike
from data_pipeline.dataset import GLMDataset
from glm.loss import ObjectiveSums
from train.engine import Engine, GradientNorms, PendingUpdate
from train.metrics import loss_metrics
from train.plan import StepPlan
from train.stability.detector import LOSS, UNJUDGED_STEPS, Detector
from train.stability.records import Alarm, StepRecord

ENTRY = "detector"
"""Name of the detector's state in a checkpoint."""


class Guard:
    """Watches the steps of a run from one resume on.

    Args:
        config: of the run.
        engine: gets a hook where steps may be left out.
        dataset: that is trained; its mixture may change on the way.
        counted: keys of the objectives that the run counts.
        stored: entry of the checkpoint that the run continues from; None: it has none.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        dataset: GLMDataset,
        counted: Sequence[str],
        stored: object,
    ) -> None:
        self._dataset = dataset
        self._counted = list(counted)
        self._objectives = dataset.objectives
        names = [each.loss for each in self._objectives if each.key in self._counted]
        self.detector = Detector(config.stability, [LOSS, *names], config.model.num_layers)
        self.has_forgotten = stored is not None and not self.detector.load(stored)
        """True if the checkpoint's state did not fit: the detector begins anew."""
        self._data = _identity_of(dataset)
        self._policy = config.stability.on_spike
        self._record = StepRecord(0, {}, None)
        self._remove_hook = lambda: None
        if self._policy is OnSpike.rollback:
            self._remove_hook = engine.add_hook(self._judge)

    def begin(self, step: StepPlan, number: int, drawn: int) -> None:
        """Tell of a step before it is trained.

        Args:
            step: its plan.
            number: from 1.
            drawn: position of the data stream before it.
        """
        self._record = StepRecord(
            step=number,
            losses={},
            norms=None,
            learning_rate=step.learning_rate,
            num_samples=step.num_samples,
            shares=self._dataset.shares_at(drawn),
            data=self._data,
        )
        self.detector.declare(self._record)

    def end(
        self,
        sums: ObjectiveSums,
        norms: GradientNorms,
        was_skipped: bool,
        loss_scale: float | None,
    ) -> list[Alarm]:
        """Tell how it went; returns what that shows."""
        losses = loss_metrics("", sums, self._objectives, self._counted)
        before = self._record
        return self.detector.observe(
            StepRecord(
                step=before.step,
                losses={name.removeprefix("/"): value for name, value in losses.items()},
                norms=norms,
                was_skipped=was_skipped,
                loss_scale=loss_scale,
            )
        )

    def keep_before(self, step: int) -> tuple[int, ...]:
        """Before each of these steps the newest checkpoint must be kept when one of `step` is written.

        What is found later may have begun with what is suspected now, or as far back as a spike or a drift may.
        """
        if self._policy is not OnSpike.rollback:
            return ()
        suspected = self.detector.suspected_step
        judged = (step - self.detector.spike_steps, step - UNJUDGED_STEPS)
        return judged if suspected is None else (*judged, suspected)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {ENTRY: self.detector.state()}

    def close(self) -> None:
        """Remove the hook."""
        self._remove_hook()

    def _judge(self, update: PendingUpdate) -> None:
        alarm = self.detector.judge(update.norms, self._record.step)
        if alarm is not None and self.detector.leaves_out(alarm):
            update.veto(alarm.text)


def _identity_of(dataset: GLMDataset) -> str:
    """Changes when sources or the objective do; not with the mixture, whose shares are declared by themselves."""
    described = dataset.describe()
    kept = {key: described[key] for key in ("objective", "fingerprint", "seq_length")}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()
