"""The training engine: DeepSpeed's pipeline engine over the model's layer list, behind four verbs.

The loop sees `train_step`, `evaluate`, `close` and numbers; that DeepSpeed runs a 1F1B schedule over Megatron-core
layers under ZeRO-1 is known here only. One process on a laptop takes the same path as 768 GPUs.

Three of DeepSpeed's defaults are turned off on purpose: its learning-rate scheduler (schedules are functions of the
samples seen, train/plan.py), partitioned activations between stages (exact shapes, one float tensor first), and
reentrant checkpointing (integer inputs cannot pass through it on the first stage).
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import deepspeed
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.schedule import TrainSchedule

from configs import derive
from configs.schema import Config, Precision
from glm.embedding import WordEmbedding
from glm.loss import GLMLoss, ObjectiveSums
from glm.model import LayerDef, layer_list
from train.batches import MicroBatch
from train.distributed import Session, deepspeed_grid
from train.gradients import embedding_sum_of_squares
from train.optimizer import build_optimizer
from train.plan import StepPlan
from train.whole_update import guard_update
from train.zero import OptimizerState


class StagedModule(PipelineModule):
    """DeepSpeed's pipeline module, cut where configs/derive.py says.

    DeepSpeed's own balancing may leave the tied head alone on the last stage; see `derive.stage_bounds`.
    """

    def _partition_layers(self, method: str = "uniform") -> None:
        """Take the stage borders from the partition method, a comma-separated list of entries."""
        self.parts = [int(bound) for bound in method.split(",")]
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def to(self, *args: Any, **kwargs: Any) -> "StagedModule":
        """Move to a device; the shapes of a dry run have nothing that could be moved."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return self
        return super().to(*args, **kwargs)


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did, as this rank knows it."""

    sums: ObjectiveSums
    """Weighted loss sums per objective of this rank's rows (empty except on the last stage)."""
    grad_norm: float
    """Global gradient norm before clipping."""
    embedding_sum_of_squares: float
    """This rank's share of the squared norm of the embedding's gradient."""
    was_skipped: bool
    """True if an overflow or NaN kept the weights as they were."""
    loss_scale: float | None
    """Loss scale that this step used; None without loss scaling."""


class Engine:
    """A model in training, on this rank.

    Args:
        config: the run; `precision` is resolved.
        session: the open process groups.
    """

    def __init__(self, config: Config, session: Session) -> None:
        assert config.precision is not Precision.auto, "the start resolves the precision first"
        self._session = session
        self._precision = config.precision
        self._sums = ObjectiveSums()
        self.module = build_pipeline(config, session, GLMLoss(self._sums))
        with quiet():
            engine: Any
            engine, *_ = deepspeed.initialize(
                model=self.module,
                optimizer=build_optimizer(self.module, config.optim, session.device.type),
                config=deepspeed_config(config, session.topology.dp),
            )
        self.deepspeed = engine
        self._optimizer: Any = engine.optimizer
        if config.parallel.zero_stage == 0:
            guard_update(self._optimizer, self.module, session, config.optim.clip)
        if config.precision is Precision.fp16:
            # At the least scale it would raise; the loop counts the steps in a row instead, and says what to do.
            self._optimizer.loss_scaler.raise_error_at_min_scale = False
        self.optimizer_state = OptimizerState(
            self.deepspeed, self.module, config.model.num_layers, session.topology
        )
        self._embeddings = [
            module for module in self.module.modules() if isinstance(module, WordEmbedding)
        ]
        self._embedding_squares = 0.0
        if session.topology.is_first_stage:
            self._watch_embedding_gradient(self._embeddings[0])

    def train_step(self, step: StepPlan, batches: Iterable[MicroBatch]) -> StepOutcome:
        """Train one global batch: forward, backward, reduce, clip, update.

        Args:
            step: batch size, learning rate and embedding shrink of this step.
            batches: this rank's micro-batches in order (ignored on stages that read no data).
        """
        self._apply(step)
        loss_scale = self.loss_scale
        skipped_before = self.deepspeed.skipped_steps
        self._sums.clear()
        self.deepspeed.train_batch(iter(batches))
        norm = self.deepspeed.get_global_grad_norm()
        return StepOutcome(
            sums=self._sums.copy(),
            grad_norm=math.nan if norm is None else float(norm),
            embedding_sum_of_squares=self._embedding_squares,
            was_skipped=self.deepspeed.skipped_steps > skipped_before,
            loss_scale=loss_scale,
        )

    def evaluate(self, batches: Iterable[MicroBatch], num_micro_batches: int) -> ObjectiveSums:
        """Run forward only; returns this rank's loss sums (empty except on the last stage)."""
        self._sums.clear()
        self.deepspeed.eval_batch(
            iter(batches),
            num_micro_batches=num_micro_batches,
            reduce_output=None,
            bcast_loss=False,
        )
        return self._sums.copy()

    @property
    def loss_scale(self) -> float | None:
        """Current fp16 loss scale; None in other precisions."""
        if self._precision is not Precision.fp16:
            return None
        return float(self._optimizer.loss_scaler.cur_scale)

    def before_update(self, action: Callable[[], None]) -> None:
        """Call `action` in every step from now on, just before the optimizer changes the state."""
        optimizer, step_optimizer = self._optimizer, self._optimizer.step

        def step(*args: object, **kwargs: object) -> object:
            action()
            return step_optimizer(*args, **kwargs)

        optimizer.step = step

    def close(self) -> None:
        """Let go of the engine's hooks and buffers."""
        self.deepspeed.destroy()

    def _apply(self, step: StepPlan) -> None:
        if self.deepspeed.train_batch_size() != step.num_samples:
            self.deepspeed.set_train_batch_size(step.num_samples)
        for group in self._optimizer.param_groups:
            group["lr"] = step.learning_rate
        for embedding in self._embeddings:
            embedding.gradient_shrink = step.embedding_shrink

    def _watch_embedding_gradient(self, embedding: WordEmbedding) -> None:
        """Take the embedding's squared gradient norm just before the optimizer consumes the gradients."""

        def take() -> None:
            self._embedding_squares = embedding_sum_of_squares(
                self._optimizer, embedding.weight, self._session.topology, self.loss_scale or 1.0
            )

        self.before_update(take)


