"""Saving beside training: the state of the moment of the save is written, and errors in a thread are reported."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from configs.errors import DistributedError
from configs.run_checkpoints import step_folder
from glm.checkpoint import writer
from glm.checkpoint.reader import read_manifest
from tests.helpers.checkpoints import NUM_RANKS, write_files
from tests.helpers.distributed import Ranks, run_distributed
from tests.helpers.savers import check_content, fake_saver, save_step, start_step, steps_in

SLOW_RANK = 2


class Gate:
    """Holds the writing threads of a rank before their file until it is opened."""

    def __init__(self, error: Exception | None = None) -> None:
        from train.checkpoint import save_attempt as attempt

        self._open = threading.Event()
        self._write = attempt.write_rank_file
        self._error = error
        attempt.write_rank_file = self._wait

    def _wait(self, *arguments: Any) -> Any:
        assert self._open.wait(60)
        if self._error is not None:
            raise self._error
        return self._write(*arguments)

    def open(self) -> None:
        self._open.set()


def agree(saver: Any) -> bool:
    """As the loop does it with the numbers of a step."""
    flags: list[Any] = [None] * NUM_RANKS
    dist.all_gather_object(flags, saver.has_failed)
    return any(flags)


def train_while_writing(rank: int, world_size: int, checkpoints: Path) -> None:
    gate = Gate() if rank == SLOW_RANK else None
    saver = fake_saver(rank, checkpoints)
    start_step(saver, 1)
    # Steps go on; the state that was saved is overwritten.
    saver._state.seed = 2
    for _ in range(3):
        assert saver.poll(agree(saver)) == []
        time.sleep(0.05)
    assert steps_in(checkpoints) == [], "nothing is committed before every rank's file is there"
    dist.barrier()
    if gate:
        gate.open()
    (outcome,) = saver.finish()
    assert outcome.error is None and outcome.progress.step == 1
    check_content(outcome.folder, seed=1)
    assert saver.finish() == [], "an outcome is reported once"


def test_the_moment_of_the_save_is_written_while_training_goes_on(tmp_path: Path) -> None:
    run_distributed(train_while_writing, NUM_RANKS, tmp_path)


def overtake(rank: int, world_size: int, checkpoints: Path) -> list[int]:
    gate = Gate() if rank == SLOW_RANK else None
    saver = fake_saver(rank, checkpoints, "checkpoint.keep_last=5")
    start_step(saver, 1)
    settle = saver._settle

    def settle_late() -> None:
        """The second save waits by now, for the buffers are in use."""
        assert steps_in(checkpoints) == []
        time.sleep(0.3)
        gate.open()
        settle()

    if gate:
        saver._settle = settle_late
    start_step(saver, 2)
    saver._settle = settle
    assert 1 in steps_in(checkpoints)
    assert saver.take_blocked_seconds() >= (0.3 if gate else 0.0)
    outcomes = saver.finish()
    assert [(o.progress.step, o.error) for o in outcomes] == [(1, None), (2, None)]
    for outcome in outcomes:
        check_content(outcome.folder, seed=outcome.progress.step)
    return steps_in(checkpoints)


def test_a_save_waits_for_the_one_before_it(tmp_path: Path) -> None:
    assert run_distributed(overtake, NUM_RANKS, tmp_path) == [[2, 1]] * NUM_RANKS


def fail_in_the_thread(rank: int, world_size: int, checkpoints: Path, error: Exception) -> str:
    saver = fake_saver(rank, checkpoints)
    assert save_step(saver, 1).error is None
    with pytest.MonkeyPatch.context() as patch:
        if rank == SLOW_RANK:
            from train.checkpoint import save_attempt as attempt

            def refuse(*_: Any) -> None:
                raise error

            patch.setattr(attempt, "write_rank_file", refuse)
        start_step(saver, 2)
        assert saver.poll(False) == [], "the ranks have not exchanged it yet"
        if rank == SLOW_RANK:
            saver._thread.join()
        failed = agree(saver)
        assert failed
        (outcome,) = saver.poll(failed)  # at the next step, on every rank
        assert not saver.has_failed and not agree(saver)
        assert saver.poll(False) == [] == saver.finish()
    dist.barrier()
    assert steps_in(checkpoints) == [1]
    assert list(checkpoints.glob("step_00000002/*")) == []
    assert outcome.progress.step == 2
    assert save_step(saver, 3).error is None
    check_content(step_folder(checkpoints, 3), seed=3)
    return outcome.error


@pytest.mark.parametrize(
    "error, message",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError("no room"), "MemoryError"),
    ],
)
def test_an_error_in_a_thread_is_reported_at_the_next_step_and_training_goes_on(
    tmp_path: Path, error: Exception, message: str
) -> None:
    errors = run_distributed(fail_in_the_thread, NUM_RANKS, tmp_path, error)
    assert len(set(errors)) == 1
    assert message in errors[0] and f"rank {SLOW_RANK}: pp 0, dp {SLOW_RANK}" in errors[0]


def fail_before_the_file(rank: int, world_size: int, checkpoints: Path, what: str) -> str | None:
    saver = fake_saver(rank, checkpoints)
    with pytest.MonkeyPatch.context() as patch:
        if rank == SLOW_RANK:

            def refuse(*_: Any) -> None:
                raise OSError(errno.EPERM, "Operation not permitted")

            owner, name = (os, "setpriority") if what == "niceness" else (saver._copy, "wait")
            patch.setattr(owner, name, refuse)
        error = save_step(saver, 1).error
        saver.close()
    dist.barrier()
    assert save_step(saver, 2).error is None
    check_content(step_folder(checkpoints, 2), seed=2)
    return error


@pytest.mark.parametrize("what", ["niceness", "copy"])
def test_a_thread_that_fails_before_its_file_is_reported_too(tmp_path: Path, what: str) -> None:
    ranks = Ranks(fail_before_the_file, NUM_RANKS, tmp_path, what)
    try:
        (error, *others) = ranks.results(90)
    finally:
        ranks.kill_all()
    assert others == [error] * (NUM_RANKS - 1)
    if what == "niceness":  # a courtesy
        assert error is None
    else:
        assert "not copied" in error and f"rank {SLOW_RANK}: pp 0, dp {SLOW_RANK}" in error


def leave_after_an_error(rank: int, world_size: int, checkpoints: Path, dead: bool) -> None:
    from train.checkpoint import save_attempt as attempt

    saver = fake_saver(rank, checkpoints)
    gate = Gate() if rank == SLOW_RANK else None
    start_step(saver, 1)
    if gate and dead:
        os._exit(0)
    if not dead:  # however busy this machine is, the slow rank's file is waited for
        attempt._SHORTEST_GRACE_SECONDS = 60.0
    if gate:
        threading.Timer(0.3, gate.open).start()
    saver.close()


def test_a_rank_that_leaves_lets_the_write_end(tmp_path: Path) -> None:
    run_distributed(leave_after_an_error, NUM_RANKS, tmp_path, False)
    check_content(step_folder(tmp_path, 1), seed=1)


def test_a_rank_that_leaves_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    ranks = Ranks(leave_after_an_error, NUM_RANKS, tmp_path, True)
    try:
        assert ranks.wait(60) == [0] * NUM_RANKS
    finally:
        ranks.kill_all()
    assert steps_in(tmp_path) == []


def use_no_collective_in_threads(rank: int, world_size: int, checkpoints: Path) -> None:
    main = threading.current_thread()
    for name in ("all_gather_object", "broadcast_object_list", "all_reduce", "barrier"):
        original = getattr(dist, name)

        def checked(*arguments: Any, original: Any = original, **options: Any) -> Any:
            assert threading.current_thread() is main
            return original(*arguments, **options)

        setattr(dist, name, checked)
    assert save_step(fake_saver(rank, checkpoints), 1).error is None


def test_threads_use_no_collective(tmp_path: Path) -> None:
    run_distributed(use_no_collective_in_threads, NUM_RANKS, tmp_path)


class Overtaken:
    """A fence: another attempt begins at some moment."""

    is_overtaken = False

    def __call__(self) -> None:
        if self.is_overtaken:
            raise DistributedError("a later attempt of this run has begun")


def be_overtaken(rank: int, world_size: int, checkpoints: Path, late: bool) -> str:
    fence = Overtaken()
    saver = fake_saver(rank, checkpoints, generation=3, fence=fence)
    assert save_step(saver, 1).error is None
    gate = Gate() if rank == SLOW_RANK else None
    start_step(saver, 2)
    if late:
        # The other attempt is saving too, in a folder of its own attempt.
        fence.is_overtaken = True
    if gate:
        gate.open()
    try:
        if not late:
            assert saver.finish()[-1].error is None
            fence.is_overtaken = True
            if rank == 0:
                write_files(checkpoints, 99, seed=9, attempt="beef0000")
            start_step(saver, 3)
        saver.finish()
    except (DistributedError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("late", [True, False])
def test_an_attempt_that_was_overtaken_commits_and_deletes_nothing_more(
    tmp_path: Path, late: bool
) -> None:
    results = run_distributed(be_overtaken, NUM_RANKS, tmp_path, late)
    assert results[0] == "DistributedError: a later attempt of this run has begun"
    assert steps_in(tmp_path) == ([1] if late else [2, 1])
    assert read_manifest(step_folder(tmp_path, 1)).generation == 3
    if not late:
        assert len(list(tmp_path.glob("step_00000099/*.safetensors"))) == 3


def be_overtaken_while_cleaning(rank: int, world_size: int, checkpoints: Path) -> str:
    answers = iter(["commit"])

    def fence() -> None:
        if next(answers, None) is None:
            raise DistributedError("a later attempt of this run has begun")

    saver = fake_saver(rank, checkpoints, fence=fence)
    start_step(saver, 1)
    saver._thread.join()
    try:
        saver.poll(agree(saver))
    except (DistributedError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_an_attempt_that_is_overtaken_after_its_commit_ends_at_its_next_step_and_keeps_it(
    tmp_path: Path,
) -> None:
    results = run_distributed(be_overtaken_while_cleaning, NUM_RANKS, tmp_path)
    assert results[0] == "DistributedError: a later attempt of this run has begun"
    check_content(step_folder(tmp_path, 1), seed=1)


def commit_order(rank: int, world_size: int, checkpoints: Path) -> list[str]:
    """What the process asks of the disk, in order."""
    calls: list[str] = []
    saver = fake_saver(rank, checkpoints)
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append(f"rename {Path(source).name}")
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer.os, "fsync", record_fsync)
        patch.setattr(writer.os, "replace", record_replace)
        save_step(saver, 1)
    return calls


def test_nothing_is_renamed_before_it_is_on_the_disk(tmp_path: Path) -> None:
    for rank, calls in enumerate(run_distributed(commit_order, NUM_RANKS, tmp_path)):
        own = [call for call in calls if f"rank{rank:05d}" in call]
        assert [call.split()[0] for call in own] == ["sync", "rename", "sync", "rename"]
        assert own[0].endswith(".safetensors.part") and own[2].endswith(".json.part")
        # The folder that names the file is on the disk before the record refers to it.
        assert "sync step_00000001" in calls[calls.index(own[1]) : calls.index(own[2])]
        if rank == 0:
            (at,) = (
                i
                for i, call in enumerate(calls)
                if call.endswith("manifest.json.part") and call.startswith("rename")
            )
            assert calls.index(calls[at].replace("rename", "sync")) < at
            assert "sync step_00000001" in calls[calls.index(own[3]) : at]
