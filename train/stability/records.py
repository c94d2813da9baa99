"""What the detector is told of a step, and what it answers."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from train.engine import GradientNorms

LEAD_STEPS = 8
"""Steps before the first outlier that may be part of a spike: a spike follows up to 8 steps after Adam's second moment has
under-estimated the squared gradient (Wortsman et al. 2023, arXiv 2304.13013)."""


class Kind(str, Enum):
    """What an alarm is about."""

    gradient = "gradient"
    loss = "loss"
    drift = "drift"
    loss_scale = "loss_scale"
    skipped = "skipped"


@dataclass(frozen=True)
class StepRecord:
    """One trained step, as all ranks know it."""

    step: int
    """Its number, from 1."""
    losses: dict[str, float | None]
    """Mean training loss in all ("loss") and of each objective; None: the step had no such target."""
    norms: GradientNorms | None
    """Of the gradient before clipping; None: they were not measured."""
    was_skipped: bool = False
    """The update was left out."""
    loss_scale: float | None = None
    """That the step used, in fp16."""
    learning_rate: float = 0.0
    num_samples: int = 1
    """Global batch size."""
    shares: dict[str, float] = field(default_factory=dict[str, float])
    """Share of each source of the mixture."""
    data: str = ""
    """Changes when the sources themselves or the objective do."""


@dataclass(frozen=True)
class Alarm:
    """What the detector has found."""

    kind: Kind
    signal: str
    """Which figure: loss, loss_mask, grad_norm, layer 3, ..."""
    step: int
    """At which it was found."""
    onset_step: int
    """First step that may be part of it."""
    value: float
    usual: float
    """What the value is compared with."""
    score: float | None = None
    """Deviation in MADs of the window."""
    outlier_step: int | None = None
    """First step of a spike that was an outlier itself; None: see `first_bad_step`."""

    @property
    def goes_back(self) -> bool:
        """True if leaving out steps is no answer: the weights may be bad."""
        return self.kind is not Kind.gradient

    @property
    def first_bad_step(self) -> int:
        """First step that showed it: without the steps before, which may have led up to it."""
        if self.outlier_step is not None:
            return self.outlier_step
        lead = 0 if self.kind in (Kind.gradient, Kind.drift) else LEAD_STEPS
        return min(self.onset_step + lead, self.step)

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values, for an event."""
        values = asdict(self)
        return {"alarm": values.pop("kind").value, **values, "text": self.text}

    @property
    def text(self) -> str:
        """The finding in one sentence."""
        what = _SENTENCES[self.kind].format(
            signal=self.signal.replace("_", " "), value=self.value, usual=self.usual
        )
        score = "" if self.score is None else f", {self.score:.0f} MADs above it"
        since = "" if self.onset_step == self.step else f", since step {self.onset_step:,} or later"
        return f"step {self.step:,}: {what}{score}{since}"


_SENTENCES = {
    Kind.gradient: "{signal} {value:.3g}, usually {usual:.3g}",
    Kind.loss: "{signal} {value:.4g}, usually {usual:.4g}",
    Kind.drift: "{signal} has risen to {value:.4g} from {usual:.4g}",
    Kind.loss_scale: "loss scale {value:g}, usually {usual:g}",
    Kind.skipped: "{value:.0f} steps in a row were left out",
}
