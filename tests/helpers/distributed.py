"""Rank processes for tests, forked in milliseconds from one server that has imported PyTorch, DeepSpeed and Megatron.

`run_distributed(function, world_size, *args)` calls function(rank, world_size, *args) in every rank and returns the
results in rank order. `Ranks` leaves the processes to the test, which may kill them.
"""

import contextlib
import multiprocessing
import os
import random
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

_PRELOAD = ["torch", "numpy", "tests.helpers.preload"]


def run_distributed(
    function: Callable[..., Any], world_size: int, *args: Any, timeout_seconds: float = 180
) -> list[Any]:
    """Run a function in `world_size` ranks.

    Args:
        function: importable at the top level of a module; called as function(rank, world_size, *args).
        world_size: number of ranks.
        args: picklable.
        timeout_seconds: after which all ranks are killed.

    Raises:
        AssertionError: a rank failed, or the deadline passed; the message carries every rank's traceback.
    """
    ranks = Ranks(function, world_size, *args)
    try:
        return ranks.results(timeout_seconds)
    finally:
        ranks.kill_all()


class Ranks:
    """Running rank processes."""

    def __init__(self, function: Callable[..., Any], world_size: int, *args: Any) -> None:
        context = _context()
        port = free_port()
        self.processes = []
        self._receivers: list[Connection] = []
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_enter, args=(sender, function, rank, world_size, port, args), daemon=True
            )
            process.start()
            sender.close()
            self.processes.append(process)
            self._receivers.append(receiver)

    def results(self, timeout_seconds: float) -> list[Any]:
        """Wait for every rank's result; see run_distributed."""
        deadline = time.monotonic() + timeout_seconds
        results: dict[int, Any] = {}
        failures: list[str] = []
        open_ranks = dict(enumerate(self._receivers))
        while open_ranks and not failures:
            ready = wait(list(open_ranks.values()), timeout=max(deadline - time.monotonic(), 0))
            if not ready:
                failures.append(f"ranks {sorted(open_ranks)} did not finish in {timeout_seconds} s")
            for rank, receiver in list(open_ranks.items()):
                if receiver in ready:
                    del open_ranks[rank]
                    try:
                        kind, value = receiver.recv()
                    except EOFError:
                        kind, value = "failed", f"rank {rank} died"
                    if kind == "ok":
                        results[rank] = value
                    else:
                        failures.append(value)
        if failures:
            time.sleep(0.5)  # others may fail for the reason that matters
            for receiver in open_ranks.values():
                if receiver.poll():
                    with_text = _receive_quietly(receiver)
                    failures.append(with_text)
        assert not failures, "\n".join(failures)
        return [results[rank] for rank in sorted(results)]

    def wait(self, timeout_seconds: float) -> list[int | None]:
        """Wait for the processes to end; exit codes, None for one that still runs."""
        deadline = time.monotonic() + timeout_seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0))
        return [process.exitcode for process in self.processes]

    def kill_all(self) -> None:
        """Kill -9 whatever still runs."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives away by itself before a rank can take it."""
    chance = random.SystemRandom()
    while True:
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("", chance.randrange(15_000, 32_000)))
            return server.getsockname()[1]


def _receive_quietly(receiver: Connection) -> str:
    try:
        kind, value = receiver.recv()
    except EOFError:
        return ""
    return value if kind != "ok" else ""


def _context() -> multiprocessing.context.ForkServerContext:
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def _enter(
    sender: Connection,
    function: Callable[..., Any],
    rank: int,
    world_size: int,
    port: int,
    args: tuple[Any, ...],
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        result = ("ok", function(rank, world_size, *args))
    except BaseException:
        result = ("failed", f"[rank {rank} of {world_size}]\n{traceback.format_exc()}")
    sender.send(result)
    sender.close()
