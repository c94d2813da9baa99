"""One process group for equal ranks, on CPU.

Megatron-core and DeepSpeed each open a group for every kind of parallelism, most of which have the same ranks: in one
process all of them. A gloo group opens its sockets and three threads at once, one of which wakes a hundred times a second.
NCCL opens nothing before a group's first collective, so there every group stays one of its own.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist


@contextlib.contextmanager
def shared_groups(device: torch.device) -> Iterator[None]:
    """While a library opens its groups, let those with equal ranks be one group.

    Args:
        device: what the ranks compute on; nothing is shared on others than CPUs.
    """
    if device.type != "cpu":
        yield
        return
    open_group: Any = dist.new_group
    opened: dict[tuple[int, ...], Any] = {}
    if dist.get_world_size() == 1:
        opened[(0,)] = dist.group.WORLD  # no other rank could confuse two kinds of messages

    def find_or_open(ranks: Iterable[int], *arguments: Any, **options: Any) -> Any:
        members = tuple(ranks)
        if members not in opened:
            opened[members] = open_group(list(members), *arguments, **options)
        return opened[members]

    module: Any = dist
    module.new_group = find_or_open
    try:
        yield
    finally:
        module.new_group = open_group
