"""What ranks do beside training: measured in the ranks of a `Team`, and counted for a run that is too large to start here."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from benchmarks.stepping import Stepper, opened
from configs.load import load_config
from configs.schema import Config
from glm.loss import ObjectiveSums
from train import distributed
from train.batches import StepBatches
from train.engine.interface import StepOutcome
from train.loop import Trainer
from train.plan import StepPlan, TrainingPlan
from train.session import Session
from train.topology import Topology
from train.world import World

_REPETITIONS = 20


@contextlib.contextmanager
def measured(world: World, words: list[str]) -> Iterator[Callable[[str], Any]]:
    """Answers "start" with what opening the groups took, and "steps" with the seconds of steps and of their exchanges."""
    memory, sockets = _memory_bytes(), _num_sockets()
    started = time.perf_counter()
    with opened(world, words) as (config, session):
        start = {
            "seconds": time.perf_counter() - started,
            "memory_bytes": _memory_bytes() - memory,
            "sockets": _num_sockets() - sockets,
            "peers": sum(size - 1 for size in _own_groups()),
        }
        stepper = Stepper(config, session)

        def answer(what: str) -> Any:
            if what == "start":
                return start
            return [_step(stepper, config, session) for _ in range(_REPETITIONS)]

        yield answer
        stepper.engine.close()


@contextlib.contextmanager
def counted(_: World, words: list[str], num_ranks: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Answers with the gloo groups of a rank of a large run on GPUs, and the bytes of its exchange."""
    config = load_config(words, num_ranks)
    topology = Topology.from_config(config.parallel, 0, num_ranks)
    groups = gloo_groups(topology)
    yield lambda: {
        "layout": [topology.tp, topology.pp, topology.dp],
        "groups": groups,
        "peers": sum(size - 1 for size in groups),
        "exchange_bytes": exchange_bytes(config, topology),
    }


def agree(
    config: Config,
    session: Session,
    step: StepPlan,
    rows: StepBatches,
    outcome: StepOutcome,
    seconds: float,
) -> None:
    """The training loop's own exchange after a step, without the rest of the loop."""
    parts: dict[str, Any] = dict.fromkeys(each.name for each in fields(Trainer))
    parts |= {
        "config": config,
        "session": session,
        "time_limit": SimpleNamespace(is_near=False),
        "stop": SimpleNamespace(reason=None),
        "saver": SimpleNamespace(has_failed=False),
    }
    Trainer(**parts)._agree(step, rows, outcome, seconds)


def exchange_bytes(config: Config, topology: Topology) -> int:
    """Bytes that a rank gives to the exchange of a step."""
    sizes = list[int]()

    class Alone(Session):
        def sum(self, values: list[float]) -> list[float]:
            sizes.append(torch.tensor(values, dtype=torch.float64).nbytes)
            return values

    nobody: Any = None
    session = Alone(topology, torch.device("cpu"), nobody, nobody)
    outcome = StepOutcome(ObjectiveSums.zeros(2), 0.0, 0.0, False, None)
    plan = TrainingPlan.from_config(config).step_at(0)
    agree(config, session, plan, StepBatches([], 0, 0, 0.0), outcome, 1.0)
    (size,) = sizes
    return size


def gloo_groups(topology: Topology) -> list[int]:
    """Sizes of the gloo groups that a rank opens in a run on GPUs; nothing is opened."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    sizes = list[int]()
    new_group = dist.new_group

    def noted(ranks: list[int] | None = None, **named: Any) -> Any:
        members = range(topology.world_size) if ranks is None else ranks
        if named.get("backend") == "gloo" and topology.rank in members:
            sizes.append(len(members))
        return new_group(ranks, **named | {"backend": "fake"})

    store: Any = FakeStore()
    dist.init_process_group("fake", store=store, rank=topology.rank, world_size=topology.world_size)
    with mock.patch.object(dist, "new_group", noted):
        distributed._start_libraries(topology, torch.device("cpu"))
        distributed._control_group(torch.device("cuda"))
        distributed._replica_group(topology, torch.device("cuda"))
    distributed._stop()
    return sizes


def _step(stepper: Stepper, config: Config, session: Session) -> tuple[float, float]:
    """Seconds of a step of one micro-batch, and of the exchange after it."""
    rows = stepper.rows(1)
    session.barrier()
    started = time.perf_counter()
    outcome = stepper.train(1)
    seconds = time.perf_counter() - started
    session.barrier()
    started = time.perf_counter()
    agree(config, session, stepper.plan(1), rows, outcome, seconds)
    return seconds, time.perf_counter() - started


def _own_groups() -> list[int]:
    """Sizes of the process groups that this rank is in."""
    groups = dist.distributed_c10d._world.pg_group_ranks
    rank = dist.get_rank()
    return [len(members) for members in groups.values() if rank in members]


def _num_sockets() -> int:
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder's own is closed by then
            count += os.readlink(entry.path).startswith("socket:")
    return count


def _memory_bytes() -> int:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
