"""All-reduce bandwidth within each node, and between neighbouring nodes in a ring.

A dead link must not disturb the all-reduces over the others. Each all-reduce has its own process group, made directly
from the backend: once a group has failed, PyTorch's registry of groups names the next ones differently on different
ranks. It starts when all its ranks are ready, and each round starts after the longest time that the one before it can
take.
"""

import datetime
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from train.device import synchronize
from train.preflight.measurement import Traffic
from train.preflight.meeting import Meeting, pairs_of

_REPEATS = 5
_BYTES = {"cuda": 1 << 28, "cpu": 1 << 22}
# Shares of the patience: how long an all-reduce may take, and when the next round starts even if ranks are missing. The
# first one also loads the library, perhaps from a slow file system.
_FIRST_SUM, _FIRST_STEP = 0.5, 0.65
_SUM, _STEP = 0.25, 0.4

Steps = list[list[tuple[str, str]]]


def steps_of(hosts: Sequence[str]) -> Steps:
    """The rounds of all-reduces, one after the other: each node's own ranks, then disjoint pairs of nodes.

    Args:
        hosts: node of each rank, in order.
    """
    nodes = list(dict.fromkeys(hosts))
    own = [(node, node) for node in nodes if hosts.count(node) > 1]
    return [own, *pairs_of(nodes)]


def longest_seconds(hosts: Sequence[str], patience_seconds: float) -> float:
    """Seconds after which every rank has finished its all-reduces, whatever fails."""
    return (_FIRST_STEP + len(steps_of(hosts)) * _STEP) * patience_seconds


def measure_traffic(
    meeting: Meeting, device: torch.device, hosts: Sequence[str], patience_seconds: float
) -> Traffic:
    """All-reduce a tensor within this rank's node, then with each neighbouring node.

    Args:
        meeting: the store through which the groups are created.
        device: device of this rank.
        hosts: node of each rank, in order.
        patience_seconds: the first all-reduce may take half of it, each of the others a quarter; one that takes longer
            is recorded as an error.
    """
    own, started = meeting.host, time.monotonic()
    speeds: dict[str, float] = {}
    errors: dict[str, str] = {}
    for number, pairs in enumerate(steps_of(hosts)):
        latest = started + (_FIRST_STEP + number * _STEP) * patience_seconds
        limit = (_SUM if number else _FIRST_SUM) * patience_seconds
        for pair in pairs:
            if own not in pair:
                continue
            other = pair[1] if own == pair[0] else pair[0]
            ranks = [rank for rank, host in enumerate(hosts) if host in pair]
            try:
                _wait_for_all(meeting, f"sum {' '.join(pair)}", ranks, latest)
                speeds[other] = _in_time(_sum(meeting, device, ranks, " ".join(pair), limit), limit)
            except RuntimeError as error:
                errors[other] = str(error).splitlines()[0]
    return Traffic(speeds.pop(own, None), speeds, errors)


def _wait_for_all(meeting: Meeting, name: str, ranks: list[int], latest: float) -> None:
    meeting.publish(name, "")
    _, missing = meeting.collect(name, ranks, latest - time.monotonic())
    if missing:
        raise RuntimeError(f"rank {missing[0]} did not take part")


def _sum(
    meeting: Meeting, device: torch.device, ranks: list[int], name: str, limit_seconds: float
) -> Callable[[], float]:
    def work() -> float:
        store = dist.PrefixStore(f"groups/{name}", meeting.another_store())
        group = open_group(store, ranks, meeting.world.rank, device, limit_seconds / 2)
        try:
            speed = bus_gb_per_second(group, device)
        except RuntimeError:
            group.abort()
            raise
        group.shutdown()
        return speed

    return work


def _in_time(work: Callable[[], float], limit_seconds: float) -> float:
    """Return the result of work that may hang in a library despite the timeout that the library was given.

    Raises:
        RuntimeError: there is no result in time; the thread is abandoned.
    """
    results: queue.SimpleQueue[float | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, name="sum", daemon=True).start()
    try:
        result = results.get(timeout=limit_seconds)
    except queue.Empty:
        raise RuntimeError(f"it did not finish in {limit_seconds:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def open_group(
    store: dist.Store, ranks: list[int], rank: int, device: torch.device, timeout_seconds: float
) -> Any:
    """Create a process group outside of PyTorch's registry.

    Args:
        store: the store through which its ranks connect.
        ranks: global ranks of its members.
        rank: global rank of this process, one of them.
        device: chooses the backend: NCCL for cuda, otherwise Gloo.
        timeout_seconds: timeout of each operation of the group.
    """
    timeout = datetime.timedelta(seconds=timeout_seconds)
    place, size = ranks.index(rank), len(ranks)
    if device.type != "cuda":
        return dist.ProcessGroupGloo(store, place, size, timeout)
    options: Any = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, place, size, options)


def bus_gb_per_second(group: Any, device: torch.device) -> float:
    """Bus bandwidth of a ring all-reduce: 2 (n - 1) / n times the tensor's bytes, over the shortest time."""
    values = torch.zeros(_BYTES[device.type] // 4, device=device)
    together = torch.zeros(1, device=device)
    count = group.size()
    best = float("inf")
    for _ in range(_REPEATS + 1):
        group.allreduce([together]).wait()
        synchronize(device)
        started = time.perf_counter()
        group.allreduce([values]).wait()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * (count - 1) / count * values.numel() * 4 / best / 1e9
