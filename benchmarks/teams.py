"""Rank processes that wait for requests, so that several layouts can take turns step by step.

A team that waits uses no processor. Its ranks have one CPU thread each, and have imported everything before the first of
them opens its process groups.
"""

import multiprocessing
import os
import pkgutil
import traceback
import warnings
from multiprocessing.connection import Connection, wait
from typing import Any

from train.world import LOOPBACK, World


class Team:
    """Ranks of one process group.

    Args:
        work: "module:function", a context manager that each rank calls as function(world, *args); what it yields
            answers the requests. A name, so that libraries are imported in the ranks alone.
        world_size: number of ranks.
        args: picklable.
    """

    def __init__(self, work: str, world_size: int, *args: Any) -> None:
        # Late: the ranks import this module before their environment is set.
        from train.rendezvous import serve_on_loopback

        self._store, port = serve_on_loopback(0)
        context = multiprocessing.get_context("spawn")
        self._processes = []
        self._connections: list[Connection] = []
        for rank in range(world_size):
            environment = {
                "DS_ACCELERATOR": "cpu",
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": LOOPBACK,
                "MASTER_PORT": str(port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
            }
            ours, theirs = context.Pipe()
            process = context.Process(target=_enter, args=(theirs, environment), daemon=True)
            process.start()
            theirs.close()
            ours.send((work, args))
            self._processes.append(process)
            self._connections.append(ours)
        self.answers()  # all have imported what they need
        self.tell()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, *request: Any) -> list[Any]:
        """Send a request to every rank; their answers in rank order."""
        self.tell(*request)
        return self.answers()

    def tell(self, *request: Any) -> None:
        """Send a request, and do not wait."""
        for connection in self._connections:
            connection.send(request)

    def answers(self) -> list[Any]:
        """Wait for the answers to a request.

        Raises:
            RuntimeError: a rank failed; all are ended.
        """
        found: dict[int, Any] = {}
        while len(found) < len(self._connections):
            waiting = [c for rank, c in enumerate(self._connections) if rank not in found]
            for connection in wait(waiting):
                assert isinstance(connection, Connection)
                rank = self._connections.index(connection)
                try:
                    is_answer, value = connection.recv()
                except EOFError:
                    is_answer, value = False, "the process ended"
                if not is_answer:
                    self._kill()
                    raise RuntimeError(f"rank {rank} of {len(self._connections)}: {value}")
                found[rank] = value
        return [found[rank] for rank in sorted(found)]

    def close(self) -> None:
        """Let the ranks end, and wait for them."""
        for process, connection in zip(self._processes, self._connections, strict=True):
            if process.is_alive():
                connection.send(None)
        for process in self._processes:
            process.join()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _enter(connection: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    try:
        name, args = connection.recv()
        work = pkgutil.resolve_name(name)
        connection.send((True, None))
        connection.recv()
        world = World(
            int(environment["RANK"]), int(environment["RANK"]), int(environment["WORLD_SIZE"])
        )
        with work(world, *args) as answer:
            while (request := connection.recv()) is not None:
                connection.send((True, answer(*request)))
    except BaseException:
        connection.send((False, traceback.format_exc()))
