"""What happens between gradient reduction and the optimizer's update: hooks first, then skip or clip, then update.

DeepSpeed calls `optimizer.step`. This is the only file that wraps that method.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID

from glm.loss import GLMLoss
from train.engine.gradients import overflow_unless_finite, sharded_are_finite
from train.engine.interface import Measured, PendingUpdate, UpdateHook
from train.session import Session

Update = Callable[[PendingUpdate], object]


class UpdateGate:
    """Runs hooks before each update of an optimizer, which they may veto.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer; its `step` is replaced.
        update: performs the update if no hook has vetoed it.
        measure: measures the gradient; collective.
        is_finite: whether losses and gradients of all ranks are finite, with the same result on each; collective. True
            where `update` checks this itself.
        observe: called in every step after the hooks, whatever they decide, with the gradients that are then used.
    """

    def __init__(
        self,
        optimizer: Any,
        update: Update,
        measure: Callable[[], Measured],
        is_finite: Callable[[PendingUpdate], bool],
        observe: Callable[[PendingUpdate], None],
    ) -> None:
        self._optimizer = optimizer
        self._update = update
        self._measure = measure
        self._is_finite = is_finite
        self._observe = observe
        self._hooks: list[UpdateHook] = []
        self.vetoes: tuple[str, ...] = ()
        """Why the last update was vetoed; empty if it was not."""
        self.measured: Measured | None = None
        """What was measured of the last update's gradient; None: nothing."""
        optimizer.step = self._step

    def add(self, hook: UpdateHook) -> Callable[[], None]:
        """Call `hook` before each update, after earlier hooks; returns a function that removes it."""
        self._hooks.append(hook)
        return functools.partial(self._hooks.remove, hook)

    def _step(self) -> None:
        pending = PendingUpdate(self._measure)
        for hook in self._hooks:
            hook(pending)
        self._observe(pending)
        self.vetoes = tuple(pending.vetoes)
        if self.vetoes:
            self._skip(pending.norms.total)
            if not pending.is_finite:
                self._note_overflow()
        elif not self._is_finite(pending):
            self._skip(math.inf)
        else:
            self._update(pending)
        self.measured = pending.known

    def _skip(self, norm: float) -> None:
        """Skip the update, and set the flags that DeepSpeed's engine reads to count the skipped step and return its norm."""
        self._optimizer.overflow = True
        self._optimizer._global_grad_norm = norm
        discard_gradients(self._optimizer)

    def _note_overflow(self) -> None:
        """Adjust fp16's loss scale as for an overflow: a veto would keep the scale, and the next step would overflow again."""
        scaler = getattr(self._optimizer, "loss_scaler", None)
        if scaler is not None:
            scaler.update_scale(True)


def discard_gradients(optimizer: Any) -> None:
    """Discard reduced and accumulated gradients, so that the next step starts without any.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer.
    """
    if hasattr(optimizer, "averaged_gradients"):
        optimizer.micro_step_id = INITIAL_MICRO_STEP_ID
        optimizer._release_preflattened_grad_buffers()
        for group in optimizer.averaged_gradients:
            optimizer.averaged_gradients[group] = None
            optimizer.all_grad_tensors[group] = None
    # BF16_Optimizer's zero_grad clears its fp32 gradients as well.
    optimizer.zero_grad(set_to_none=True)


def agreed_finite(optimizer: Any, session: Session, loss: GLMLoss, pending: PendingUpdate) -> bool:
    """Whether losses and gradients of all ranks are finite, with the same result on each; collective.

    The wrapper itself checks only the ranks of one replica, and only gradients that its norm counts.

    Args:
        optimizer: ZeRO-1's wrapper of fp32, just before its `step`.
        session: process groups of all ranks that train the model.
        loss: of this rank.
        pending: knows it already if a hook has read the norms.
    """
    if pending.known is not None:
        return pending.known.is_finite
    return session.max([float(not sharded_are_finite(optimizer, loss.recorded))]) == [0.0]


def scaled_update(optimizer: Any, loss: GLMLoss) -> Update:
    """The update of fp16: its wrapper checks the gradients of all ranks, and adjusts its loss scale by the result.

    Args:
        optimizer: ZeRO-1's wrapper of fp16.
        loss: of this rank; losses that are not finite count as an overflow.
    """
    update = optimizer.step

    def step(_: PendingUpdate) -> None:
        overflow_unless_finite(optimizer, loss.recorded)
        update()

    return step


def partition_update(optimizer: Any, clip: float, gather: Callable[[], None]) -> Update:
    """The update of bf16: each replica clips and updates its own partition, and the weights are gathered.

    DeepSpeed's own `step` clips every gradient on every replica, and fails on a rank that counts none: a last stage
    without layers, on all but its first tensor-parallel rank.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer; at least this replica's partition of its gradients is reduced.
        clip: largest global gradient norm; 0: no clipping.
        gather: rounds the masters to weights, and exchanges them between the replicas.
    """

    def step(pending: PendingUpdate) -> None:
        factor = _clip_factor(_note_norm(optimizer, pending), clip)
        own = optimizer.fp32_groups_gradient_flat_partition
        for masters, gradients in zip(optimizer.fp32_groups_flat_partition, own, strict=True):
            if factor < 1:
                gradients.mul_(factor)
            masters.grad = gradients
        optimizer.optimizer.step()
        # Links the optimizer's slots to the parameters, at the first step.
        optimizer._lazy_init_hp_params_optimizer_state()
        gather()

    return step


def round_masters(optimizer: Any) -> None:
    """Round the masters to the weights, on one replica, which has nobody to exchange partitions with.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer.
    """
    masters = optimizer.fp32_groups_flat_partition
    for (weights,), wide in zip(optimizer.bf16_partitioned_groups, masters, strict=True):
        weights.data.copy_(wide.data)


def whole_update(optimizer: Any, clip: float) -> Update:
    """The update of an optimizer without ZeRO: norm, clip, then step.

    Without a wrapper DeepSpeed reports no norm, and clips by a norm that leaves out the vectors of later stages and
    counts the tied matrix twice.

    Args:
        optimizer: torch's optimizer of this rank's parameters; each `grad` is the mean over the replicas by then.
        clip: largest global gradient norm; 0: no clipping.
    """
    update = optimizer.step
    parameters = [each for group in optimizer.param_groups for each in group["params"]]

    def step(pending: PendingUpdate) -> None:
        factor = _clip_factor(_note_norm(optimizer, pending), clip)
        if factor < 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        update()

    return step


def _note_norm(optimizer: Any, pending: PendingUpdate) -> float:
    """The gradient's norm, which is finite here, noted where DeepSpeed's engine reads it."""
    norm = pending.norms.total
    optimizer.overflow = False
    optimizer._global_grad_norm = norm
    return norm


def _clip_factor(norm: float, clip: float) -> float:
    # As DeepSpeed clips.
    return min(clip / (norm + 1e-6), 1.0) if clip > 0 else 1.0
