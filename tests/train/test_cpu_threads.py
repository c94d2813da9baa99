"""CPU threads wait asleep while the machine is busy, and spinning while it is not."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from train import cpu_threads
from train.cpu_threads import Load, waiting_as_the_machine_allows

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not cpu_threads._openmp_libraries(), reason="PyTorch has brought no GNU OpenMP"
)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_threads, "_POLL_SECONDS", 0.001)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def idle_threads_come(change: Callable[[], object]) -> bool:
    """True if this process has as many more threads after the change as there are processors, and one."""
    before = len(os.listdir("/proc/self/task"))
    change()
    wanted = before + len(os.sched_getaffinity(0)) + 1
    for _ in range(60_000):
        if len(os.listdir("/proc/self/task")) >= wanted:
            return True
        time.sleep(0.001)
    return False


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([4] * 4, False),  # not long enough
        ([4] * 5, True),
        ([4, 4, 4, 3, 4, 4], False),  # two want two processors, and the one that looks
        ([4] * 5 + [3] * 19, True),
        ([4] * 5 + [3] * 20, False),
        ([4] * 5 + [3] * 10 + [4] + [3] * 19, True),
    ],
)
def test_a_machine_is_busy_after_several_looks_and_at_rest_after_many(
    looks: list[int], expected: bool
):
    load = Load(num_cores=2)
    for count in looks:
        load.observe(count)
    assert load.is_busy is expected


def test_more_openmp_threads_than_processors_are_kept_while_the_machine_is_busy(
    monkeypatch: pytest.MonkeyPatch,
):
    runnable = [1]
    monkeypatch.setattr(cpu_threads, "num_runnable", lambda: runnable[0])
    with waiting_as_the_machine_allows(CPU):
        before = threading.active_count()
        assert idle_threads_come(lambda: runnable.__setitem__(0, 1000))
        runnable[0] = 1
        for _ in range(60_000):
            if threading.active_count() == before:
                return
            time.sleep(0.001)
    pytest.fail("the idle threads stayed on a machine at rest")


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "5")
    before = threading.active_count()
    with waiting_as_the_machine_allows(CPU):
        assert threading.active_count() == before


def test_one_thread_waits_for_none():
    torch.set_num_threads(1)
    before = threading.active_count()
    with waiting_as_the_machine_allows(CPU):
        assert threading.active_count() == before


def test_a_system_that_does_not_say_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    def refuse(_: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert cpu_threads.num_runnable() is None
    assert cpu_threads._openmp_libraries() == []
