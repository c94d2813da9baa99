"""All-reduce bandwidth within each node, and between neighbouring nodes in a ring."""

import datetime
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from train.device import synchronize
from train.preflight.measurement import Traffic
from train.preflight.meeting import Meeting, pairs_of

_REPEATS = 5
_BYTES = {"cuda": 1 << 28, "cpu": 1 << 22}


def measure_traffic(
    meeting: Meeting, device: torch.device, hosts: Sequence[str], patience_seconds: float
) -> Traffic:
    """Sum a tensor with one's node, then with each neighbour's.

    Args:
        meeting: the store to start the groups from.
        device: of this rank.
        hosts: of all ranks, in order.
        patience_seconds: after which a sum that does not end is an error.
    """
    world, own = meeting.world, hosts[meeting.world.rank]
    timeout = datetime.timedelta(seconds=patience_seconds)
    members = {host: [rank for rank, name in enumerate(hosts) if name == host] for host in hosts}
    within: float | None = None
    between: dict[str, float] = {}
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("groups", meeting.store),
            rank=world.rank,
            world_size=world.size,
            timeout=timeout,
        )
        if len(members[own]) > 1:
            within = _bus_gb_per_second(_group(members[own], timeout), device)
        for pairs in pairs_of(members):
            for first, second in pairs:
                if own in (first, second):
                    group = _group([*members[first], *members[second]], timeout)
                    speed = _bus_gb_per_second(group, device)
                    between[second if own == first else first] = speed
        dist.destroy_process_group()
    except RuntimeError as error:
        return Traffic(within, between, f"a sum failed: {str(error).splitlines()[0]}")
    return Traffic(within, between)


def _group(ranks: list[int], timeout: datetime.timedelta) -> Any:
    return dist.new_group(sorted(ranks), timeout=timeout, use_local_synchronization=True)


def _bus_gb_per_second(group: Any, device: torch.device) -> float:
    """Traffic per rank of a ring all-reduce: 2 (n - 1) / n of the tensor, over the best time."""
    values = torch.zeros(_BYTES[device.type] // 4, device=device)
    count = dist.get_world_size(group)
    best = float("inf")
    for _ in range(_REPEATS + 1):
        dist.barrier(group=group)
        synchronize(device)
        started = time.perf_counter()
        dist.all_reduce(values, group=group)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * (count - 1) / count * values.numel() * 4 / best / 1e9
