"""DeepSpeed's process groups: opened beside PyTorch's, described as a grid, and closed again.

DeepSpeed keeps them in a module global. The global cannot be removed, so it is cleared: one process can then open
several sessions one after the other, as the tests do.
"""

from typing import NamedTuple

import deepspeed
import deepspeed.comm.comm
import deepspeed.ops
import torch
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

from train.topology import Topology


class GridPlace(NamedTuple):
    """Where DeepSpeed places a rank."""

    tp_rank: int
    pp_rank: int
    dp_rank: int


def start_groups(device: torch.device) -> None:
    """Let DeepSpeed use PyTorch's default process group, which must be open already."""
    if device.type == "cpu":
        # DeepSpeed 0.19 compiles a shared-memory kernel here and crashes without a compiler; gloo needs none.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def stop_groups() -> None:
    """Clear DeepSpeed's reference to the process group."""
    deepspeed.comm.comm.cdb = None


def deepspeed_grid(topology: Topology) -> PipeModelDataParallelTopology:
    """Build DeepSpeed's description of this layout."""
    return PipeModelDataParallelTopology(num_pp=topology.pp, num_mp=topology.tp, num_dp=topology.dp)


def place_of(topology: Topology) -> GridPlace:
    """Where DeepSpeed places this rank."""
    place = deepspeed_grid(topology).get_coord(topology.rank)
    return GridPlace(place.model, place.pipe, place.data)
