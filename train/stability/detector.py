"""The detector of bad steps: a pure function of the sequence of a run's step records.

Every rank has one, and all are told the same figures, so all find the same without an exchange. Its state is part of each
checkpoint: a resumed run judges its first step as the undisturbed one would.

- gradient: a norm - global, of the embedding, of a layer - far above its window (windows.py).
- loss: several of the last steps far above the window, for the loss in all and for each objective.
- drift: the loss has risen slowly (drift.py).
- loss scale: fp16's scale has fallen far below its window.
- skipped: many steps in a row were left out.

A declared change - other data, another mixture, a higher learning rate, another batch - resets what it moves.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.schema import StabilityConfig
from train.engine import GradientNorms
from train.stability.drift import Drift, DriftSettings
from train.stability.records import LEAD_STEPS, Alarm, Kind, StepRecord
from train.stability.windows import RobustWindows, WindowSettings

TOTAL, EMBEDDING, LOSS = "grad_norm", "grad_norm_embedding", "loss"
UNJUDGED_STEPS = 320
"""Steps back that a drift, the slowest finding, may turn out to have begun: one of .1 % a step in correlated noise was found
290 steps after its onset."""
_LEAST = 64
"""Values from which on a window is judged by its own spread."""
_PERSISTENCE = 64
_PROVISIONAL_LOSS, _PROVISIONAL_GRADIENT = math.log(1.5), math.log(50.0)
_LOSS_FLOOR, _GRADIENT_FLOOR = 1e-3, 2e-2
_LEAST_DRIFT = 0.02
_SCALES = 256
# What counts as a change of the batch or the rate (as a ratio), and of the mixture (as a share of all samples).
_BATCH_RATIO, _RATE_RATIO, _MOVED_SHARE = 1.25, 1.5, 0.05
_TINY = 1e-30


class Detector:
    """Finds bad steps.

    Args:
        config: the thresholds.
        losses: names of the losses that records have, that of the whole first.
        num_layers: layers of the model.
    """

    def __init__(self, config: StabilityConfig, losses: Sequence[str], num_layers: int) -> None:
        self._config = config
        self._losses = list(losses)
        self._norms = [TOTAL, EMBEDDING, *(f"layer {layer}" for layer in range(num_layers))]
        size = config.spike_window
        least = min(_LEAST, size)
        self._gradient_windows = RobustWindows(
            len(self._norms),
            WindowSettings(
                *(size, least, config.gradient_limit),
                *(_PROVISIONAL_GRADIENT, _PERSISTENCE, _GRADIENT_FLOOR),
            ),
        )
        self._loss_windows = RobustWindows(
            len(self._losses),
            WindowSettings(
                *(size, least, config.loss_limit), *(_PROVISIONAL_LOSS, _PERSISTENCE, _LOSS_FLOOR)
            ),
        )
        self._drift = Drift(DriftSettings(config.drift_limit, _LEAST_DRIFT))
        self._outliers = [deque[list[int]](maxlen=config.spike_steps[1]) for _ in self._losses]
        self._is_reported = [False] * len(self._losses)
        self._scales = deque[float](maxlen=_SCALES)
        self._was_wild = False
        self._num_skipped = 0
        self._declared: dict[str, Any] = {}

    def judge(self, norms: GradientNorms, step: int) -> Alarm | None:
        """Judge the gradient of a step before its update; None: its norms are usual. Takes nothing in.

        Args:
            norms: before clipping.
            step: number of the step.
        """
        logs = _logs([norms.total, norms.embedding, *norms.layers])
        scores = self._gradient_windows.scores(logs)
        return self._wild(logs, scores, step)

    def leaves_out(self, alarm: Alarm) -> bool:
        """True if the step of this alarm may be left out: a single layer's norm is named only."""
        return alarm.kind is Kind.gradient and alarm.signal in (TOTAL, EMBEDDING)

    def declare(self, record: StepRecord) -> None:
        """Compare what a step is about to be with the one before, and reset what a declared change moves."""
        now = {
            "data": record.data,
            "shares": dict(record.shares),
            "learning_rate": record.learning_rate,
            "num_samples": record.num_samples,
        }
        before, self._declared = self._declared, now
        if not before:
            return
        moved = _distance(before["shares"], now["shares"])
        if before["data"] != now["data"] or moved > _MOVED_SHARE:
            self._reset(record.step, losses=True, gradients=True)
            return
        now["shares"] = before["shares"]  # of the last reset: a slow ramp adds up
        if _ratio(before["num_samples"], now["num_samples"]) > _BATCH_RATIO:
            self._reset(record.step, losses=False, gradients=True)
        else:
            now["num_samples"] = before["num_samples"]
        # A lower one moves no loss up, and a spike right after a rollback that lowered it must be found.
        if 0 < before["learning_rate"] * _RATE_RATIO < now["learning_rate"]:
            self._reset(record.step, losses=True, gradients=False)

    def observe(self, record: StepRecord) -> list[Alarm]:
        """Take in a trained step; returns what it shows. `declare` comes first."""
        found = [
            self._observe_norms(record),
            *self._observe_losses(record),
            self._observe_drift(record),
            self._observe_scale(record),
            self._observe_skips(record),
        ]
        return [alarm for alarm in found if alarm is not None]

    @property
    def spike_steps(self) -> int:
        """Steps back that a spike may turn out to have begun."""
        return self._config.spike_steps[1] + LEAD_STEPS

    @property
    def suspected_step(self) -> int | None:
        """First step that may be part of a spike or drift that is not certain yet; None: there is no suspicion."""
        steps = [step for recent in self._outliers for step, is_outlier in recent if is_outlier]
        found = [min(steps) - LEAD_STEPS] if steps else []
        if self._drift.is_suspected and self._drift.rises_from is not None:
            found.append(self._drift.rises_from)
        return max(min(found), 1) if found else None

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "gradients": self._gradient_windows.state(),
            "losses": self._loss_windows.state(),
            "drift": self._drift.state(),
            "outliers": [list(recent) for recent in self._outliers],
            "is_reported": self._is_reported,
            "scales": list(self._scales),
            "was_wild": self._was_wild,
            "num_skipped": self._num_skipped,
            "declared": self._declared,
        }

    def load(self, stored: object) -> bool:
        """Continue from what `state` returned; False, with a fresh state, if it does not fit: another window, for example."""
        try:
            assert isinstance(stored, dict)
            self._gradient_windows.load(stored["gradients"])
            self._loss_windows.load(stored["losses"])
            self._drift.load(stored["drift"])
            for recent, kept in zip(self._outliers, stored["outliers"], strict=True):
                recent.clear()
                recent.extend([int(step), int(is_outlier)] for step, is_outlier in kept)
            self._is_reported = [bool(each) for each in stored["is_reported"]]
            assert len(self._is_reported) == len(self._losses)
            self._scales.clear()
            self._scales.extend(float(scale) for scale in stored["scales"])
            self._was_wild = bool(stored["was_wild"])
            self._num_skipped = int(stored["num_skipped"])
            self._declared = _declared(stored["declared"])
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
            self.__init__(self._config, self._losses, len(self._norms) - 2)
            return False
        return True

    def _observe_norms(self, record: StepRecord) -> Alarm | None:
        if record.norms is None:
            return None
        norms = record.norms
        logs = _logs([norms.total, norms.embedding, *norms.layers])
        alarm = self._wild(logs, self._gradient_windows.observe(logs), record.step)
        was_wild, self._was_wild = self._was_wild, alarm is not None
        return None if was_wild else alarm

    def _wild(self, logs: np.ndarray, scores: np.ndarray, step: int) -> Alarm | None:
        """The gradient norm that is farthest out, the global one and the embedding's before those of layers."""
        is_outlier = scores > self._config.gradient_limit
        if not is_outlier.any():
            return None
        chosen = slice(0, 2) if is_outlier[:2].any() else slice(2, None)
        signal = int(np.nanargmax(np.where(is_outlier[chosen], scores[chosen], np.nan)))
        signal += chosen.start
        value, usual = math.exp(logs[signal]), math.exp(self._gradient_windows.usual[signal])
        return Alarm(
            Kind.gradient, self._norms[signal], step, step, value, usual, float(scores[signal])
        )

    def _observe_losses(self, record: StepRecord) -> list[Alarm]:
        logs = _logs([record.losses.get(name) for name in self._losses])
        scores = self._loss_windows.observe(logs)
        enough, _ = self._config.spike_steps
        found = []
        for signal, recent in enumerate(self._outliers):
            if math.isnan(logs[signal]):
                continue
            recent.append([record.step, int(scores[signal] > self._config.loss_limit)])
            steps = [step for step, is_outlier in recent if is_outlier]
            if not steps:
                self._is_reported[signal] = False
            if len(steps) < enough or self._is_reported[signal]:
                continue
            self._is_reported[signal] = True
            found.append(
                Alarm(
                    *(Kind.loss, self._losses[signal], record.step),
                    onset_step=self._onset(steps[0]),
                    value=math.exp(logs[signal]),
                    usual=math.exp(self._loss_windows.usual[signal]),
                    score=float(scores[signal]),
                    outlier_step=steps[0],
                )
            )
        return found

    def _onset(self, first_outlier: int) -> int:
        """First step that may be part of a spike; a slow rise before its first outlier is."""
        rises_from = self._drift.rises_from
        onset = max(first_outlier - LEAD_STEPS, 1)
        return onset if rises_from is None else min(onset, rises_from)

    def _observe_drift(self, record: StepRecord) -> Alarm | None:
        loss = record.losses.get(LOSS)
        log = _logs([loss])[0]
        if loss is None or math.isnan(log):
            return None
        usual = self._drift.best
        began = self._drift.observe(record.step, float(log))
        if began is None or usual is None:
            return None
        return Alarm(Kind.drift, LOSS, record.step, began, loss, math.exp(usual))

    def _observe_scale(self, record: StepRecord) -> Alarm | None:
        scale = record.loss_scale
        if scale is None or not 0 < scale < math.inf:
            return None
        usual = statistics.median(self._scales) if len(self._scales) >= _LEAST else None
        self._scales.append(scale)
        if usual is None or scale * 2**self._config.loss_scale_halvings > usual:
            return None
        # The first step since when the scale has been falling.
        recent = list(self._scales)
        fallen = next(n for n, each in enumerate(reversed(recent)) if each >= usual)
        self._scales.clear()
        onset = max(record.step - fallen - LEAD_STEPS, 1)
        return Alarm(Kind.loss_scale, "loss_scale", record.step, onset, scale, usual)

    def _observe_skips(self, record: StepRecord) -> Alarm | None:
        self._num_skipped = self._num_skipped + 1 if record.was_skipped else 0
        if self._num_skipped < self._config.max_skipped_steps:
            return None
        count, self._num_skipped = self._num_skipped, 0
        onset = max(record.step - count + 1 - LEAD_STEPS, 1)
        return Alarm(Kind.skipped, "skipped_steps", record.step, onset, float(count), 0.0)

    def _reset(self, step: int, *, losses: bool, gradients: bool) -> None:
        if gradients:
            self._gradient_windows.reset(range(len(self._norms)))
        if losses:
            self._loss_windows.reset(range(len(self._losses)))
            self._drift.reset(step)
            for recent in self._outliers:
                recent.clear()
            self._is_reported = [False] * len(self._losses)


def _declared(stored: dict[str, Any]) -> dict[str, Any]:
    """What was declared at the last step, from a checkpoint; {} before the first one."""
    if not stored:
        return {}
    return {
        "data": str(stored["data"]),
        "shares": {str(name): float(share) for name, share in stored["shares"].items()},
        "learning_rate": float(stored["learning_rate"]),
        "num_samples": int(stored["num_samples"]),
    }


def _logs(values: Sequence[float | None]) -> np.ndarray:
    """Logarithms; NaN for what is missing, not finite or not positive."""
    return np.array(
        [
            math.log(value) if value is not None and _TINY < value < math.inf else math.nan
            for value in values
        ]
    )


def _distance(before: dict[str, float], now: dict[str, float]) -> float:
    """Share of all samples that come from another source than before."""
    names = before.keys() | now.keys()
    return sum(abs(before.get(name, 0.0) - now.get(name, 0.0)) for name in names) / 2


def _ratio(before: float, now: float) -> float:
    """How many times larger the larger one is; 1 where one is 0, as at the start of a warm-up."""
    low, high = sorted((before, now))
    return high / low if low > 0 else 1.0
