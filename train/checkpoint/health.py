"""Which checkpoint a diverged run can go back to: the newest one after which training is known to have gone well.

Training went well from one checkpoint to the next if no step in between was skipped, every loss was finite, and the
mean loss is at most `checkpoint.healthy_margin` above that of the last stretch that went well. Each checkpoint stores
what is known at that time, so that a later attempt can use it.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Health:
    """What a checkpoint records about the ones before it."""

    healthy_step: int | None = None
    """Step of the newest checkpoint after which training went well."""
    mean_loss: float | None = None
    """Mean training loss of the last stretch that went well."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: object) -> "Health":
        """Read what `to_dict` wrote; missing or invalid values become None."""
        known = stored if isinstance(stored, dict) else {}
        step, loss = known.get("healthy_step"), known.get("mean_loss")
        return cls(
            step if type(step) is int else None,
            loss if type(loss) is float and math.isfinite(loss) else None,
        )


@dataclass(frozen=True)
class Stretch:
    """The steps since a checkpoint."""

    num_steps: int = 0
    loss_sum: float = 0.0
    went_wrong: bool = False
    """True if a step was skipped, or a loss was not finite."""

    def after(self, loss: float | None, was_skipped: bool) -> "Stretch":
        """This stretch with one more step. A step without targets has no loss (None)."""
        finite = loss if loss is not None and math.isfinite(loss) else 0.0
        return Stretch(
            self.num_steps + (loss is not None),
            self.loss_sum + finite,
            self.went_wrong or was_skipped or (loss is not None and not math.isfinite(loss)),
        )

    def joined(self, other: "Stretch") -> "Stretch":
        """This stretch and the next as one, for a checkpoint between them that was not written."""
        return Stretch(
            self.num_steps + other.num_steps,
            self.loss_sum + other.loss_sum,
            self.went_wrong or other.went_wrong,
        )


def judge(known: Health, previous_step: int | None, stretch: Stretch, margin: float) -> Health:
    """What is known when the next checkpoint is written.

    Args:
        known: what was known at the previous checkpoint.
        previous_step: step of the previous checkpoint; None if there is none.
        stretch: the steps since the previous checkpoint.
        margin: by how much the mean loss may exceed that of the last good stretch, in nats.
    """
    if stretch.went_wrong or stretch.num_steps == 0:
        return known
    mean = stretch.loss_sum / stretch.num_steps
    if known.mean_loss is not None and mean > known.mean_loss + margin:
        return known
    return replace(
        known,
        mean_loss=mean,
        healthy_step=known.healthy_step if previous_step is None else previous_step,
    )


class HealthWatch:
    """Follows the losses of a run, and gives the `Health` to store in each of its checkpoints.

    Args:
        known: what was known at the checkpoint that the run continues from.
        step: step of that checkpoint; None for a new run.
        margin: see `judge`.
    """

    def __init__(self, known: Health, step: int | None, margin: float) -> None:
        self._known = known
        self._step = step
        self._margin = margin
        self._since = Stretch()
        self._pending: tuple[int, Health, Stretch] | None = None

    @property
    def healthy_step(self) -> int | None:
        """Step of the newest checkpoint after which training is known to have gone well."""
        return self._known.healthy_step

    def observe(self, loss: float | None, was_skipped: bool) -> None:
        """Record a trained step."""
        self._since = self._since.after(loss, was_skipped)

    def at_save(self, step: int) -> Health:
        """The health to store in the checkpoint of `step`, whose writing begins now."""
        health = judge(self._known, self._step, self._since, self._margin)
        self._pending = (step, health, self._since)
        self._since = Stretch()
        return health

    def settle(self, was_written: bool) -> None:
        """Record whether the checkpoint that the last `at_save` was for has been written, or has failed."""
        if self._pending is None:
            return
        step, health, stretch = self._pending
        self._pending = None
        if was_written:
            self._step, self._known = step, health
        else:
            self._since = stretch.joined(self._since)
