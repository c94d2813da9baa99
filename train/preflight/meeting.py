"""Exchange of values between ranks through the launcher's key-value store; no rank waits forever for another."""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch.distributed as dist

from configs.errors import DistributedError
from train.rendezvous import open_stores
from train.world import World

_CLOCK, _CLOCK_PERIOD_SECONDS, _CLOCK_READS = "clock", 0.005, 20


class Meeting:
    """The store, and how long to wait for other ranks.

    Args:
        store: the store, shared by all ranks.
        clock_store: the same store over a second connection, for the clock's thread: a waiting call occupies its
            connection.
        world: rank and launcher of this process.
        host: name of the node that it runs on.
        patience_seconds: how long to wait for each value that other ranks publish.
    """

    def __init__(
        self,
        store: dist.Store,
        clock_store: dist.Store,
        world: World,
        host: str,
        patience_seconds: float,
    ) -> None:
        self.store = store
        self._clock_store = clock_store
        self.world = world
        self.host = host
        self._patience = patience_seconds
        # Before anything that can hang: if the rank publishes nothing else, its node is still known.
        self.publish("host", host)

    @classmethod
    def open(cls, world: World, host: str, patience_seconds: float) -> "Meeting":
        """Connect to the store that the launcher named; rank 0 serves it unless torchrun does.

        Raises:
            DistributedError: nothing answers at that address.
        """
        stores = open_stores(world, patience_seconds, 2)
        store, clock_store = (dist.PrefixStore("preflight", each) for each in stores)
        return cls(store, clock_store, world, host, patience_seconds)

    def publish(self, name: str, value: str) -> None:
        """Publish a value of this rank for all ranks."""
        self.store.set(f"{name}/{self.world.rank}", value)

    def collect(
        self, name: str, among: Sequence[int] | None = None, seconds: float | None = None
    ) -> tuple[dict[int, str], list[int]]:
        """Collect a value that ranks publish.

        Args:
            name: name of the value.
            among: the ranks; None: all.
            seconds: how long to wait for the last of them; None: `patience_seconds`.

        Returns:
            The values by rank, and the ranks that published none in time.
        """
        deadline = time.monotonic() + (self._patience if seconds is None else seconds)
        values: dict[int, str] = {}
        asked = range(self.world.size) if among is None else among
        for rank in asked:
            key = f"{name}/{rank}"
            left = max(deadline - time.monotonic(), 0.1)
            try:
                self.store.wait([key], datetime.timedelta(seconds=left))
            except (dist.DistStoreError, RuntimeError):
                continue
            values[rank] = self.store.get(key).decode()
        return values, [rank for rank in asked if rank not in values]

    def another_store(self) -> dist.Store:
        """The same store over a new connection: a waiting call occupies its connection."""
        store: Any = self.store  # PyTorch's type stubs lack clone
        return store.clone()

    def hosts(self) -> dict[int, str]:
        """The node of each rank that has started so far."""
        return {
            rank: self.store.get(f"host/{rank}").decode()
            for rank in range(self.world.size)
            if self.store.check([f"host/{rank}"])
        }

    def wait_for_main(self, name: str, seconds: float = 0.0) -> str:
        """Wait for a value of rank 0, which itself may be waiting for a rank that does not answer.

        Args:
            name: name of the value.
            seconds: additional time that rank 0 may need before it publishes the value.

        Raises:
            DistributedError: rank 0 published nothing in time.
        """
        key = f"{name}/0"
        try:
            self.store.wait([key], datetime.timedelta(seconds=3 * self._patience + seconds))
            return self.store.get(key).decode()
        except (dist.DistStoreError, RuntimeError) as error:
            raise self._no_answer(error) from error

    @contextlib.contextmanager
    def clock(self, now: Callable[[], float]) -> Iterator[None]:
        """Publish rank 0's time in the store while the other ranks compare theirs."""
        if not self.world.is_main or self.world.size == 1:
            yield
            return
        stopping = threading.Event()

        def tick() -> None:
            while not stopping.is_set():
                self._clock_store.set(_CLOCK, repr(now()))
                stopping.wait(_CLOCK_PERIOD_SECONDS)

        thread = threading.Thread(target=tick, name="clock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def clock_offset_seconds(self, now: Callable[[], float]) -> float:
        """Offset of this clock from rank 0's, to within the few milliseconds that the store takes."""
        if self.world.is_main:
            return 0.0
        try:
            offsets = [now() - float(self.store.get(_CLOCK)) for _ in range(_CLOCK_READS)]
        except (dist.DistStoreError, RuntimeError) as error:
            raise self._no_answer(error) from error
        return min(offsets, key=abs)

    def _no_answer(self, error: Exception) -> DistributedError:
        return DistributedError(f"[rank {self.world.rank}] rank 0 does not answer: {error}")


def pairs_of(nodes: Iterable[str]) -> list[list[tuple[str, str]]]:
    """Divide the links of a ring of nodes into rounds of disjoint pairs; two nodes have one link."""
    names = list(nodes)
    count = len(names)
    if count < 2:
        return []
    ring = [(names[at], names[(at + 1) % count]) for at in range(count if count > 2 else 1)]
    rounds = [ring[0 : count - 1 if count % 2 else count : 2], ring[1::2]]
    if count % 2 and count > 2:  # the last pair shares a node with the first of its round
        rounds.append([ring[-1]])
    return [pairs for pairs in rounds if pairs]
