"""Room for the sockets of a large run: a gloo group of all ranks connects each rank to every other.

A shell's usual limit is 1,024 open files, which a run of a thousand ranks exceeds in one group.
"""

import contextlib
import resource

from configs.errors import RankError
from train.world import World, node_name

# Groups with many members that a rank opens: one over all ranks, and Megatron-core's and the trainer's over replicas.
_GROUPS = 4
# Shards, checkpoints, the store and the standard streams.
_OTHERS = 512
# Less than any kernel's own limit.
_MOST = 2**20


def make_room_for_peers(world: World) -> None:
    """Raise this process's limit of open files as far as it may, if the peers could need that.

    Raises:
        RankError: even then a connection to every other rank does not fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _OTHERS + _GROUPS * world.size:
        return
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    with contextlib.suppress(OSError, ValueError):  # then the limit stays, and may still do
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < world.size:
        raise RankError(
            f"[rank {world.rank} on {node_name()}] {world.size:,} ranks need as many connections, but a process may hold "
            f"{soft:,} files open here. Type ulimit -n {_OTHERS + _GROUPS * world.size} before the command, or let an "
            "administrator raise the limit."
        )