def build_pipeline(config: Config, session: Session, loss: GLMLoss | None) -> PipelineModule:
    """Build this rank's stage of the model as DeepSpeed's pipeline module."""
    layers = layer_list(config.model, seed=config.seed)
    bounds = derive.stage_bounds(config.model.num_layers, session.topology.pp)
    with quiet():
        return StagedModule(
            layers=[_layer_spec(layer) for layer in layers],
            topology=deepspeed_grid(session.topology),
            loss_fn=loss,
            partition_method=",".join(map(str, bounds)),
            checkpointable_layers=["GLMLayer"],
        )


def stage_instructions(num_micro_batches: int, pp: int, stage: int) -> list[tuple[str, int]]:
    """DeepSpeed's training schedule of a stage.

    Returns:
        The name of each instruction in order, with its pipe buffer (-1: none).
    """
    schedule = TrainSchedule(micro_batches=num_micro_batches, stages=pp, stage_id=stage)
    return [
        (type(instruction).__name__, getattr(instruction, "buffer_id", -1))
        for instructions in schedule
        for instruction in instructions
    ]


def deepspeed_config(config: Config, dp: int) -> dict[str, object]:
    """Render the part of our configuration that DeepSpeed acts on.

    The first batch size may be any one that fits: every step sets its own.
    """
    micro_batch_size = config.optim.micro_batch_size
    rendered: dict[str, object] = {
        "train_batch_size": micro_batch_size * dp,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        # Without ZeRO train/whole_update.py clips.
        "gradient_clipping": 0.0 if config.parallel.zero_stage == 0 else config.optim.clip,
        "steps_per_print": None,
        "zero_optimization": {
            "stage": config.parallel.zero_stage,
            "reduce_bucket_size": derive.reduce_bucket_size(config),
        },
        "zero_allow_untested_optimizer": True,
        "pipeline": {
            "activation_checkpoint_interval": int(config.parallel.recompute),
            "use_reentrant": False,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        },
    }
    if config.precision is Precision.bf16:
        rendered["bf16"] = {"enabled": True}
        # Without these DeepSpeed adds up micro-batches' gradients in bf16, and replicas' as well.
        rendered["data_types"] = {"grad_accum_dtype": "fp32"}
        rendered["communication_data_type"] = "fp32"
    if config.precision is Precision.fp16:
        stability = config.stability
        rendered["fp16"] = {
            "enabled": True,
            "initial_scale_power": round(math.log2(stability.initial_loss_scale)),
            "loss_scale_window": stability.loss_scale_window,
            "hysteresis": stability.loss_scale_hysteresis,
            "min_loss_scale": stability.min_loss_scale,
        }
    return rendered


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own prints off the user's terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _layer_spec(layer: LayerDef) -> LayerSpec:
    if layer.tied_key is None:
        return LayerSpec(layer.cls, **layer.kwargs)
    return TiedLayerSpec(
        layer.tied_key,
        layer.cls,
        forward_fn=layer.forward,
        tied_weight_attr=layer.tied_weight,
        **layer.kwargs,
    )
