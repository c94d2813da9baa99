"""Size of the hidden states behind each layer: what grows first where training becomes unstable."""

import math
from typing import Any

import torch
from torch import Tensor

from configs import derive
from configs.schema import Config
from train.engine import Engine, norms_of_parts
from train.observe.interval import IntervalObserver
from train.observe.observers import ObservedStep
from train.session import Session


class ActivationObserver(IntervalObserver):
    """`layers/activation_rms`: root mean square of the output of each layer.

    The mean is over all elements of all tokens of the global batch, padding included. Nothing waits for the device
    before the step is over.

    Args:
        every_steps: see IntervalObserver.
        engine: of this rank.
        session: the open process groups.
        config: of the run.
    """

    def __init__(self, every_steps: int, engine: Engine, session: Session, config: Config) -> None:
        super().__init__(every_steps)
        self._engine = engine
        self._session = session
        self._model = config.model
        # Otherwise all tensor-parallel ranks have the same hidden states.
        is_cut = derive.is_sequence_cut(config.parallel)
        self._is_counted = is_cut or session.topology.tp_rank == 0
        self._squares: dict[int, Tensor] = {}

    def start(self) -> None:
        """See IntervalObserver."""
        self._squares.clear()
        if self._is_counted:
            self._engine.watch_layers(self._take)

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        self._engine.watch_layers(None)
        sums = [0.0] * self._model.num_layers
        if self._squares:
            of_layers = torch.stack(list(self._squares.values())).tolist()
            for layer, square in zip(self._squares, of_layers, strict=True):
                sums[layer] = square
        self._squares.clear()
        count = step.plan.num_samples * self._model.seq_length * self._model.hidden_size
        means = [each / count for each in self._session.sum(sums)]
        return {
            "layers/activation_rms": [math.sqrt(mean) if mean >= 0 else math.nan for mean in means]
        }

    def close(self) -> None:
        """See Observer."""
        self._engine.watch_layers(None)

    def _take(self, layer: int, hidden: Tensor) -> None:
        square = torch.stack(norms_of_parts(hidden)).square().sum()
        known = self._squares.get(layer)
        self._squares[layer] = square if known is None else known.add_(square)
