"""Gradient norms and the check for finite gradients, read from the optimizer's buffers between reduction and update.

GLM-130B's instabilities showed first in the embedding (gradient norm above 170 in April 2022), so it has a norm of its
own. Each wrapper keeps its gradients in a different place: BF16_Optimizer in a whole fp32 copy per rank (of which only one
partition is valid with `parallel.overlap`), ZeRO-1 in one partition per replica, and torch's own optimizers in `grad`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from configs.computation import squared_at_once
from glm.model import EMBEDDING_NAME, layer_index
from glm.tensor_parallel import partition_dim
from train.engine.interface import GradientNorms
from train.engine.overlap import overlap_of
from train.engine.stages import is_tied_copy
from train.session import Session
from train.topology import Topology


def measure_norms(
    optimizer: Any,
    named_parameters: Sequence[tuple[str, nn.Parameter]],
    num_layers: int,
    session: Session,
    loss_scale: float,
) -> GradientNorms:
    """Measure the norms of the whole model's gradient; collective.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer, just before its `step`.
        named_parameters: parameters of this rank's stage, under their names in the whole model.
        num_layers: number of layers of the whole model.
        session: process groups of all ranks that train the model.
        loss_scale: factor by which the stored gradients are multiplied.
    """
    squares = [0.0] * (num_layers + 2)
    for name, parameter in named_parameters:
        share = counted_squares(optimizer, parameter, session.topology)
        layer = layer_index(name)
        squares[0] += share
        if name == EMBEDDING_NAME:
            squares[1] += share
        if layer is not None:
            squares[2 + layer] += share
    total, of_embedding, *layers = (_norm(value, loss_scale) for value in session.sum(squares))
    return GradientNorms(total, of_embedding, tuple(layers))


def _norm(squares: float, loss_scale: float) -> float:
    return math.sqrt(squares) / loss_scale if squares >= 0 else math.nan


def counted_squares(optimizer: Any, parameter: nn.Parameter, topology: Topology) -> float:
    """This rank's share of the squared gradient norm of a parameter; the shares of all ranks add up to it.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer, just before its `step`.
        parameter: a parameter of this rank's stage.
        topology: this rank's position in the layout.
    """
    if not _is_counted(optimizer, parameter, topology):
        return 0.0
    if _is_sharded(optimizer):
        return _sharded(optimizer, parameter)
    gradient = held_gradient(optimizer, parameter)
    return 0.0 if gradient is None else sum_of_squares(gradient)


def _is_counted(optimizer: Any, parameter: nn.Parameter, topology: Topology) -> bool:
    """Whether the norm counts what this rank holds of a gradient.

    A gradient that several ranks hold is counted by the first of them only. This concerns the tied head's copy of the
    embedding, parameters that tensor parallelism does not cut, and, where gradients are not sharded, the other
    replicas' copies.
    """
    is_replica = topology.tp_rank > 0 and partition_dim(parameter) is None
    if is_replica or is_tied_copy(parameter):
        return False
    is_shared_out = _is_sharded(optimizer) or overlap_of(optimizer) is not None
    return is_shared_out or topology.dp_rank == 0


def _is_sharded(optimizer: Any) -> bool:
    """True for ZeRO-1's wrapper of fp32 and fp16, which keeps averaged gradients of its partition."""
    return hasattr(optimizer, "averaged_gradients")


