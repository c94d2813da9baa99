"""The ranks' meeting: who is missing, who has died, and that nothing of it leaves the machine."""

import datetime
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from configs.errors import ConfigError, DistributedError
from train import exposure, rendezvous
from train.exposure import exposure_warning, outside_addresses
from train.rendezvous import Rendezvous, open_stores, serve_on_loopback
from train.world import World, node_name

SECONDS = datetime.timedelta(seconds=20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(rendezvous, "HEARTBEAT_TIMEOUT_SECONDS", 1.5)
    monkeypatch.setattr(rendezvous, "_POLL_SECONDS", 0.02)


@pytest.fixture
def store() -> Iterator[Any]:
    served, _ = serve_on_loopback(0, SECONDS)
    yield served


def opened(store: Any, rank: int, size: int, limit: float = 60.0) -> Rendezvous:
    return Rendezvous(World(rank, rank, size), [store.clone(), store.clone()], limit)


def outcome(of: Rendezvous) -> str:
    try:
        of.gather()
    except DistributedError as error:
        return str(error)
    finally:
        of.close()
    return "met"


def outcomes(*ranks: Rendezvous) -> list[str]:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(outcome, ranks))


def test_ranks_that_all_come_meet_however_long_one_prepares(store: Any) -> None:
    ranks = [opened(store, rank, 3, limit=1.0) for rank in range(3)]
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(outcome, rank) for rank in ranks[:2]]
        with pytest.raises(TimeoutError):
            first[0].result(timeout=1.5)  # rank 2 is there, and still prepares
        assert outcome(ranks[2]) == "met"
        assert [each.result() for each in first] == ["met", "met"]


def test_a_rank_that_never_comes_is_named_by_all_others(store: Any) -> None:
    said = outcomes(opened(store, 0, 4, limit=0.3), opened(store, 2, 4))
    for rank, words in zip((0, 2), said, strict=True):
        assert words == (
            f"[rank {rank} on {node_name()}] ranks 1, 3 of 4 did not connect within 0.3 s "
            "(stability.meeting_seconds)"
        )


def test_a_rank_that_came_and_died_is_named_with_its_node(store: Any) -> None:
    opened(store, 1, 3).close()
    said = outcomes(opened(store, 0, 3), opened(store, 2, 3))
    assert all(
        f"rank 1 ({node_name()}) connected, but then died or hung" in words for words in said
    ), said


def test_rank_0_that_died_is_named(store: Any) -> None:
    opened(store, 0, 2).close()
    assert "rank 0" in outcome(opened(store, 1, 2))


def test_ranks_without_the_address_of_a_store_say_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT are not set: the 2 ranks"):
        open_stores(World(0, 0, 2), 1.0, 1)


def test_on_one_node_rank_0_listens_on_loopback_whatever_the_node_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    mine, _ = open_stores(World(0, 0, 2), 20.0, 2)
    theirs, _ = open_stores(World(1, 1, 2), 20.0, 2)
    mine.set("key", "value")
    assert theirs.get("key") == b"value"
    assert not [each for each in outside_addresses(os.getpid()) if each.endswith(f":{port}")]


@pytest.mark.parametrize(
    ("host", "is_outside"), [("0.0.0.0", True), ("127.0.0.1", False), ("::", True), ("::1", False)]
)
def test_an_address_that_others_reach_is_said_with_what_to_type(
    host: str, is_outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        listener.listen()
        address = f"[{host}]" if ":" in host else host
        name = f"{address}:{listener.getsockname()[1]}"
        assert (name in outside_addresses(os.getpid())) is is_outside
        monkeypatch.setattr(exposure, "launcher_pid", lambda world: os.getpid())
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        warning = exposure_warning(World(0, 0, 2, "torchrun")) or ""
        assert (name in warning) is is_outside
        assert not is_outside or "python -m train.torchrun --nproc-per-node 2 -m train" in warning
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
        assert not is_outside or "network of machines that you trust" in str(
            exposure_warning(World(0, 0, 2, "torchrun"))
        )
