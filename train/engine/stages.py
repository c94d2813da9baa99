"""A rank's stage of the model as DeepSpeed's pipeline module, and DeepSpeed's schedule for it."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.schedule import TrainSchedule
from torch import nn

from configs import derive
from configs.schema import Config
from glm.embedding import WordEmbedding
from glm.loss import GLMLoss
from glm.model import TIED_KEY, LayerDef, layer_list
from train.engine.groups import deepspeed_grid
from train.session import Session


class StagedModule(PipelineModule):
    """DeepSpeed's pipeline module, cut at the borders that configs/derive.py computes.

    DeepSpeed's own balancing may leave the tied head alone on the last stage; see `derive.stage_entries`.
    """

    def _partition_layers(self, method: str = "uniform") -> None:
        """Take the stage borders from the partition method, a comma-separated list of entries."""
        self.parts = [int(bound) for bound in method.split(",")]
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    @property
    def chunks(self) -> list[range]:
        """List entries that this rank holds, as DeepSpeed has built them."""
        built: Any = self
        return [range(built._local_start, built._local_stop)]

    @property
    def groups(self) -> dict[str, list[int]]:
        """Members of this rank's groups as DeepSpeed knows them, by axis."""
        grid: Any = self._grid
        return {
            "data": list(grid.dp_group),
            "pipeline": list(grid.pp_group),
            "tensor": list(grid.slice_group),
        }

    @property
    def tied_ranks(self) -> dict[str, list[int]]:
        """Ranks that hold a copy of each tied module, as this rank knows them."""
        return {key: list(tie["ranks"]) for key, tie in self.tied_comms.items()}

    def rank_of_stage(self, stage: int) -> int:
        """The rank of the given stage in this rank's pipeline, with which a neighbouring stage exchanges activations."""
        grid: Any = self._grid
        return grid.stage_to_global(stage_id=stage)

    def to(self, *args: Any, **kwargs: Any) -> "StagedModule":
        """Move to a device; does nothing for the meta tensors of a dry run, which have no storage."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return self
        return super().to(*args, **kwargs)


def is_tied_copy(parameter: nn.Parameter) -> bool:
    """True for the tied head's matrix, which the first stage owns."""
    return bool(getattr(parameter, "ds_pipe_replicated", False))


def build_pipeline(config: Config, session: Session, loss: GLMLoss | None) -> StagedModule:
    """Build this rank's stage of the model as DeepSpeed's pipeline module, on the session's device."""
    layers = layer_list(config.model, config.seed, derive.is_sequence_cut(config.parallel))
    stages = derive.stage_entries(config.model.num_layers, session.topology.pp)
    bounds = [chunk.start for (chunk,) in stages] + [stages[-1][0].stop]
    # Left alone, the weights would be drawn on the CPU and then copied.
    with quiet(), session.device:
        module = StagedModule(
            layers=[_layer_spec(layer) for layer in layers],
            topology=deepspeed_grid(session.topology),
            loss_fn=loss,
            partition_method=",".join(map(str, bounds)),
            checkpointable_layers=["GLMLayer"],
        )
    if loss is not None and session.topology.is_last_stage:
        head = module.tied_modules[TIED_KEY]
        assert isinstance(head, WordEmbedding), "the head is the embedding with another function"
        loss.embedding = head
    return module


def stage_instructions(num_micro_batches: int, pp: int, stage: int) -> list[tuple[str, int]]:
    """List the instructions of DeepSpeed's training schedule for one stage.

    Returns:
        The name of each instruction in order, with the index of its pipe buffer (-1: none).
    """
    schedule = TrainSchedule(micro_batches=num_micro_batches, stages=pp, stage_id=stage)
    return [
        (type(instruction).__name__, getattr(instruction, "buffer_id", -1))
        for instructions in schedule
        for instruction in instructions
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the libraries print to standard output."""
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
