"""A rank's stage of the model as DeepSpeed's pipeline module, and DeepSpeed's schedule for it."""

import contextlib
import functools
import gc
import io
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe.schedule import TrainSchedule
from torch import nn

from configs import derive, pipeline
from configs.schema import Config
from glm.embedding import WordEmbedding
from glm.layer import GLMLayer
from glm.loss import GLMLoss
from glm.model import TIED_KEY, LayerDef, layer_list
from train.engine.groups import deepspeed_grid
from train.engine.interface import LayerWatch
from train.session import Session


class StagedModule(PipelineModule):
    """DeepSpeed's pipeline module, cut at the borders that configs/cutting.py computes, into one chunk or several.

    DeepSpeed's own balancing may leave the tied head alone on the last stage; see `cutting.stage_entries`. One chunk at a
    time is active: the one that `forward` runs.
    """

    chunks: list[range]
    """List entries of each chunk of this rank, as DeepSpeed has built them."""
    recompute: Callable[..., Any] | None = None
    """Runs each layer, called as recompute(layer, *inputs), and computes it again for its backward pass; None: nothing is
    computed again."""
    on_layer: LayerWatch | None = None
    """Called after the forward pass of each layer in training, not when it is computed again; None: nobody looks."""

    def _partition_layers(self, method: str = "uniform") -> None:
        """Take the borders of all parts from the partition method, a comma-separated list of entries."""
        self.parts = [int(bound) for bound in method.split(",")]
        stage = self._topo.get_coord(self.global_rank).pipe
        self._bounds = list(itertools.pairwise(self.parts))[stage :: self.num_stages]

    def _build(self) -> None:
        self.chunks = []
        self._chunk_functions: list[list[Callable[..., Any]]] = []
        for start, stop in self._bounds:
            self._set_bounds(start, stop)
            self.forward_funcs = []
            super()._build()
            built: Any = self
            self.chunks.append(range(built._local_start, built._local_stop))
            self._chunk_functions.append(self.forward_funcs)
        self.activate(0)

    def activate(self, chunk: int) -> None:
        """Make `forward` run a chunk."""
        self._set_bounds(*self._bounds[chunk])
        self.forward_funcs = self._chunk_functions[chunk]

    def forward(self, forward_input: Any) -> Any:
        """Run the active chunk.

        DeepSpeed's own function looks up what to compute again when it does, and another chunk may be active by then.
        """
        state = forward_input
        built: Any = self
        on_layer = self.on_layer if self.training else None
        for entry, function in enumerate(built.forward_funcs, built._local_start):
            if self.recompute is not None and isinstance(function, GLMLayer):
                state = self.recompute(functools.partial(_call, function), *state)
            else:
                state = function(state)
            if on_layer is not None and isinstance(function, GLMLayer):
                # The list begins with the embedding.
                on_layer(entry - 1, state[0].detach())
        return state

    def _synchronize_tied_weights(self) -> None:
        # Otherwise PyTorch warns in every rank's first backward pass that it cannot differentiate a broadcast.
        with torch.no_grad():
            super()._synchronize_tied_weights()

    def stage_owner(self, layer_idx: int) -> int:
        """The stage that holds a list entry."""
        assert self.num_stages is not None
        parts = enumerate(itertools.pairwise(self.parts))
        return next(part for part, (a, b) in parts if a <= layer_idx < b) % self.num_stages

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
    turns = zip(*pipeline.stage_chunks(config), strict=True)
    parts = [part for turn in turns for part in turn]
    bounds = [*(part.start for part in parts), parts[-1].stop]
    # Left alone, the weights would be drawn on the CPU and then copied.
    with quiet(), session.device:
        module = StagedModule(
            layers=[_layer_spec(layer) for layer in layers],
            topology=deepspeed_grid(session.topology),
            loss_fn=loss,
            partition_method=",".join(map(str, bounds)),
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
    """Suppress what the libraries print and warn of, and what they collect garbage for: reports of their memory.

    DeepSpeed's BF16_Optimizer collects six times while it is built, a tenth of a second each. Its logger keeps
    the standard output of its import, and warns of each optimizer that is not in its own list.
    """
    collect = gc.collect
    gc.collect = lambda *_: 0
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        gc.collect = collect
        logger.setLevel(level)


def _call(layer: Callable[..., Any], *state: Any) -> Any:
    return layer(state)


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
