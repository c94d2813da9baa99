"""The state that a rank owns under ZeRO-1: reading it for a checkpoint, and loading it back.

Both wrappers (DeepSpeedZeroOptimizer for fp32 and fp16, BF16_Optimizer) flatten each parameter group and keep one
partition of fp32 masters and moments per replica. `parameter._hp_mapping` says which flat range of the parameter lies
where in the partition. DeepSpeed's own accessors for optimizer states fail with two parameter groups (0.19.8 links
only the first), so this file cuts the flat tensors itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import CheckpointError
from configs.optimizers import OptimizerKind, StepCount
from glm.checkpoint.boxes import TensorSlice
from glm.checkpoint.manifest import MASTER, PARAMETER
from glm.checkpoint.reader import Reader
from glm.checkpoint.writer import Piece
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from train.engine.stages import is_tied_copy
from train.engine.update import discard_gradients
from train.topology import Topology

_COUNTERS = ("global_steps", "global_samples", "skipped_steps")
_LARGEST_COUNT = 2**48
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


@dataclass(frozen=True)
class _Owned:
    """The part of one parameter whose optimizer state this rank holds."""

    name: str
    shard: TensorSlice
    start: int
    """First flat element within the shard."""
    states: dict[str, Tensor]
    """Flat fp32 views of the optimizer's memory, by slot: the master weights, and the optimizer's own slots."""
    weights: Tensor | None
    """Flat view of the same part in training precision; None for fp32, where the master holds the same values."""
    is_writer: bool
    """True on the one rank that stores this part."""


class PartitionedState:
    """The state of this rank, as boxes of whole tensors; implements `TrainingState`.

    Args:
        engine: DeepSpeed's pipeline engine, between steps.
        module: the engine's stage of the model.
        kind: the optimizer's description, which declares its slots.
        num_layers: number of layers of the whole model; needed to name parameters.
        topology: this rank's position in the layout.
        settle: waits for what still changes the weights after a step.
    """

    def __init__(
        self,
        engine: Any,
        module: nn.Module,
        kind: OptimizerKind,
        num_layers: int,
        topology: Topology,
        settle: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._wrapper = engine.optimizer
        # Without ZeRO the engine's optimizer is torch's own.
        self._is_sharded = hasattr(self._wrapper, "optimizer")
        self._optimizer = self._wrapper.optimizer if self._is_sharded else self._wrapper
        self._kind = kind
        self._module = module
        self._num_layers = num_layers
        self._topology = topology
        self._settle = settle
        self._pieces: list[Piece] = []
        self._cut_at: list[int] = []

    def shapes(self) -> dict[str, list[int]]:
        """Full shapes of this stage's parameters, by name."""
        return {
            name: list(self._shard(parameter).full_shape) for name, parameter in self._parameters()
        }

    def slots(self) -> dict[str, list[str]]:
        """Stored slots by parameter: fp32 weights, the optimizer's slots, and weights in training precision."""
        optimizer_slots = [MASTER, *self._kind.slots]
        return {
            name: [*([PARAMETER] if parameter.dtype != torch.float32 else []), *optimizer_slots]
            for name, parameter in self._parameters()
        }

    def pieces(self) -> list[Piece]:
        """The boxes that this rank stores: views of memory in use on its device, to be copied before the next update.

        The same list is returned as long as the tensors have not moved, so that a save need not cut them again.
        """
        self._settle()
        self._ensure_slots()
        addresses = self._addresses()
        if addresses != self._cut_at:
            self._pieces = list(self._cut())
            self._cut_at = addresses
        return self._pieces

    def _addresses(self) -> list[int]:
        """Where everything that `_cut` makes views of lies."""
        tensors = [parameter.data for parameter in self._module.parameters()]
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                tensors += [parameter.data, *(state[slot] for slot in self._kind.slots)]
        return [tensor.data_ptr() for tensor in tensors]

    def _cut(self) -> Iterator[Piece]:
        for owned in self._owned():
            if not owned.is_writer:
                continue
            kinds = dict(owned.states)
            if owned.weights is not None:
                kinds[PARAMETER] = owned.weights
            for kind, values in kinds.items():
                for position, box in owned.shard.boxes(owned.start, values.numel()):
                    part = values.detach().narrow(0, position, box.volume)
                    yield Piece(owned.name, kind, box, part)

    def numbers(self) -> dict[str, Any]:
        """The optimizer's step count, the engine's counters and the loss scaler: one set for the whole run."""
        self._ensure_slots()
        state: dict[str, Any] = {
            "step": self._step(),
            "counters": {name: int(getattr(self._engine, name)) for name in _COUNTERS},
        }
        scaler = self._loss_scaler()
        if scaler is not None:
            state["loss_scaler"] = {name: getattr(scaler, name) for name in _SCALER}
        return state

    def load(self, reader: Reader) -> None:
        """Fill masters and slots from any checkpoint of the same model, then the training weights from the masters.

        It may be called on a fresh engine or between two steps. The previous state is replaced, and gradients are
        discarded.

        Raises:
            CheckpointError: the checkpoint holds other tensors or another optimizer's slots, or its numbers are damaged.
        """
        self._settle()
        self._check_shapes(reader)
        self._check_slots(reader)
        self._ensure_slots()
        with torch.no_grad():
            for owned in self._owned():
                for kind, values in owned.states.items():
                    self._fill(owned, kind, values, reader)
        try:
            self._set_numbers(reader.manifest.optimizer)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise CheckpointError(
                f"The checkpoint's optimizer numbers are damaged: {error!r}."
            ) from error
        self._update_weights()

    def load_weights(self, reader: Reader) -> None:
        """Fill the masters only, for a new run that starts from trained weights.

        Raises:
            CheckpointError: the checkpoint holds other tensors.
        """
        self._settle()
        self._check_shapes(reader)
        with torch.no_grad():
            for owned in self._owned(with_slots=False):
                self._fill(owned, MASTER, owned.states[MASTER], reader)
        self._update_weights()

    def _check_shapes(self, reader: Reader) -> None:
        stored = reader.manifest.tensors
        for name, shape in self.shapes().items():
            if stored.get(name) != shape:
                raise CheckpointError(
                    f"The checkpoint's {name} has shape {stored.get(name)}, this model's has {shape}: it is of another "
                    "model. Start another run with run.name=NAME."
                )

    def _check_slots(self, reader: Reader) -> None:
        stored = reader.manifest.slots
        for name in self.shapes():
            missing = [slot for slot in self._kind.slots if slot not in stored[name]]
            if missing:
                raise CheckpointError(
                    f"The checkpoint does not hold {name} ({missing[0]}): it was written with another optimizer. Type the "
                    "optim.name of the run that wrote it, or start another run from its weights with "
                    "checkpoint.init_from=PATH."
                )

    def _set_numbers(self, stored: dict[str, Any]) -> None:
        step = float(stored["step"])
        counters = {name: int(stored["counters"][name]) for name in _COUNTERS}
        if not all(0 <= number < _LARGEST_COUNT for number in (step, *counters.values())):
            raise ValueError(f"step {step} and counters {counters} are out of range")
        self._set_step(step)
        for name, number in counters.items():
            setattr(self._engine, name, number)
        scaler = self._loss_scaler()
        if (
            scaler is not None and "loss_scaler" in stored
        ):  # absent: the run was in another precision
            for name in _SCALER:
                setattr(scaler, name, type(getattr(scaler, name))(stored["loss_scaler"][name]))

    def _loss_scaler(self) -> Any:
        """The dynamic loss scaler of fp16; None in other precisions, where DeepSpeed's scaler does nothing."""
        scaler = getattr(self._wrapper, "loss_scaler", None)
        return scaler if getattr(scaler, "dynamic", False) else None

    def _fill(self, owned: _Owned, kind: str, values: Tensor, reader: Reader) -> None:
        for position, box in owned.shard.boxes(owned.start, values.numel()):
            stored = reader.read(owned.name, kind, box).reshape(-1)
            values.narrow(0, position, box.volume).copy_(stored)

    def _update_weights(self) -> None:
        if self._is_sharded:
            self._wrapper.update_lp_params()
        discard_gradients(self._wrapper)

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self._module.named_parameters():
            yield parameter_name(name, self._num_layers), parameter

    def _shard(self, parameter: nn.Parameter) -> TensorSlice:
        axis = partition_dim(parameter)
        topology = self._topology
        return TensorSlice(tuple(parameter.shape), axis, topology.tp_rank, topology.tp)

    def _owned(self, with_slots: bool = True) -> Iterator[_Owned]:
        for name, parameter in self._parameters():
            shard = self._shard(parameter)
            # Other ranks store the tied head's copy, and all but the first copy of parameters that are not cut.
            is_writer = not is_tied_copy(parameter) and (
                shard.axis is not None or self._topology.tp_rank == 0
            )
            if not self._is_sharded:
                whole = parameter.data.reshape(-1)
                states = self._states(parameter, whole, 0, whole.numel(), with_slots)
                is_writer = is_writer and self._topology.dp_rank == 0
                yield _Owned(name, shard, 0, states, None, is_writer)
                continue
            mapping: Any = vars(parameter)["_hp_mapping"]
            if mapping is None:  # another replica owns all of it
                continue
            flat = self._optimizer.param_groups[mapping.param_group_index]["params"][0]
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            states = self._states(flat, flat.data, here.start, here.numel, with_slots)
            weights = None
            if parameter.dtype != torch.float32:
                weights = parameter.data.reshape(-1).narrow(0, there.start, there.numel)
            yield _Owned(name, shard, there.start, states, weights, is_writer)

    def _states(
        self, key: Tensor, master: Tensor, start: int, count: int, with_slots: bool
    ) -> dict[str, Tensor]:
        flat = {MASTER: master}
        if with_slots:
            state = self._optimizer.state[key]
            flat.update({slot: state[slot].reshape(-1) for slot in self._kind.slots})
        return {kind: values.narrow(0, start, count) for kind, values in flat.items()}

    def _ensure_slots(self) -> None:
        """Create the optimizer's slots, which the optimizer itself creates only at its first step."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                if state:
                    continue
                for slot in self._kind.slots:
                    state[slot] = torch.zeros_like(parameter.data)
                if self._kind.step_count is StepCount.tensor:
                    is_on_device = group.get("fused") or group.get("capturable")
                    device = parameter.device if is_on_device else torch.device("cpu")
                    state["step"] = torch.zeros((), dtype=torch.float32, device=device)

    def _step(self) -> float:
        """Number of updates that the optimizer has made; skipped steps do not count."""
        group = self._optimizer.param_groups[0]
        if self._kind.step_count is StepCount.tensor:
            return float(self._optimizer.state[group["params"][0]]["step"])
        return float(group.get("step", 0))

    def _set_step(self, step: float) -> None:
        for group in self._optimizer.param_groups:
            if self._kind.step_count is StepCount.group:
                group["step"] = int(step)
            if self._kind.step_count is not StepCount.tensor:
                continue
            for parameter in group["params"]:
                self._optimizer.state[parameter]["step"].fill_(step)
