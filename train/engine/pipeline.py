"""The engine that trains: DeepSpeed's pipeline engine over the model's layer list.

DeepSpeed runs a 1F1B schedule over tensor-parallel layers under ZeRO-1, or Megatron-core an interleaved one over the
same engine. One process on a laptop runs the same code as 768 GPUs.

Three features of DeepSpeed are turned off on purpose: its learning-rate scheduler, because schedules are functions of
the samples seen (train/plan.py); partitioned activations between stages, because they need fixed shapes and a float
tensor first; and reentrant checkpointing, because the first stage's integer inputs cannot pass through it.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import deepspeed
from torch import Tensor, nn

from configs import computation, derive, pipeline
from configs.objectives import objectives_of
from configs.schema import Config, Precision, Recompute
from glm.embedding import WordEmbedding
from glm.light_imports import light_imports
from glm.loss import GLMLoss, ObjectiveSums
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim, tp_group
from train.batches import MicroBatch
from train.device import ahead
from train.engine.accumulate import Accumulation
from train.engine.gradients import FiniteNorm, counted_squares, is_sharded, measure_norms
from train.engine.held_bytes import held_bytes
from train.engine.interface import (
    GradientWatch,
    HeldBytes,
    HeldWeight,
    LayerWatch,
    Measured,
    PendingUpdate,
    RowWatch,
    StepOutcome,
    UpdateHook,
)
from train.engine.marked_instructions import mark_instructions
from train.engine.one_forward_one_backward import OneForwardOneBackward, Schedule
from train.engine.one_stage import OneStage
from train.engine.optimizers import build_optimizer, optimizer_kind
from train.engine.overlapped import build_overlap
from train.engine.recompute import checkpoint_function
from train.engine.reduction import skip_reduction
from train.engine.sequence import sum_partial_gradients_first
from train.engine.settings import deepspeed_config
from train.engine.stages import build_pipeline, quiet
from train.engine.state import PartitionedState
from train.engine.target_logits import target_logits
from train.engine.update import (
    Update,
    UpdateGate,
    agreed_finite,
    partition_update,
    round_masters,
    scaled_update,
    whole_update,
)
from train.parts import drawn
from train.plan import StepPlan
from train.session import Session
from train.shared_groups import shared_groups


class PipelineEngine:
    """This rank's part of a model in training; implements `Engine`.

    Args:
        config: of the run; `precision` is already resolved.
        session: the open process groups.
    """

    def __init__(self, config: Config, session: Session) -> None:
        assert config.precision is not Precision.auto, "the start resolves the precision first"
        self._config = config
        self._session = session
        self._loss = GLMLoss(len(objectives_of(config.objective)))
        dp = session.topology.dp
        zero_stage = computation.zero_stage(config.parallel, config.precision, dp)
        kind = optimizer_kind(config.optim.name, session.device.type)
        with shared_groups(session.device), quiet(), light_imports():
            self.module = build_pipeline(config, session, self._loss)
            engine: Any
            engine, *_ = deepspeed.initialize(
                model=self.module,
                optimizer=build_optimizer(kind, self.module, config.optim, session.device.type),
                config=deepspeed_config(config, dp),
            )
        self.deepspeed = engine
        if config.parallel.recompute is not Recompute.none:
            self.module.recompute = checkpoint_function(config.parallel.recompute)
        self._optimizer: Any = engine.optimizer
        self._overlap = build_overlap(config, session, engine, self.module)
        if dp == 1 and config.precision is not Precision.fp16:
            skip_reduction(engine)
        sum_partial_gradients_first(engine, self.module, tp_group())
        mark_instructions(engine)
        self._gate = self._build_gate()
        if zero_stage == 0:
            # The engine's own walks through all modules.
            engine.zero_grad = self._optimizer.zero_grad
        is_wide = hasattr(self._optimizer, "fp32_groups_gradients")
        on_ready = None if self._overlap is None else self._overlap.add_ready
        self._accumulation = Accumulation(self._optimizer, on_ready) if is_wide else None
        if config.precision is Precision.fp16:
            # At the smallest scale DeepSpeed would raise. The loop counts skipped steps in a row instead, and its
            # message says what to do.
            self._optimizer.loss_scaler.raise_error_at_min_scale = False
        self.state = PartitionedState(
            self.deepspeed,
            self.module,
            kind,
            config.model.num_layers,
            session.topology,
            self.settle,
        )
        self._schedule = self._build_schedule()
        self._embeddings = [
            module for module in self.module.modules() if isinstance(module, WordEmbedding)
        ]
        self._embedding_squares = 0.0
        self._on_gradient: GradientWatch | None = None

    def train_step(self, step: StepPlan, batches: Iterable[MicroBatch]) -> StepOutcome:
        """Train one global batch: forward, backward, reduce, clip, update.

        Args:
            step: batch size, learning rate and embedding gradient shrink of this step.
            batches: this rank's micro-batches in order (ignored on stages that read no data).
        """
        self._apply(step)
        loss_scale = self.loss_scale
        skipped_before = self.deepspeed.skipped_steps
        self._loss.scale = loss_scale or 1.0
        if self._overlap is not None:
            self._overlap.begin(self.deepspeed.gradient_accumulation_steps())
        self._schedule.train(drawn(ahead(batches, self._session.device)))
        norm = self.deepspeed.get_global_grad_norm()
        return StepOutcome(
            sums=self._loss.take(),
            grad_norm=math.nan if norm is None else float(norm),
            embedding_sum_of_squares=self._embedding_squares,
            was_skipped=self.deepspeed.skipped_steps > skipped_before,
            loss_scale=loss_scale,
            vetoes=self._gate.vetoes,
            norms=None if self._gate.measured is None else self._gate.measured.norms,
        )

    def evaluate(self, batches: Iterable[MicroBatch], num_micro_batches: int) -> ObjectiveSums:
        """Run forward only; returns this rank's loss sums (empty except on the last stage)."""
        self._schedule.evaluate(ahead(batches, self._session.device), num_micro_batches)
        return self._loss.take()

    def logits(self, tokens: Tensor, fields: Tensor) -> Tensor | None:
        """Logits of a few rows of any length between two steps, on the last stage; see `Engine`."""
        self.settle()
        parallel, width = self._config.parallel, self._config.model.hidden_size
        cut = parallel.tp if derive.is_sequence_cut(parallel) else 1
        return target_logits(self.module, self._session, tokens, fields, width, cut)

    @property
    def loss_scale(self) -> float | None:
        """Current fp16 loss scale; None in other precisions."""
        if self._config.precision is not Precision.fp16:
            return None
        return float(self._optimizer.loss_scaler.cur_scale)

    def add_hook(self, hook: UpdateHook) -> Callable[[], None]:
        """Call `hook` in every step from now on, after earlier hooks; returns a function that removes it."""
        return self._gate.add(hook)

    def weights(self) -> list[HeldWeight]:
        """All parameters of this rank's stage."""
        return [
            HeldWeight(name, partition_dim(parameter) is not None, parameter)
            for name, parameter in self._named_parameters()
        ]

    def settle(self) -> None:
        """Wait for weights that other replicas still send, before anything but a forward pass reads them."""
        if self._overlap is not None:
            self._overlap.settle()

    def watch_layers(self, watch: LayerWatch | None) -> None:
        """Show a function the output of each layer in training; see `Engine`."""
        self.module.on_layer = watch

    def watch_gradient(self, watch: GradientWatch | None) -> None:
        """Show a function the gradient's norms of each step; see `Engine`."""
        self._on_gradient = watch

    def watch_rows(self, watch: RowWatch | None) -> None:
        """Show a function the losses of each row; see `Engine`."""
        self._loss.on_rows = watch

    def held_bytes(self) -> HeldBytes:
        """Memory of weights, gradients and optimizer; see `Engine`."""
        return held_bytes(self.module, self._optimizer)

    def close(self) -> None:
        """Release the engine's hooks and buffers."""
        if self._overlap is not None:
            self._overlap.close()
        if self._accumulation is not None:
            self._accumulation.close()
        self.deepspeed.destroy()

    def _build_gate(self) -> UpdateGate:
        """Our own updates measure the gradient in every step; ZeRO-1's wrapper of fp32 and fp16 finds the norm by itself."""
        optimizer, session, config = self._optimizer, self._session, self._config
        if is_sharded(optimizer):
            update = _without_arguments(optimizer.step)
            is_finite = functools.partial(agreed_finite, optimizer, session, self._loss)
            if config.precision is Precision.fp16:
                update, is_finite = scaled_update(optimizer, self._loss), _leave_to_update
            measure = self._measure_norms
        else:
            update = self._own_update()
            is_finite = operator.attrgetter("is_finite")
            layers = config.model.num_layers
            named = self._named_parameters()
            measure = FiniteNorm(optimizer, named, layers, session, self._loss).measure
        return UpdateGate(optimizer, update, measure, is_finite, self._take_embedding_squares)

    def _own_update(self) -> Update:
        clip = self._config.optim.clip
        if self._config.precision is Precision.fp32:
            return whole_update(self._optimizer, clip)
        gather = self._optimizer.update_lp_params
        if self._session.topology.dp == 1:
            gather = functools.partial(round_masters, self._optimizer)
        elif self._overlap is not None:
            gather = self._overlap.gather
        return partition_update(self._optimizer, clip, gather)

    def _build_schedule(self) -> Schedule:
        if self._session.topology.pp == 1:
            return OneStage(self.deepspeed, self._loss)
        if not pipeline.is_interleaved(self._config.parallel):
            return OneForwardOneBackward(self.deepspeed)
        # Late: Megatron-core's schedules take a second to import.
        from train.engine.interleaved import Interleaved

        return Interleaved(self._config, self._session, self.deepspeed, self._loss)

    def _apply(self, step: StepPlan) -> None:
        if self.deepspeed.train_batch_size() != step.num_samples:
            self.deepspeed.set_train_batch_size(step.num_samples)
        for group in self._optimizer.param_groups:
            group["lr"] = step.learning_rate
        for embedding in self._embeddings:
            embedding.gradient_shrink = step.embedding_shrink

    def _take_embedding_squares(self, pending: PendingUpdate) -> None:
        """Record this rank's share of a metric of every step, without any communication of its own."""
        measured = pending.known if is_sharded(self._optimizer) else pending.measured
        if measured is not None:
            self._embedding_squares = measured.embedding_share
        elif (topology := self._session.topology).is_first_stage:
            squares = counted_squares(self._optimizer, self._embeddings[0].weight, topology)
            self._embedding_squares = squares / (self.loss_scale or 1.0) ** 2
        if self._on_gradient is not None:
            # Where nobody has asked, the step must not know either: its outcome would have other figures.
            self._on_gradient((pending.known or self._measure_norms()).norms)

    def _named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        num_layers = self._config.model.num_layers
        return [
            (parameter_name(name, num_layers), parameter)
            for name, parameter in self.module.named_parameters()
        ]

    def _measure_norms(self) -> Measured:
        return measure_norms(
            self._optimizer,
            self._named_parameters(),
            self._config.model.num_layers,
            self._session,
            self.loss_scale or 1.0,
            self._loss.recorded,
        )


def _without_arguments(step: Callable[[], object]) -> Update:
    return lambda _: step()


def _leave_to_update(_: PendingUpdate) -> bool:
    return True
