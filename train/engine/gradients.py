"""Gradient norms and the check that all is finite, read from the optimizer's buffers between reduction and update.

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
from glm.loss import GLMLoss
from glm.model import EMBEDDING_NAME, layer_index
from glm.tensor_parallel import partition_dim
from train.engine.interface import GradientNorms, Measured
from train.engine.overlap import overlap_of
from train.engine.stages import is_tied_copy
from train.session import Session
from train.topology import Topology

# Places in a list of squares: of everything, of the embedding, then of each layer.
_TOTAL, _EMBEDDING, _FIRST_LAYER = 0, 1, 2


def measure_norms(
    optimizer: Any,
    named_parameters: Sequence[tuple[str, nn.Parameter]],
    num_layers: int,
    session: Session,
    loss_scale: float,
    losses: Tensor | None,
) -> Measured:
    """Measure the whole model's gradient where only hooks ask for it; collective.

    Args:
        optimizer: ZeRO-1's wrapper of fp32 or fp16, just before its `step`.
        named_parameters: parameters of this rank's stage, under their names in the whole model.
        num_layers: number of layers of the whole model.
        session: process groups of all ranks that train the model.
        loss_scale: factor by which the stored gradients are multiplied.
        losses: this rank's losses of the step, None where there are none.
    """
    squares = [0.0] * (_FIRST_LAYER + num_layers)
    for name, parameter in named_parameters:
        share = counted_squares(optimizer, parameter, session.topology)
        squares[_TOTAL] += share
        place = _place(name)
        if place != _TOTAL:
            squares[place] += share
    return _exchange(squares, sharded_are_finite(optimizer, losses), session, loss_scale)


def _place(name: str) -> int:
    """Where the squares of a parameter are counted beside the total; `_TOTAL`: nowhere else."""
    if name == EMBEDDING_NAME:
        return _EMBEDDING
    layer = layer_index(name)
    return _TOTAL if layer is None else _FIRST_LAYER + layer


def _exchange(
    squares: list[float], is_finite: bool, session: Session, loss_scale: float = 1.0
) -> Measured:
    """Add up what each rank has found."""
    *sums, num_wrong = session.sum([*squares, float(not is_finite)])
    total, embedding, *layers = (_norm(value, loss_scale) for value in sums)
    return Measured(
        GradientNorms(total, embedding, tuple(layers)),
        num_wrong == 0,
        squares[_EMBEDDING] / loss_scale**2,
    )


def _norm(squares: float, loss_scale: float) -> float:
    return math.sqrt(squares) / loss_scale if squares >= 0 else math.nan


def counted_squares(optimizer: Any, parameter: nn.Parameter, topology: Topology) -> float:
    """This rank's share of the squared gradient norm of a parameter; the shares of all ranks add up to it.

    Args:
        optimizer: ZeRO-1's wrapper of fp32 or fp16, just before its `step`.
        parameter: a parameter of this rank's stage.
        topology: this rank's position in the layout.
    """
    return _sharded(optimizer, parameter) if _is_counted(optimizer, parameter, topology) else 0.0


def _is_counted(optimizer: Any, parameter: nn.Parameter, topology: Topology) -> bool:
    """Whether the norm counts what this rank holds of a gradient.

    A gradient that several ranks hold is counted by the first of them only. This concerns the tied head's copy of the
    embedding, parameters that tensor parallelism does not cut, and, where gradients are not sharded, the other
    replicas' copies.
    """
    is_replica = topology.tp_rank > 0 and partition_dim(parameter) is None
    if is_replica or is_tied_copy(parameter):
        return False
    is_shared_out = is_sharded(optimizer) or overlap_of(optimizer) is not None
    return is_shared_out or topology.dp_rank == 0


def is_sharded(optimizer: Any) -> bool:
    """True for ZeRO-1's wrapper of fp32 and fp16, which keeps averaged gradients of its partition."""
    return hasattr(optimizer, "averaged_gradients")


