"""Where the ranks of a run find each other, before they have process groups: the launcher's key-value store.

While a rank prepares data or waits for others, a thread of it sends a heartbeat every two seconds. So a rank that dies
before the groups exist is reported within half a minute, however long the others prepare, and a rank that never
connects is reported after `stability.meeting_seconds`. Rank 0 watches all ranks; the others watch rank 0.

On one node nothing listens on an address that another machine can reach: whoever reaches a store or a gloo port can
end a run, or change what it learns.
"""

import contextlib
import datetime
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import torch.distributed as dist

from configs.errors import EXIT_PEER_FAILED, ConfigError, DistributedError, UserError
from train.world import LOOPBACK, StoreAddress, World, is_on_one_node, node_name, store_address

HEARTBEAT_SECONDS = 2.0
SILENT_SECONDS = 30.0
"""A rank without a heartbeat for this long has died or hangs, or its machine has failed."""
_POLL_SECONDS = 0.2
# How much later than rank 0 another rank may have loaded its libraries.
_LINGER_SECONDS = 30.0
# All are there, and still prepare: as long as one rank may take alone, for instance to copy shards to its node.
_LONGEST_PREPARATION_SECONDS = 1800.0
_GATHERED = "gathered"
_NAMED = 8


def open_stores(world: World, seconds: float, count: int) -> list[dist.Store]:
    """Connect to the store that the launcher named; rank 0 serves it unless the launcher does.

    Args:
        world: this process.
        seconds: how long to wait for whoever serves it, and then for each answer.
        count: connections; an operation that waits holds its own.

    Raises:
        ConfigError: no launcher named a store.
        DistributedError: nobody answers there.
    """
    address = store_address()
    if address is None:
        if world.size > 1:
            raise ConfigError(
                [
                    f"MASTER_ADDR and MASTER_PORT are not set: the {world.size} ranks do not know where to meet. Start them "
                    "with python -m launch slurm or torchrun, or set both, the same for all ranks."
                ]
            )
        return [dist.HashStore()] * count
    timeout = datetime.timedelta(seconds=seconds)
    stores = list[dist.Store]()
    try:
        if world.is_main and not address.is_served:
            stores.append(_serve(world, address, timeout))
        host = _host(world, address)
        while len(stores) < count:
            stores.append(dist.TCPStore(host, address.port, is_master=False, timeout=timeout))
    except (RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DistributedError(
            f"[rank {world.rank} on {node_name()}] the ranks could not meet at {address.host}:{address.port} within "
            f"{seconds:g} s: {reason}"
        ) from error
    # A launcher keeps its store through its restarts, and PyTorch 2.13 takes it for a new one: the ranks would then
    # try to reach the addresses of dead ones.
    prefix = f"start_{address.restarts}" if address.is_served else "start"
    return [dist.PrefixStore(prefix, store) for store in stores]


class Rendezvous:
    """This rank's presence among the others, until `close`.

    Args:
        world: this process.
        stores: two connections to the same store; one of them never waits.
        meeting_seconds: after which a rank that has not come is missing.
    """

    def __init__(self, world: World, stores: Sequence[dist.Store], meeting_seconds: float) -> None:
        self.store, self._beats = stores
        self._world = world
        self._limit = meeting_seconds
        self._opened = time.monotonic()
        # Of each rank: its last word, and when it was new.
        self._heard: dict[int, tuple[bytes, float]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, name="presence", daemon=True)
        if world.size > 1:
            self.store.set(f"host/{world.rank}", node_name())
            self._thread.start()

    @classmethod
    def open(cls, world: World, meeting_seconds: float) -> "Rendezvous":
        """Reach the store and be present in it.

        Raises:
            DistributedError: rank 0, or the launcher's store, is not there in time.
        """
        return cls(world, open_stores(world, meeting_seconds, 2), meeting_seconds)

    def gather(self) -> None:
        """Wait until every rank has come here.

        Raises:
            DistributedError: some are missing or have died; names them.
        """
        if self._world.size == 1:
            return
        try:
            self.store.set(f"ready/{self._world.rank}", "")
            (self._lead if self._world.is_main else self._follow)()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise DistributedError(
                f"{self._me()} rank 0 is gone before the ranks had met: {reason}"
            ) from error

    @contextlib.contextmanager
    def kept_for_others(self) -> Iterator[None]:
        """If the user's input is wrong, let the other ranks reach the store first: they find the same mistake by themselves.

        With rank 0, its store goes; who has not reached it by then waits for it until `stability.meeting_seconds`.
        """
        try:
            yield
        except UserError:
            deadline = time.monotonic() + _LINGER_SECONDS
            names = [f"host/{rank}" for rank in range(self._world.size)]
            while self._world.is_main and self._world.size > 1 and time.monotonic() < deadline:
                if self.store.check(names):
                    break
                time.sleep(_POLL_SECONDS)
            raise

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """End this process, with 3, if a rank dies in here: libraries wait for it much longer."""
        if self._world.size == 1:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    lost = self._silent()
                except RuntimeError:
                    lost = "rank 0 is gone"
                if lost and not done.is_set():
                    sys.stderr.write(f"{self._me()} {lost}, while the process groups were made\n")
                    sys.stderr.flush()
                    os._exit(EXIT_PEER_FAILED)

        thread = threading.Thread(target=watch, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """Stop sending heartbeats."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _send_heartbeats(self) -> None:
        number = 0
        while not self._closing.is_set():
            with contextlib.suppress(RuntimeError):  # whoever waits finds out
                self._beats.set(f"beat/{self._world.rank}", str(number))
            number += 1
            self._closing.wait(HEARTBEAT_SECONDS)

    def _lead(self) -> None:
        ready = {self._world.rank}
        started = time.monotonic()
        while True:
            ready |= {rank for rank in self._others(ready) if self.store.check([f"ready/{rank}"])}
            if len(ready) == self._world.size:
                self.store.set(_GATHERED, "")
                return
            problem = self._silent()
            if not problem and time.monotonic() - started > _LONGEST_PREPARATION_SECONDS:
                problem = f"{self._named(self._others(ready))} still prepared after {_LONGEST_PREPARATION_SECONDS:g} s"
            if problem:
                self.store.set(_GATHERED, problem)
                time.sleep(5 * _POLL_SECONDS)  # the store may be ours: let the others read it
                raise DistributedError(f"{self._me()} {problem}")
            time.sleep(_POLL_SECONDS)

    def _follow(self) -> None:
        while not self.store.check([_GATHERED]):
            if problem := self._silent():
                raise DistributedError(f"{self._me()} {problem}")
            time.sleep(_POLL_SECONDS)
        if problem := self.store.get(_GATHERED).decode():
            raise DistributedError(f"{self._me()} {problem}")

    def _silent(self) -> str:
        """What is wrong with the ranks that this one looks at; "" if nothing is."""
        now = time.monotonic()
        looked_at = self._others(()) if self._world.is_main else [0]
        came = [rank for rank in looked_at if rank in self._heard]
        came += [
            rank
            for rank in looked_at
            if rank not in self._heard and self._beats.check([f"beat/{rank}"])
        ]
        keys = [f"beat/{rank}" for rank in came]
        for rank, said in zip(came, self._beats.multi_get(keys) if keys else [], strict=True):
            if rank not in self._heard or self._heard[rank][0] != said:
                self._heard[rank] = said, now
        silent = [rank for rank in came if now - self._heard[rank][1] > SILENT_SECONDS]
        if silent:
            return f"{self._named(silent)} came, but died or hung: no heartbeat for {SILENT_SECONDS:g} s"
        missing = [rank for rank in looked_at if rank not in self._heard]
        if missing and now - self._opened > self._limit:
            return (
                f"{self._named(missing)} of {self._world.size} did not come within {self._limit:g} s "
                "(stability.meeting_seconds)"
            )
        return ""

    def _others(self, known: Sequence[int] | set[int]) -> list[int]:
        return [
            rank
            for rank in range(self._world.size)
            if rank != self._world.rank and rank not in known
        ]

    def _named(self, ranks: list[int]) -> str:
        words = list[str]()
        for rank in ranks[:_NAMED]:
            is_known = self._beats.check([f"host/{rank}"])
            where = f" ({self._beats.get(f'host/{rank}').decode()})" if is_known else ""
            words.append(f"{rank}{where}")
        more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
        return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(words)}{more}"

    def _me(self) -> str:
        return f"[rank {self._world.rank} on {node_name()}]"


def serve_on_loopback(
    port: int, timeout: datetime.timedelta = dist.default_pg_timeout
) -> tuple[dist.Store, int]:
    """Serve a store that other machines do not reach; returns it with its port.

    Args:
        port: to listen at; 0: a free one.
        timeout: of its operations.

    Raises:
        OSError: somebody listens there.
    """
    # PyTorch's own socket would listen on every address of this machine.
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(socket.SOMAXCONN)
        taken: int = listener.getsockname()[1]
        store = dist.TCPStore(
            LOOPBACK,
            taken,
            is_master=True,
            wait_for_workers=False,
            timeout=timeout,
            master_listen_fd=listener.fileno(),
        )
        listener.detach()  # the store's from now on
    return store, taken


def _serve(world: World, address: StoreAddress, timeout: datetime.timedelta) -> dist.Store:
    if is_on_one_node(world):
        return serve_on_loopback(address.port, timeout)[0]
    return dist.TCPStore(
        address.host, address.port, is_master=True, wait_for_workers=False, timeout=timeout
    )


def _host(world: World, address: StoreAddress) -> str:
    """Where to connect: on one node the launcher's name for it need not resolve."""
    if not is_on_one_node(world):
        return address.host
    if not address.is_served:
        return LOOPBACK
    try:
        socket.getaddrinfo(address.host, address.port)
    except OSError:
        return LOOPBACK
    return address.host
