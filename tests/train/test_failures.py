"""Which errors a launcher starts again after, and which rank reports."""

import datetime
import errno
import os
from pathlib import Path

import pytest
import torch.distributed as dist

from configs.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DistributedError,
    RankError,
    RunFolderError,
    StorageError,
)
from train.failures import verdict
from train.generations import begin
from train.main import train
from train.prepared import one_report_per_node
from train.run_folder import RunFolder
from train.world import Launch, World


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/mnt/run/stop")


def store_error() -> Exception:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(dist.DistStoreError) as caught:
        store.wait(["never"], datetime.timedelta(milliseconds=10))
    return caught.value


@pytest.mark.parametrize(
    "error, code, words",
    [
        (DataError("correct it"), 2, ""),
        (RankError("[rank 3 on node7] correct it"), 2, "[rank 3 on node7] correct it"),
        (StorageError("a.bin cannot be read"), 3, "[rank 3 on node7] a.bin cannot be read"),
        (DistributedError("a peer"), 3, "a peer"),
        (os_error(errno.EIO), 3, "a file system failed: [Errno 5] Input/output error: '/mnt/run"),
        (os_error(errno.ESTALE), 3, "[rank 3 on node7] a file system failed"),
        (os_error(errno.ENOSPC), 2, "No space left on device: '/mnt/run/stop'. Make room"),
        (os_error(errno.ENOENT), 1, "No such file"),
        (os_error(errno.EACCES), 1, "Permission denied"),
        (os_error(errno.EROFS), 3, "a file system failed: [Errno 30] Read-only file system"),
        (MemoryError(), 2, "[rank 3 on node7] ran out of memory. Type the same command"),
        (os_error(errno.ENOMEM), 2, "optim.micro_batch_size"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total of ..."),
            2,
            "ran out of memory (CUDA out of memory. Tried to allocate 2 GiB). Type",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel"), 2, "parallel.zero_stage"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            2,
            "parallel.recompute=full",
        ),
        (RuntimeError("CUDA error: device-side assert triggered"), 1, "device-side assert"),
        (OSError("libcuda.so: cannot open shared object file"), 1, "libcuda"),
        (dist.DistNetworkError("Failed to recv, got 0 bytes."), 3, "lost a peer: Failed to recv"),
        (RuntimeError("[tcp/pair.cc] Connection closed by peer"), 3, "lost a peer: [tcp/pair.cc]"),
        (RuntimeError("CUDA error: unspecified launch failure"), 3, "its device failed"),
        (RuntimeError("shapes differ"), 1, "shapes differ"),
        (ValueError("NCCL"), 1, "ValueError"),
    ],
    ids=repr,
)
def test_what_may_pass_is_started_again_and_nothing_else(
    error: Exception, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    try:
        raise error
    except Exception as caught:
        found, message = verdict(caught, World(rank=3, size=8))
    assert found == code
    assert words in message and bool(words) == bool(message)
    assert ("Traceback" in message) == (code == 1 or "failed" in message)


def test_a_store_whose_host_is_gone_is_a_lost_peer() -> None:
    assert verdict(store_error(), World(rank=1, size=2))[0] == 3


def test_rank_0_reports_for_all() -> None:
    assert verdict(CheckpointError("all are damaged"), World()) == (2, "all are damaged")


def test_a_rank_without_a_gpu_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    words = r"\[rank 1 on node7\] local rank 1 has no GPU of its own: 1 are visible"
    with pytest.raises(RankError, match=words):
        train(["device=cuda", "optim.global_batch_size=16"], World(rank=1, local_rank=1, size=2))


def test_a_run_folder_on_a_dead_disk_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "mkdir", dead)
    with pytest.raises(OSError, match="Input/output error"):
        RunFolder(tmp_path).create()
    with pytest.raises(OSError, match="Input/output error"):
        begin(tmp_path, Launch())


def test_a_read_only_run_folder_is_the_users_to_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise os_error(errno.EROFS)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        RunFolderError, match=r"Read-only file system\. Choose another with run\.dir"
    ):
        RunFolder(tmp_path).create()
    with pytest.raises(RunFolderError, match="cannot be written: Read-only file system"):
        begin(tmp_path, Launch())


def test_a_dead_disk_does_not_hide_the_error_that_ends_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    folder = RunFolder(tmp_path)
    monkeypatch.setattr("train.run_folder.replace_file", dead)
    monkeypatch.setattr("train.full_disk.os.write", dead)
    folder.fail("a peer is lost")


@pytest.mark.parametrize(
    ("rank", "local_rank", "kind"), [(0, 0, ConfigError), (1, 1, ConfigError), (2, 0, RankError)]
)
def test_what_a_node_lacks_is_reported_by_its_first_rank(
    rank: int, local_rank: int, kind: type[Exception]
) -> None:
    with (
        pytest.raises(kind, match="flex has no backward"),
        one_report_per_node(World(rank, local_rank, 4, "torchrun")),
    ):
        raise ConfigError(["flex has no backward pass on device (auto: cpu)."])
