"""What happens between gradient reduction and the optimizer's update: hooks first, then skip or clip, then update.

DeepSpeed calls `optimizer.step`. This is the only file that wraps that method.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID
from torch import nn

from train.engine.gradients import counted_squares, holds_only_finite
from train.engine.interface import GradientNorms, PendingUpdate, UpdateHook
from train.engine.overlap import Overlap
from train.session import Session

Update = Callable[..., object]


class UpdateGate:
    """Runs hooks before each update of an optimizer, which they may veto.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer; its `step` is replaced.
        update: performs the update if no hook has vetoed it.
        measure: computes the gradient's norms; collective.
        is_finite: whether the gradients of all ranks are finite, with the same result on each; collective. None:
            `update` checks this itself.
    """

    def __init__(
        self,
        optimizer: Any,
        update: Update,
        measure: Callable[[], GradientNorms],
        is_finite: Callable[[], bool] | None,
    ) -> None:
        self._optimizer = optimizer
        self._update = update
        self._measure = measure
        self._is_finite = is_finite
        self._hooks: list[UpdateHook] = []
        self.vetoes: tuple[str, ...] = ()
        """Why the last update was vetoed; empty if it was not."""
        optimizer.step = self._step

    def add(self, hook: UpdateHook) -> Callable[[], None]:
        """Call `hook` before each update, after earlier hooks; returns a function that removes it."""
        self._hooks.append(hook)
        return functools.partial(self._hooks.remove, hook)

    def _step(self, *args: object, **kwargs: object) -> object:
        pending = PendingUpdate(self._measure)
        for hook in self._hooks:
            hook(pending)
        self.vetoes = tuple(pending.vetoes)
        if self.vetoes:
            self._skip(pending.norms.total)
            return None
        if self._is_finite is not None and not self._is_finite():
            self._skip(math.inf)
            return None
        return self._update(*args, **kwargs)

    def _skip(self, norm: float) -> None:
        """Skip the update, and set the flags that DeepSpeed's engine reads to count the skipped step and return its norm."""
        self._optimizer.overflow = True
        self._optimizer._global_grad_norm = norm
        discard_gradients(self._optimizer)


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


def agreed_finite(optimizer: Any, module: nn.Module, session: Session) -> bool:
    """Whether the gradients of all ranks are finite, with the same result on each; collective.

    The norm is not enough: it counts a gradient that several ranks hold on one of them only, and DeepSpeed's wrappers
    for fp32 and bf16 check only the ranks of one replica.

    Args:
        optimizer: DeepSpeed's wrapper, or torch's optimizer, just before its `step`.
        module: this rank's stage.
        session: process groups of all ranks that train the model.
    """
    is_finite = holds_only_finite(optimizer, module.parameters())
    return session.max([float(not is_finite)]) == [0.0]


def allow_empty_norm(optimizer: Any) -> None:
    """Make bf16's wrapper count a norm of 0 on a rank that counts no gradient, where it would otherwise fail.

    This happens on a last stage without layers, on all but its first tensor-parallel rank: the gradients of its final
    norm and its tied head are counted on other ranks.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer.
    """
    counted = optimizer.get_grads_for_norm

    def never_empty(for_clipping: bool = False) -> Any:
        found = counted(for_clipping=for_clipping)
        if for_clipping:
            return found
        gradients, of_experts = found
        return gradients or [optimizer.fp32_groups_gradients_flat[0].new_zeros(1)], of_experts

    optimizer.get_grads_for_norm = never_empty


def overlapped_update(
    optimizer: Any, module: nn.Module, session: Session, clip: float, overlap: Overlap
) -> Update:
    """The update where each replica holds the gradients of its own partition alone (`parallel.overlap`).

    Like DeepSpeed's, it sets `_global_grad_norm` and `overflow`. Norm and the check for finite gradients are one exchange.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer.
        module: this rank's stage.
        session: process groups of all ranks that train the model.
        clip: largest global gradient norm; 0: no clipping.
        overlap: what has reduced the gradients, and gathers the weights.
    """

    def step(*args: object, **kwargs: object) -> None:
        squares = sum(
            counted_squares(optimizer, parameter, session.topology)
            for parameter in module.parameters()
        )
        wrong = not holds_only_finite(optimizer, module.parameters())
        total, num_wrong = session.sum([squares, float(wrong)])
        optimizer.overflow = num_wrong > 0
        optimizer._global_grad_norm = math.inf if num_wrong else math.sqrt(total)
        if num_wrong:
            discard_gradients(optimizer)
            return
        own = optimizer.fp32_groups_gradient_flat_partition
        # As DeepSpeed clips.
        factor = clip / (optimizer._global_grad_norm + 1e-6)
        for masters, gradients in zip(optimizer.fp32_groups_flat_partition, own, strict=True):
            if 0 < factor < 1:
                gradients.mul_(factor)
            masters.grad = gradients
        optimizer.optimizer.step()
        # Links the optimizer's slots to the parameters, at the first step.
        optimizer._lazy_init_hp_params_optimizer_state()
        overlap.gather()
        optimizer.clear_hp_grads()

    return step


def clipped_update(optimizer: Any, module: nn.Module, session: Session, clip: float) -> Update:
    """The update of an optimizer without ZeRO (`parallel.zero_stage=0`): norm, clip, then step.

    ZeRO-1's wrappers do this themselves. Without a wrapper DeepSpeed reports no norm, and clips by a norm that leaves
    out the vectors of later stages and counts the tied matrix twice. Like the wrappers, this update sets
    `_global_grad_norm` and `overflow`, which DeepSpeed's engine reads. It is called with finite gradients only
    (`agreed_finite`).

    Args:
        optimizer: torch's optimizer of this rank's parameters; each `grad` is the mean over the replicas by then.
        module: this rank's stage.
        session: process groups of all ranks that train the model.
        clip: largest global gradient norm; 0: no clipping.
    """
    update = optimizer.step

    def step(*args: object, **kwargs: object) -> object:
        squares = sum(
            counted_squares(optimizer, parameter, session.topology)
            for parameter in module.parameters()
        )
        norm = math.sqrt(session.sum([squares])[0])
        optimizer.overflow = False
        optimizer._global_grad_norm = norm
        if clip > 0:
            torch.nn.utils.clip_grads_with_norm_(module.parameters(), clip, torch.tensor(norm))
        return update(*args, **kwargs)

    return step
