"""Blocks that were freed are taken again without the kernel."""

import os
import subprocess
import sys

import pytest

from train.host_memory import keep_freed_memory

# Page faults of taking, filling and freeing blocks of 16 MiB (4,096 pages) ten times, after a first time.
FAULTS = """
import resource, sys
from train.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
def work():
    # Two blocks that end one behind the other, as tensors do: the last one freed is at the end of the heap.
    blocks = [bytearray(16 << 20) for _ in range(2)]
    for block in blocks:
        block[::4096] = bytes(4096)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_block_that_was_freed_comes_back_without_page_faults() -> None:
    _, kept = faults("keep")
    assert int(kept) < 100


def test_what_the_user_set_stays() -> None:
    done, _ = faults("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert done == "False"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
