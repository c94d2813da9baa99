"""A generator of step records as a healthy run writes them, with heavy-tailed noise, and of what goes wrong in one.

Losses fall along a curve; their logarithms and those of the gradient norms carry noise of Student's t distribution,
white or correlated from step to step (AR), that shrinks as the batch ramps up. Halfway the mixture changes, as declared: the
loss is 0.15 higher from there on, and half as noisy again.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from train.engine import GradientNorms
from train.stability.records import StepRecord

LOSS_NOISE, NORM_NOISE = 0.02, 0.15
"""Standard deviation at the full batch, in log units."""
_RAMP = (192, 4224, 24)
"""First and full batch, and increment: GLM-130B's."""
_RAMP_SHARE = 0.1
_JUMP, _NOISIER = 0.15, 1.5


@dataclass(frozen=True)
class Noise:
    """How figures vary from step to step."""

    degrees: int
    """Of freedom of Student's t: 3 has the heaviest tails."""
    correlation: float = 0.0
    """Of neighbouring steps."""

    @property
    def label(self) -> str:
        """For a table."""
        return f"t{self.degrees} {'white' if not self.correlation else f'AR {self.correlation:g}'}"

    def draw(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """(steps,) values of standard deviation 1."""
        drawn = rng.standard_t(self.degrees, num_steps)
        drawn /= math.sqrt(self.degrees / (self.degrees - 2))
        if not self.correlation:
            return drawn
        scale, value = math.sqrt(1 - self.correlation**2), 0.0
        for step in range(num_steps):
            value = self.correlation * value + scale * drawn[step]
            drawn[step] = value
        return drawn


NOISES = tuple(Noise(degrees, correlation) for degrees in (4, 3) for correlation in (0.0, 0.9))


@dataclass
class Series:
    """A run's figures, as arrays that a fault may be written into."""

    losses: np.ndarray
    norms: np.ndarray
    embedding_norms: np.ndarray
    batches: np.ndarray
    loss_scales: np.ndarray
    change_at: int

    def records(self, num_layers: int = 2, since: int = 0) -> Iterator[StepRecord]:
        """The records of all steps from an index on, in order."""
        for index in range(since, len(self.losses)):
            total, embedding = float(self.norms[index]), float(self.embedding_norms[index])
            layer = math.sqrt(max(total**2 - embedding**2, 0.0) / num_layers)
            yield StepRecord(
                step=index + 1,
                losses={"loss": float(self.losses[index])},
                norms=GradientNorms(total, embedding, (layer,) * num_layers),
                loss_scale=float(self.loss_scales[index]),
                learning_rate=1e-4,
                num_samples=int(self.batches[index]),
                shares={"text": 1.0} if index < self.change_at else {"text": 0.5, "code": 0.5},
            )

    def copy(self) -> "Series":
        """The same figures, to write a fault into."""
        return replace(
            self,
            losses=self.losses.copy(),
            norms=self.norms.copy(),
            embedding_norms=self.embedding_norms.copy(),
            loss_scales=self.loss_scales.copy(),
        )

    def scale_norms(self, steps: int | slice, factors: float | np.ndarray) -> None:
        """Multiply the norms of steps."""
        self.norms[steps] *= factors
        self.embedding_norms[steps] *= factors


def healthy(seed: int, noise: Noise, num_steps: int = 20_000, *, ramp: bool = True) -> Series:
    """The figures of a run without faults.

    Args:
        seed: of the noise.
        noise: its kind.
        num_steps: length of the run; its mixture changes in the middle.
        ramp: the batch grows over the first tenth.
    """
    rng = np.random.default_rng([seed, noise.degrees, int(10 * noise.correlation)])
    steps = np.arange(num_steps)
    first, full, increment = _RAMP
    levels = (full - first) // increment
    grown = np.minimum(steps * levels // max(int(_RAMP_SHARE * num_steps), 1), levels)
    batches = first + increment * grown if ramp else np.full(num_steps, full)
    is_later = steps >= num_steps // 2
    wider = np.minimum(np.sqrt(full / batches), 2.0) * np.where(is_later, _NOISIER, 1.0)
    level = 2.2 + 7 * np.exp(-steps / 300) + 1.5 * np.exp(-steps / 4000)
    level = level + np.where(is_later, _JUMP, 0.0)
    losses = level * np.exp(LOSS_NOISE * wider * noise.draw(rng, num_steps))
    usual = 0.3 * np.exp(0.5 * np.exp(-steps / 1000))
    norms = usual * np.exp(NORM_NOISE * wider * noise.draw(rng, num_steps))
    share = 0.4 * np.exp(NORM_NOISE * noise.draw(rng, num_steps))
    embedding_norms = norms * np.minimum(share, 0.9)
    scales = np.full(num_steps, 65536.0)
    return Series(losses, norms, embedding_norms, batches, scales, num_steps // 2)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    name: str
    write: Callable[[Series, int], None]
    """Writes it into a run, from an index on."""
    shows: int = 0
    """Steps after its beginning from which on an alarm has found it."""
    is_at_change: bool = False
    """It begins with the change of the mixture."""


def _one_gradient(series: Series, at: int) -> None:
    series.scale_norms(at, 50.0)


def _two_gradients(series: Series, at: int) -> None:
    series.scale_norms(at, 50.0)
    series.scale_norms(at + 20, 5.0)


def _gradient_after_nan(series: Series, at: int) -> None:
    _nan(series, at)
    series.scale_norms(at + 20, 50.0)


def _nan(series: Series, at: int) -> None:
    series.losses[at] = series.norms[at] = series.embedding_norms[at] = math.nan


def _higher_loss(series: Series, at: int) -> None:
    series.losses[at:] += 0.3


def _drift(series: Series, at: int) -> None:
    steps = np.arange(1, len(series.losses) - at + 1)
    series.losses[at:] *= np.exp(np.minimum(0.002 * steps, 1.0))


def _explosion(series: Series, at: int) -> None:
    share = np.minimum(np.arange(1, len(series.losses) - at + 1) / 30, 1.0)
    series.losses[at:] *= 3.0**share
    series.scale_norms(slice(at, None), 1000.0**share)


def _collapse(series: Series, at: int) -> None:
    steps = np.arange(1, len(series.losses) - at + 1)
    series.loss_scales[at:] *= np.maximum(0.5**steps, 2.0**-16)


FAULTS = (
    Fault("one gradient x 50", _one_gradient),
    Fault("gradient x 5, 20 steps after x 50", _two_gradients, shows=20),
    Fault("gradient x 50, 20 steps after NaN", _gradient_after_nan, shows=20),
    Fault("loss + .3 from here on", _higher_loss),
    Fault("loss x 1.002 a step", _drift),
    Fault("explosion: loss x 3, gradient x 1000 in 30 steps", _explosion),
    Fault("the same, as the mixture changes", _explosion, is_at_change=True),
    Fault("loss scale halves every step", _collapse),
)
