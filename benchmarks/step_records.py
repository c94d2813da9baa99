"""A generator of step records as a healthy run writes them, with heavy-tailed noise, and of what goes wrong in one.

Losses fall along a curve; their logarithms and those of the gradient norms carry noise of Student's t distribution,
white or correlated from step to step (AR), that shrinks as the batch ramps up. Halfway the mixture changes, as declared: the
loss is 0.15 higher from there on, and half as noisy again.
"""

import math
from collections.abc import Iterator
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
    change_at: int

    def records(self, num_layers: int = 2) -> Iterator[StepRecord]:
        """The records of all steps, in order."""
        for index in range(len(self.losses)):
            total, embedding = float(self.norms[index]), float(self.embedding_norms[index])
            layer = math.sqrt(max(total**2 - embedding**2, 0.0) / num_layers)
            yield StepRecord(
                step=index + 1,
                losses={"loss": float(self.losses[index])},
                norms=GradientNorms(total, embedding, (layer,) * num_layers),
                learning_rate=1e-4,
                num_samples=int(self.batches[index]),
                shares={"text": 1.0} if index < self.change_at else {"text": 0.5, "code": 0.5},
            )

    def copy(self) -> "Series":
        """The same figures, to write a fault into."""
        arrays = (self.losses, self.norms, self.embedding_norms)
        losses, norms, embedding_norms = (each.copy() for each in arrays)
        return replace(self, losses=losses, norms=norms, embedding_norms=embedding_norms)


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
    return Series(losses, norms, embedding_norms, batches, num_steps // 2)