class FiniteNorm:
    """Measures the global norm, and finds gradients that are not finite, in one exchange with the same result on all ranks.

    The norm alone would not tell: it counts a gradient that several ranks hold on one of them only.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer, or torch's optimizer.
        parameters: the parameters of this rank's stage.
        session: process groups of all ranks that train the model.
    """

    def __init__(
        self, optimizer: Any, parameters: Sequence[nn.Parameter], session: Session
    ) -> None:
        self._optimizer = optimizer
        self._session = session
        self._measured: tuple[nn.Parameter, float] | None = None
        self._counted, self._uncounted = list[nn.Parameter](), list[nn.Parameter]()
        for parameter in parameters:
            is_counted = _is_counted(optimizer, parameter, session.topology)
            (self._counted if is_counted else self._uncounted).append(parameter)

    def squares_of(self, parameter: nn.Parameter) -> float:
        """This rank's share of one parameter's squares, which `measure` then need not compute again in this step."""
        squares = counted_squares(self._optimizer, parameter, self._session.topology)
        self._measured = (parameter, squares)
        return squares

    def measure(self) -> float | None:
        """The norm, just before the update; None: some rank holds a gradient that is not finite. Collective."""
        measured, squares = self._measured or (None, 0.0)
        self._measured = None
        others = [parameter for parameter in self._counted if parameter is not measured]
        squares += _sum_of_squares(
            [norm for gradient in self._held(others) for norm in _norms(gradient)]
        )
        # The sum is in float64, which no square of an fp32 number overflows.
        is_finite = math.isfinite(squares) and are_finite(self._held(self._uncounted))
        total, num_wrong = self._session.sum([squares, float(not is_finite)])
        return None if num_wrong else math.sqrt(total)

    def _held(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        for parameter in parameters:
            gradient = held_gradient(self._optimizer, parameter)
            if gradient is not None:
                yield gradient


def _sharded(optimizer: Any, parameter: nn.Parameter) -> float:
    """Sum over the part of the flat gradient partition that belongs to a parameter.

    The partition is a list of tensors (per parameter, padding between them, or one compact buffer), so it is walked
    by flat offset rather than by parameter.
    """
    mapping: Any = vars(parameter)["_hp_mapping"]
    if mapping is None:  # this replica's partition holds no element of the parameter
        return 0.0
    address = mapping.hp_fragment_address
    first, last = address.start, address.start + address.numel
    squares, offset = 0.0, 0
    for gradient in optimizer.averaged_gradients[mapping.param_group_index] or []:
        start = max(first - offset, 0)
        stop = min(last - offset, gradient.numel())
        if start < stop:
            squares += sum_of_squares(gradient.reshape(-1)[start:stop])
        offset += gradient.numel()
    return squares


def sharded_are_finite(optimizer: Any) -> bool:
    """True if every gradient of this rank's partition is finite, whether or not the norm counts it.

    Args:
        optimizer: ZeRO-1's wrapper of fp32, just before its `step`.
    """
    of_groups = optimizer.averaged_gradients.values()
    return are_finite([gradient for group in of_groups for gradient in group or []])


def are_finite(gradients: Iterable[Tensor]) -> bool:
    """True if all elements of all gradients are finite."""
    # Minimum and maximum propagate NaN and need no copy of the gradient. One transfer from the device is enough for all.
    extremes = [
        extreme
        for gradient in gradients
        if gradient.numel() > 0
        for extreme in gradient.detach().aminmax()
    ]
    return not extremes or bool(torch.stack(extremes).isfinite().all())


def held_gradient(optimizer: Any, parameter: nn.Parameter) -> Tensor | None:
    """What this rank holds of a parameter's reduced gradient, for an optimizer other than ZeRO-1's of fp32 and fp16.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer, or torch's optimizer.
        parameter: a parameter of this rank's stage.
    """
    overlap = overlap_of(optimizer)
    return whole_gradient(parameter) if overlap is None else overlap.own_part(parameter)


def whole_gradient(parameter: nn.Parameter) -> Tensor | None:
    """The gradient of a parameter for an optimizer that does not shard gradients over the replicas."""
    gradient = getattr(parameter, "_hp_grad", None)
    return parameter.grad if gradient is None else gradient


def sum_of_squares(gradient: Tensor) -> float:
    """Squared norm, in float64."""
    return _sum_of_squares(_norms(gradient))


def _sum_of_squares(norms: Sequence[Tensor]) -> float:
    """One transfer from the device, however many norms."""
    return float(torch.stack(list(norms)).square().sum()) if norms else 0.0


def _norms(gradient: Tensor) -> list[Tensor]:
    """Norms in float64 of the parts that are squared at once."""
    size = squared_at_once(on_gpu=gradient.is_cuda)
    flat = gradient.detach()
    # Most gradients are small, and a view and a list of one part would cost as much as the norm.
    parts = [flat] if flat.numel() <= size else flat.reshape(-1).split(size)
    return [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
