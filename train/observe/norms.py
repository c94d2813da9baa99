"""Norms of the gradient and of the weights, layer by layer."""

import math
from typing import Any

import torch

from glm.model import EMBEDDING_NAME, layer_index
from train.engine import Engine, GradientNorms, HeldWeight, norms_of_parts
from train.observe.interval import IntervalObserver
from train.observe.observers import ObservedStep
from train.session import Session

# Places in a list of squares: of the embedding, of the final norm, then of each layer.
_EMBEDDING, _FINAL_NORM, _FIRST_LAYER = 0, 1, 2
_FINAL_NORM_PREFIX = "final_norm."


class GradientObserver(IntervalObserver):
    """`layers/gradient_norm`: norm of each layer's gradient before clipping, as `optim/grad_norm` of metrics.jsonl.

    Args:
        every_steps: see IntervalObserver.
        engine: of this rank.
    """

    def __init__(self, every_steps: int, engine: Engine) -> None:
        super().__init__(every_steps)
        self._engine = engine
        self._norms: GradientNorms | None = None

    def start(self) -> None:
        """See IntervalObserver."""
        self._engine.watch_gradient(self._take)

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        self._engine.watch_gradient(None)
        assert self._norms is not None, "every step shows its gradient"
        return {"layers/gradient_norm": list(self._norms.layers)}

    def close(self) -> None:
        """See Observer."""
        self._engine.watch_gradient(None)

    def _take(self, norms: GradientNorms) -> None:
        self._norms = norms


class WeightObserver(IntervalObserver):
    """`layers/weight_norm` and `parts/weight_norm`: norms of the weights in training precision after the step's update.

    The embedding is the tied matrix without a norm of its own (`model.embedding_norm`).

    Args:
        every_steps: see IntervalObserver.
        engine: of this rank.
        session: the open process groups.
        num_layers: of the whole model.
    """

    def __init__(self, every_steps: int, engine: Engine, session: Session, num_layers: int) -> None:
        super().__init__(every_steps)
        self._engine = engine
        self._session = session
        self._num_layers = num_layers

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        squares = self._session.sum(self._own_squares())
        embedding, final_norm, *layers = (_root(each) for each in squares)
        return {
            "layers/weight_norm": layers,
            "parts/weight_norm": {"embedding": embedding, "final_norm": final_norm},
        }

    def _own_squares(self) -> list[float]:
        """This rank's share of the squares; the shares of all ranks add up to them."""
        found = [0.0] * (_FIRST_LAYER + self._num_layers)
        if self._session.topology.dp_rank > 0:
            return found
        self._engine.settle()
        placed = [
            (place, norm)
            for held in self._engine.weights()
            if (place := _place(held.name)) is not None and self._is_counted(held)
            for norm in norms_of_parts(held.values)
        ]
        if placed:
            squares = torch.stack([norm for _, norm in placed]).square().tolist()
            for (place, _), square in zip(placed, squares, strict=True):
                found[place] += square
        return found

    def _is_counted(self, held: HeldWeight) -> bool:
        """Whether this rank is the one that counts what it holds: copies of it are counted by the first holder."""
        topology = self._session.topology
        is_tied_copy = held.name == EMBEDDING_NAME and not topology.is_first_stage
        return (held.is_cut or topology.tp_rank == 0) and not is_tied_copy


def _place(name: str) -> int | None:
    if name == EMBEDDING_NAME:
        return _EMBEDDING
    if name.startswith(_FINAL_NORM_PREFIX):
        return _FINAL_NORM
    layer = layer_index(name)
    return None if layer is None else _FIRST_LAYER + layer


def _root(square: float) -> float:
    return math.sqrt(square) if square >= 0 else math.nan