class FiniteNorm:
    """Measures all norms, and finds what is not finite, in one pass and one exchange of all ranks.

    The norms alone would not tell: they count a gradient that several ranks hold on one of them only.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer, or torch's optimizer.
        named_parameters: parameters of this rank's stage, under their names in the whole model.
        num_layers: number of layers of the whole model.
        session: process groups of all ranks that train the model.
        loss: of this rank; its losses of the step must be finite as well.
    """

    def __init__(
        self,
        optimizer: Any,
        named_parameters: Sequence[tuple[str, nn.Parameter]],
        num_layers: int,
        session: Session,
        loss: GLMLoss,
    ) -> None:
        self._optimizer = optimizer
        self._num_layers = num_layers
        self._session = session
        self._loss = loss
        self._counted = list[tuple[int, nn.Parameter]]()
        self._uncounted = list[tuple[int, nn.Parameter]]()
        for name, parameter in named_parameters:
            is_counted = _is_counted(optimizer, parameter, session.topology)
            (self._counted if is_counted else self._uncounted).append((_place(name), parameter))

    def measure(self) -> Measured:
        """Measure the gradient, just before the update. Collective; one transfer from the device."""
        places, others, of_embedding = list[int](), list[Tensor](), list[Tensor]()
        for place, gradient in self._held(self._counted):
            norms = norms_of_parts(gradient)
            if place == _EMBEDDING:
                of_embedding += norms
            else:
                others += norms
                places += [place] * len(norms)
        squares = self._squares(others)
        unseen = (gradient for _, gradient in self._held(self._uncounted))
        others_finite = _all_finite(unseen, self._loss.recorded, squares.device)
        sums = [self._squares(of_embedding).sum(), squares.sum(), others_finite.to(squares.dtype)]
        # Layers are added up on the host, in one order: a GPU would add into them in any.
        embedding, rest, is_finite, *each = torch.cat([torch.stack(sums), squares]).tolist()
        found = [0.0] * (_FIRST_LAYER + self._num_layers)
        for place, square in zip(places, each, strict=True):
            found[place] += square
        found[_EMBEDDING], found[_TOTAL] = embedding, embedding + rest
        # The sum is in float64, which no square of an fp32 number overflows.
        return _exchange(found, math.isfinite(found[_TOTAL]) and is_finite == 1.0, self._session)

    def _squares(self, norms: Sequence[Tensor]) -> Tensor:
        if not norms:
            return torch.zeros(0, dtype=torch.float64, device=self._session.device)
        return torch.stack(list(norms)).square()

    def _held(self, placed: Sequence[tuple[int, nn.Parameter]]) -> Iterator[tuple[int, Tensor]]:
        for place, parameter in placed:
            gradient = held_gradient(self._optimizer, parameter)
            if gradient is not None:
                yield place, gradient


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


def sharded_are_finite(optimizer: Any, losses: Tensor | None) -> bool:
    """True if the losses and every gradient of this rank's partition are finite, whether or not the norm counts it.

    Args:
        optimizer: ZeRO-1's wrapper of fp32 or fp16, just before its `step`.
        losses: this rank's losses of the step, None where there are none.
    """
    gradients = _averaged(optimizer)
    return bool(_all_finite(gradients, losses, gradients[0].device))


def overflow_unless_finite(optimizer: Any, losses: Tensor | None) -> None:
    """Have fp16's wrapper find an overflow if the losses are not finite, without waiting for the device.

    It then leaves the step out on all ranks, and lowers its loss scale.

    Args:
        optimizer: ZeRO-1's wrapper of fp16, just before its `step`.
        losses: this rank's losses of the step, None where there are none.
    """
    if losses is None:
        return
    smallest = min(_averaged(optimizer), key=Tensor.numel)
    smallest.masked_fill_(~losses.isfinite().all(), math.inf)


def _averaged(optimizer: Any) -> list[Tensor]:
    """The gradients of this rank's partition; never empty."""
    of_groups = optimizer.averaged_gradients.values()
    return [each for group in of_groups for each in group or [] if each.numel() > 0]


def _all_finite(gradients: Iterable[Tensor], losses: Tensor | None, device: torch.device) -> Tensor:
    """Whether all elements are finite: one value on the device."""
    # Minimum and maximum propagate NaN and need no copy of the gradient.
    extremes = [
        extreme
        for gradient in gradients
        if gradient.numel() > 0
        for extreme in gradient.detach().aminmax()
    ]
    found = [torch.stack(extremes).isfinite().all()] if extremes else []
    if losses is not None:
        found.append(losses.isfinite().all())
    return torch.stack(found).all() if found else torch.ones((), dtype=torch.bool, device=device)


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
    return float(torch.stack(norms_of_parts(gradient)).square().sum())


def norms_of_parts(tensor: Tensor) -> list[Tensor]:
    """Norms in float64 of the parts of a tensor that are squared at once; on its device, which nobody waits for."""
    size = squared_at_once(on_gpu=tensor.is_cuda)
    flat = tensor.detach()
    # Most tensors are small, and a view and a list of one part would cost as much as the norm.
    parts = [flat] if flat.numel() <= size else flat.reshape(-1).split(size)
    return [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
