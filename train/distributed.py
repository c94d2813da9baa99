"""The process groups of PyTorch, DeepSpeed and Megatron-core: opened together, compared, and closed again.

The libraries keep their groups in module globals, which cannot be removed. So `distributed_session` opens the groups,
checks that they place every rank as train/topology.py does, and clears the globals at the end: one process can then
open several sessions one after the other, as the tests do.
"""

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from configs.errors import DistributedError
from glm.tensor_parallel import parallel_state
from train.engine.groups import place_of, start_groups, stop_groups
from train.peer_sockets import make_room_for_peers
from train.rendezvous import Rendezvous
from train.session import Session
from train.shared_groups import shared_groups
from train.topology import Topology
from train.world import World

# Longer than the slowest work that one rank does alone (writing a checkpoint, compiling a kernel).
TIMEOUT = datetime.timedelta(minutes=30)
MEETING_SECONDS = 120.0


@contextlib.contextmanager
def distributed_session(
    world: World, topology: Topology, device: torch.device, rendezvous: Rendezvous | None = None
) -> Iterator[Session]:
    """Open the process groups of a run, and close them.

    After an error they stay open until the process ends: peers may have exited, and closing would wait for them.

    Args:
        world: this process.
        topology: the grid that the groups must match.
        device: cpu (gloo) or this rank's cuda device (nccl).
        rendezvous: the rendezvous of the ranks if it is open already; it is closed here. None: one is opened here.

    Raises:
        DistributedError: the ranks cannot connect, or a library places them differently.
        RankError: the limit of open files is below the number of ranks.
    """
    make_room_for_peers(world)
    rendezvous = rendezvous or Rendezvous.open(world, MEETING_SECONDS)
    rendezvous.gather()
    with rendezvous.watched():
        _start_torch(world, device, rendezvous.store)
        with shared_groups(device):
            _start_libraries(topology, device)
        session = Session(
            topology, device, _control_group(device), _replica_group(topology, device)
        )
    rendezvous.close()
    yield session
    _stop()


@contextlib.contextmanager
def fake_session(topology: Topology) -> Iterator[Session]:
    """Open one rank's process groups of any large run in this process alone.

    Groups, grid and modules are built by the same code as in a run; torch's fake backend communicates nothing.

    Raises:
        DistributedError: a library places the rank differently.
    """
    # Late: only the dry run needs this private module of PyTorch's tests.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    store: Any = FakeStore()
    dist.init_process_group("fake", store=store, rank=topology.rank, world_size=topology.world_size)
    device = torch.device("meta")
    # The fake backend takes the place of all others.
    _start_libraries(topology, torch.device("cpu"))
    group: Any = parallel_state.get_data_parallel_group()
    yield Session(topology, device, _control_group(torch.device("cpu")), group)
    _stop()


def group_members() -> dict[str, list[int]]:
    """Global ranks of this rank's Megatron-core groups."""
    groups: dict[str, Any] = {
        "tensor": parallel_state.get_tensor_model_parallel_group(),
        "data": parallel_state.get_data_parallel_group(),
        "pipeline": parallel_state.get_pipeline_model_parallel_group(),
    }
    return {name: dist.get_process_group_ranks(group) for name, group in groups.items()}


def _start_torch(world: World, device: torch.device, store: dist.Store) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"[rank {world.rank}] the ranks could not connect: {error}"
        ) from error


def _start_libraries(topology: Topology, device: torch.device) -> None:
    start_groups(device)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        # What is said on CPU beside NCCL has groups of its own, below.
        create_gloo_process_groups=False,
    )
    _check_agreement(topology)


def _stop() -> None:
    parallel_state.destroy_model_parallel()
    stop_groups()
    dist.destroy_process_group()


def _check_agreement(topology: Topology) -> None:
    """Compare this rank's place in our grid with Megatron-core's and DeepSpeed's."""
    ours = (topology.tp_rank, topology.pp_rank, topology.dp_rank)
    megatron = (
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(),
    )
    engine = place_of(topology)
    if not ours == megatron == engine:
        raise DistributedError(
            f"[{topology}] Megatron-core places this rank at (tp, pp, dp) = {megatron} and DeepSpeed at "
            f"{tuple(engine)}. These library versions are not compatible; "
            "install versions in the ranges that setup.py gives."
        )


def _control_group(device: torch.device) -> Any:
    if device.type == "cpu":
        group = dist.group.WORLD
        assert group is not None
        return group
    return dist.new_group(backend="gloo", timeout=TIMEOUT)


def _replica_group(topology: Topology, device: torch.device) -> Any:
    if device.type == "cpu":
        return parallel_state.get_data_parallel_group()
    own = None
    for pp_rank in range(topology.pp):
        for tp_rank in range(topology.tp):
            ranks = [
                (pp_rank * topology.dp + dp_rank) * topology.tp + tp_rank
                for dp_rank in range(topology.dp)
            ]
            group = dist.new_group(ranks, backend="gloo", timeout=TIMEOUT)
            if topology.rank in ranks:
                own = group
    assert own is not None
    return own
