"""Under torchrun: a rank that dies starts the group again, and a mistake of the user's does not."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.network import neighbours
from tests.helpers.whole_runs import command, compared, run_attempt, torchrun


@contextlib.contextmanager
def launched(
    overrides: tuple[str, ...], ranks: int, max_restarts: int, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A launcher whose words arrive on standard error. Whatever fails, it is ended."""
    launcher = torchrun(overrides, ranks, max_restarts, before)
    try:
        yield launcher
    finally:
        launcher.kill()
        launcher.communicate()


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Process ids of the ranks that a torchrun has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"train" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


@dataclass
class KilledRun:
    """A run of two ranks, looked at after its first save, when one of them was killed."""

    folder: Path
    code: int
    said: str
    reached: list[int] | None
    """Ports that a stranger reached; None: this machine lets us make no network."""
    listening: list[int]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> KilledRun:
    folder = tmp_path_factory.mktemp("killed")
    overrides = command(folder, "parallel.tp=2", "checkpoint.save_every_samples=16")
    run = folder / "run"
    with (
        neighbours() as network,
        launched((*overrides, f"run.dir={run}"), 2, 2, network.host if network else ()) as launcher,
    ):
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
            assert launcher.poll() is None, launcher.communicate()[1]
            time.sleep(0.02)
        ranks = ranks_of(launcher)
        for rank in ranks:
            os.kill(rank, signal.SIGSTOP)  # the kernel still answers for their ports
        ports = network.listening() if network else []
        reached = network.reached(ports) if network else None
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
        os.kill(ranks[1], signal.SIGKILL)
        _, said = launcher.communicate(timeout=180)
    return KilledRun(folder, launcher.returncode, said, reached, ports)


def test_a_killed_rank_starts_the_group_again_and_nothing_is_lost(killed: KilledRun) -> None:
    overrides = command(killed.folder, "parallel.tp=2", "checkpoint.save_every_samples=16")
    run, whole = killed.folder / "run", killed.folder / "whole"
    assert killed.code == 0, killed.said
    assert len(list((run / "generations").iterdir())) == 2
    assert run_attempt(2, (*overrides, f"run.dir={whole}")) == [0, 0]
    assert compared(run) == compared(whole)


def test_a_stranger_on_the_network_reaches_no_port_of_a_run_on_one_node(killed: KilledRun) -> None:
    if killed.reached is None:
        pytest.skip("this machine lets us make no network of two hosts")
    assert len(killed.listening) >= 3, "the store, and gloo of two ranks"
    assert killed.reached == []


@pytest.mark.parametrize("mistake", ["data.paths=missing.txt", "optim.learning_rate=1"])
def test_a_mistake_is_reported_once_and_not_tried_again(mistake: str, tmp_path: Path) -> None:
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", mistake)
    with launched(overrides, 2, 100) as launcher:
        _, said = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    told = (
        "does not exist" if mistake.startswith("data") else 'There is no key "optim.learning_rate"'
    )
    assert said.count(told) == 1
