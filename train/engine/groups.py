"""DeepSpeed's process groups: brought up beside PyTorch's, described as a grid, and taken down again.

DeepSpeed keeps them in a module global. It cannot be removed, only cleared, so that one process can open several
sessions one after the other (the tests do).
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
    """Let DeepSpeed take over PyTorch's default process group, which is open."""
    if device.type == "cpu":
        # DeepSpeed 0.19 compiles a shared-memory kernel here and crashes without a compiler; gloo needs none.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


def stop_groups() -> None:
    """Let go of the group."""
    deepspeed.comm.comm.cdb = None


def deepspeed_grid(topology: Topology) -> PipeModelDataParallelTopology:
    """Build DeepSpeed's description of the same grid."""
    return PipeModelDataParallelTopology(num_pp=topology.pp, num_mp=topology.tp, num_dp=topology.dp)


def place_of(topology: Topology) -> GridPlace:
    """Where DeepSpeed places this rank."""
    place = deepspeed_grid(topology).get_coord(topology.rank)
    return GridPlace(place.model, place.pipe, place.data)
