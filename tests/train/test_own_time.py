"""What a rank works on by itself: waits for others are left out, sleeping is not."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.helpers.distributed import run_distributed
from train import own_time, waits
from train.own_time import OwnTime

LONG, SHORT = 0.8, 0.1


def waiting(rank: int, world_size: int) -> list[tuple[float, float, float]]:
    """Rank 1 sleeps longer than rank 0 before each kind of transfer; what both measure."""
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    measured = []
    value = torch.ones(2)
    transfers = [
        lambda: dist.all_reduce(value),
        lambda: dist.all_reduce(value, async_op=True).wait(),
        dist.barrier,
        lambda: dist.send(value, 0) if rank else dist.recv(value, 1),
        lambda: dist.broadcast(value, 1),
    ]
    for transfer in transfers:
        own = OwnTime(torch.device("cpu"))
        wait = dist.Work.wait
        dist.barrier()
        with own.measured():
            time.sleep(LONG if rank else SHORT)
            transfer()
        assert dist.Work.wait is wait, "it is put back"
        own.close()
        measured.append(tuple(own.last))
    dist.destroy_process_group()
    return measured


def test_waits_for_others_do_not_count_and_sleeping_does() -> None:
    first, second = run_distributed(waiting, 2)
    for (work, idle, _), (other_work, other_idle, _) in zip(first, second, strict=True):
        # A sleep ends late on a busy machine, but never early.
        assert SHORT <= idle <= work < LONG
        assert LONG <= other_idle <= other_work


def test_computing_is_no_idling() -> None:
    own = OwnTime(torch.device("cpu"))
    with own.measured():
        until = time.thread_time() + SHORT
        while time.thread_time() < until:
            pass
    own.close()
    assert own.last.work >= SHORT
    assert own.last.work - own.last.idle >= SHORT


def test_what_fails_is_put_back_too() -> None:
    own = OwnTime(torch.device("cpu"))
    wait = dist.Work.wait
    with pytest.raises(ValueError, match="in a step"), own.measured():
        raise ValueError("in a step")
    assert dist.Work.wait is wait
    own.close()


def test_on_cuda_the_stream_is_timed_between_the_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a stand-in for the device: its clock is advanced by hand."""
    now = SimpleNamespace(seconds=0.0)

    class Events:
        def mark(self) -> float:
            return now.seconds

        def seconds(self, first: float, last: float) -> float:
            return last - first

    class Group:
        def allreduce(self) -> Any:
            now.seconds += 10.0
            return Work()

    class Work:
        def wait(self) -> None:
            now.seconds += 5.0

    monkeypatch.setattr(own_time, "GpuEvents", Events)
    monkeypatch.setattr(waits, "_OPERATIONS", ("allreduce",))
    monkeypatch.setattr(dist, "Work", Work)
    monkeypatch.setattr(dist, "ProcessGroup", Group)
    own = OwnTime(torch.device("cuda"))
    with own.measured():
        now.seconds += 1.0
        work = Group().allreduce()
        now.seconds += 2.0
        work.wait()
    assert own.last == (3.0, 0.0, 0.0)
    own.close()


def test_the_operations_exist() -> None:
    for name in waits._OPERATIONS:
        assert callable(getattr(dist.ProcessGroup, name)), name
