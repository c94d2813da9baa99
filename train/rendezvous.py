"""How the ranks of a run find each other before they have process groups: through the launcher's key-value store.

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
HEARTBEAT_TIMEOUT_SECONDS = 30.0
"""A rank without a heartbeat for this long has died or hangs, or its machine has failed."""
_POLL_SECONDS = 0.2
# How much later than rank 0 another rank may have loaded its libraries.
_LINGER_SECONDS = 30.0
# How long all ranks wait for those that are still preparing, for instance copying shards to their node.
_LONGEST_PREPARATION_SECONDS = 1800.0
_GATHERED = "gathered"
_NAMED = 8


def open_stores(world: World, seconds: float, count: int) -> list[dist.Store]:
    """Connect to the store that the launcher named; rank 0 serves it unless the launcher does.

    Args:
        world: this process.
        seconds: how long to wait for the store, and then for each answer.
        count: number of connections; an operation that waits blocks its connection.

    Raises:
        ConfigError: no launcher named a store.
        DistributedError: nothing answers at its address.
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
            f"[rank {world.rank} on {node_name()}] no connection to the store at {address.host}:{address.port} within "
            f"{seconds:g} s: {reason}"
        ) from error
    # A launcher keeps its store across restarts, and PyTorch 2.13 uses it as if it were new: the ranks would then
    # try to connect to the addresses of dead ones.
    prefix = f"start_{address.restarts}" if address.is_served else "start"
    return [dist.PrefixStore(prefix, store) for store in stores]


class Rendezvous:
    """This rank's heartbeat in the store, and its view of the other ranks, until `close`.

    Args:
        world: this process.
        stores: two connections to the same store; one of them never waits.
        meeting_seconds: a rank that has not connected after this time is reported as missing.
    """

    def __init__(self, world: World, stores: Sequence[dist.Store], meeting_seconds: float) -> None:
        self.store, self._heartbeat_store = stores
        self._world = world
        self._limit = meeting_seconds
        self._opened = time.monotonic()
        # By rank: its last heartbeat, and when it arrived.
        self._last_heartbeats: dict[int, tuple[bytes, float]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        if world.size > 1:
            self.store.set(f"host/{world.rank}", node_name())
            self._thread.start()

    @classmethod
    def open(cls, world: World, meeting_seconds: float) -> "Rendezvous":
        """Connect to the store, and start to send heartbeats.

        Raises:
            DistributedError: rank 0, or the launcher's store, does not answer in time.
        """
        return cls(world, open_stores(world, meeting_seconds, 2), meeting_seconds)

    def gather(self) -> None:
        """Wait until every rank has called this.

        Raises:
            DistributedError: some are missing or have died; the message names them.
        """
        if self._world.size == 1:
            return
        try:
            self.store.set(f"ready/{self._world.rank}", "")
            (self._lead if self._world.is_main else self._follow)()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise DistributedError(
                f"{self._me()} rank 0 ended before all ranks had connected: {reason}"
            ) from error

    @contextlib.contextmanager
    def kept_for_others(self) -> Iterator[None]:
        """On wrong input, let the other ranks connect to the store first: they find the same mistake themselves.

        The store ends with rank 0; a rank that has not connected by then would wait for `stability.meeting_seconds`.
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
        """End this process with exit code 3 if a rank dies in this block: the libraries would wait for it much longer."""
        if self._world.size == 1:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    lost = self._lost_ranks()
                except RuntimeError:
                    lost = "rank 0 has ended"
                if lost and not done.is_set():
                    sys.stderr.write(
                        f"{self._me()} {lost}, while the process groups were being created\n"
                    )
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
            with contextlib.suppress(RuntimeError):  # the ranks that wait report it
                self._heartbeat_store.set(f"heartbeat/{self._world.rank}", str(number))
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
            problem = self._lost_ranks()
            if not problem and time.monotonic() - started > _LONGEST_PREPARATION_SECONDS:
                problem = f"{self._named(self._others(ready))} still preparing after {_LONGEST_PREPARATION_SECONDS:g} s"
            if problem:
                self.store.set(_GATHERED, problem)
                # This process may serve the store: let the others read it first.
                time.sleep(5 * _POLL_SECONDS)
                raise DistributedError(f"{self._me()} {problem}")
            time.sleep(_POLL_SECONDS)

    def _follow(self) -> None:
        while not self.store.check([_GATHERED]):
            if problem := self._lost_ranks():
                raise DistributedError(f"{self._me()} {problem}")
            time.sleep(_POLL_SECONDS)
        if problem := self.store.get(_GATHERED).decode():
            raise DistributedError(f"{self._me()} {problem}")

    def _lost_ranks(self) -> str:
        """Say which of the ranks that this one watches are missing or lost; "" if none."""
        now = time.monotonic()
        watched = self._others(()) if self._world.is_main else [0]
        connected = [rank for rank in watched if rank in self._last_heartbeats]
        connected += [
            rank
            for rank in watched
            if rank not in self._last_heartbeats
            and self._heartbeat_store.check([f"heartbeat/{rank}"])
        ]
        keys = [f"heartbeat/{rank}" for rank in connected]
        for rank, heartbeat in zip(
            connected, self._heartbeat_store.multi_get(keys) if keys else [], strict=True
        ):
            if rank not in self._last_heartbeats or self._last_heartbeats[rank][0] != heartbeat:
                self._last_heartbeats[rank] = heartbeat, now
        lost = [
            rank
            for rank in connected
            if now - self._last_heartbeats[rank][1] > HEARTBEAT_TIMEOUT_SECONDS
        ]
        if lost:
            return f"{self._named(lost)} connected, but then died or hung: no heartbeat for {HEARTBEAT_TIMEOUT_SECONDS:g} s"
        missing = [rank for rank in watched if rank not in self._last_heartbeats]
        if missing and now - self._opened > self._limit:
            return (
                f"{self._named(missing)} of {self._world.size} did not connect within {self._limit:g} s "
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
            is_known = self._heartbeat_store.check([f"host/{rank}"])
            where = f" ({self._heartbeat_store.get(f'host/{rank}').decode()})" if is_known else ""
            words.append(f"{rank}{where}")
        more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
        return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(words)}{more}"

    def _me(self) -> str:
        return f"[rank {self._world.rank} on {node_name()}]"


def serve_on_loopback(
    port: int, timeout: datetime.timedelta = dist.default_pg_timeout
) -> tuple[dist.Store, int]:
    """Serve a store that other machines cannot reach; returns it with its port.

    Args:
        port: port to listen at; 0 for a free one.
        timeout: timeout of its operations.

    Raises:
        OSError: the port is in use.
    """
    # A socket that PyTorch opens would listen on every address of this machine.
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
    """The host to connect to; on one node, the name that the launcher gives it need not resolve."""
    if not is_on_one_node(world):
        return address.host
    if not address.is_served:
        return LOOPBACK
    try:
        socket.getaddrinfo(address.host, address.port)
    except OSError:
        return LOOPBACK
    return address.host
