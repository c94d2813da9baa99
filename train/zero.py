"""What a rank owns under ZeRO-1, and how to put it back: the only file that knows DeepSpeed's optimizer wrappers.

Both wrappers (DeepSpeedZeroOptimizer for fp32 and fp16, BF16_Optimizer) flatten each parameter group and keep one
partition of fp32 masters and moments per replica. `parameter._hp_mapping` says which flat range of the parameter lies
where in the partition. DeepSpeed's own accessors for optimizer states fail with two parameter groups (0.19.8 links
only the first), so the flat tensors are cut by hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glm.checkpoint.boxes import Box, Shard
from glm.checkpoint.folder import Reader
from glm.checkpoint.manifest import KINDS
from glm.model import parameter_name
from glm.tensor_parallel import partition_dim
from train.topology import Topology

_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


@dataclass(frozen=True)
class _Owned:
    """The part of one parameter whose optimizer state this rank holds."""

    name: str
    shard: Shard
    start: int
    """First flat element within the shard."""
    states: dict[str, Tensor]
    """Flat fp32 views of the optimizer's memory, by kind."""
    is_writer: bool
    """True on the one rank that stores this part."""


class OptimizerState:
    """The optimizer state of this rank, as boxes of whole tensors.

    Args:
        engine: DeepSpeed's pipeline engine, between steps.
        module: its stage of the model.
        num_layers: of the whole model, to name parameters.
        topology: this rank's place.
    """

    def __init__(self, engine: Any, module: nn.Module, num_layers: int, topology: Topology) -> None:
        self._wrapper = engine.optimizer
        # Without ZeRO the engine's optimizer is torch's own.
        self._is_sharded = hasattr(self._wrapper, "optimizer")
        self._adam = self._wrapper.optimizer if self._is_sharded else self._wrapper
        self._module = module
        self._num_layers = num_layers
        self._topology = topology

    def shapes(self) -> dict[str, list[int]]:
        """Whole shapes of this stage's parameters."""
        return {
            name: list(self._shard(parameter).full_shape) for name, parameter in self._parameters()
        }

    def pieces(self) -> list[tuple[str, str, Box, Tensor]]:
        """The boxes that this rank stores: (name, kind, box, flat CPU tensor)."""
        self._ensure_moments()
        found = []
        for owned in self._owned():
            if not owned.is_writer:
                continue
            for kind, values in owned.states.items():
                host = values.detach().cpu()
                for position, box in owned.shard.boxes(owned.start, host.numel()):
                    found.append((owned.name, kind, box, host.narrow(0, position, box.volume)))
        return found

    def numbers(self) -> dict[str, Any]:
        """Adam's step count and the loss scaler: one set for the whole run."""
        self._ensure_moments()
        state: dict[str, Any] = {"step": self._step()}
        scaler = getattr(self._wrapper, "loss_scaler", None)
        if scaler is not None:
            state["loss_scaler"] = {
                name: getattr(scaler, name) for name in _SCALER if hasattr(scaler, name)
            }
        return state

    def load(self, reader: Reader) -> None:
        """Fill masters and moments from any checkpoint of the same model, then the training weights from them."""
        self._ensure_moments()
        with torch.no_grad():
            for owned in self._owned():
                for kind, values in owned.states.items():
                    self._fill(owned, kind, values, reader)
        self._set_step(float(reader.manifest.optimizer["step"]))
        stored = reader.manifest.optimizer.get("loss_scaler", {})
        scaler = getattr(self._wrapper, "loss_scaler", None)
        for name, value in stored.items():
            if scaler is not None and name in _SCALER and hasattr(scaler, name):
                setattr(scaler, name, value)
        self._update_weights()

    def load_weights(self, reader: Reader) -> None:
        """Fill the masters alone: a new run that starts from trained weights."""
        with torch.no_grad():
            for owned in self._owned(with_moments=False):
                self._fill(owned, "master", owned.states["master"], reader)
        self._update_weights()

    def _fill(self, owned: _Owned, kind: str, values: Tensor, reader: Reader) -> None:
        for position, box in owned.shard.boxes(owned.start, values.numel()):
            stored = reader.read(owned.name, kind, box).reshape(-1)
            values.narrow(0, position, box.volume).copy_(stored)

    def _update_weights(self) -> None:
        if self._is_sharded:
            self._wrapper.update_lp_params()

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self._module.named_parameters():
            yield parameter_name(name, self._num_layers), parameter

    def _shard(self, parameter: nn.Parameter) -> Shard:
        axis = partition_dim(parameter)
        topology = self._topology
        return Shard(tuple(parameter.shape), axis, topology.tp_rank, topology.tp)

    def _owned(self, with_moments: bool = True) -> Iterator[_Owned]:
        for name, parameter in self._parameters():
            shard = self._shard(parameter)
            # The tied head's copy, and all but the first copy of uncut parameters, are stored by others.
            is_writer = not getattr(parameter, "ds_pipe_replicated", False) and (
                shard.axis is not None or self._topology.tp_rank == 0
            )
            if not self._is_sharded:
                states = {"master": parameter.data.reshape(-1)}
                if with_moments:
                    adam = self._adam.state[parameter]
                    states.update({kind: adam[kind].reshape(-1) for kind in _MOMENTS})
                yield _Owned(name, shard, 0, states, is_writer and self._topology.dp_rank == 0)
                continue
            mapping = parameter._hp_mapping
            if mapping is None:  # another replica owns all of it
                continue
            flat = self._adam.param_groups[mapping.param_group_index]["params"][0]
            place = mapping.hp_fragment_address
            states = {"master": flat.data.narrow(0, place.start, place.numel)}
            if with_moments:
                adam = self._adam.state[flat]
                states.update(
                    {kind: adam[kind].narrow(0, place.start, place.numel) for kind in _MOMENTS}
                )
            assert set(states) <= set(KINDS), "the manifest knows every kind"
            yield _Owned(name, shard, mapping.lp_fragment_address.start, states, is_writer)

    def _ensure_moments(self) -> None:
        """Make Adam's states, which torch makes at the first step only."""
        for group in self._adam.param_groups:
            for parameter in group["params"]:
                if self._adam.state[parameter]:
                    continue
                is_fused = group.get("fused") or group.get("capturable")
                step_device = parameter.device if is_fused else torch.device("cpu")
                self._adam.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=step_device),
                    "exp_avg": torch.zeros_like(parameter.data),
                    "exp_avg_sq": torch.zeros_like(parameter.data),
                }

    def _step(self) -> float:
        for group in self._adam.param_groups:
            for parameter in group["params"]:
                return float(self._adam.state[parameter].get("step", group.get("step", 0)))
        return 0.0

    def _set_step(self, step: float) -> None:
        for group in self._adam.param_groups:
            if "step" in group:  # Apex keeps one per group
                group["step"] = int(step)
            for parameter in group["params"]:
                stored = self._adam.state[parameter].get("step")
                if isinstance(stored, Tensor):
                    stored.fill_(step)
