"""Savers of three replicas whose state is made by hand, another one after each step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from configs.load import load_config
from configs.run_checkpoints import committed, step_of
from glm.checkpoint.reader import load_full_tensors, verify
from glm.checkpoint.writer import Piece
from tests.helpers.checkpoints import KINDS, NUM_RANKS, SHAPES, pieces_of, tensors
from tests.helpers.rank_runs import saver_of


class FakeState:
    """The optimizer state of one of three replicas."""

    seed = 0

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def pieces(self) -> list[Piece]:
        return pieces_of(self._rank, self.seed)

    def shapes(self) -> dict[str, list[int]]:
        return {name: list(shape) for name, shape in SHAPES.items()}

    def slots(self) -> dict[str, list[str]]:
        return {name: list(KINDS) for name in SHAPES}

    def numbers(self) -> dict[str, Any]:
        return {"step": float(self.seed)}


def session_of(rank: int) -> Any:
    """What a saver needs of a session."""
    from train.topology import Topology

    if not dist.is_initialized():
        dist.init_process_group("gloo")
        dist.barrier()  # a rank with nothing to do would end while others still connect to it
    return SimpleNamespace(
        topology=Topology(1, 1, NUM_RANKS, rank),
        control_group=dist.group.WORLD,
        device=torch.device("cpu"),
    )


def fake_saver(rank: int, checkpoints: Path, *overrides: str, **options: Any) -> Any:
    """The saver of one rank, whose engine is a FakeState."""
    engine: Any = SimpleNamespace(state=FakeState(rank), add_hook=lambda hook: lambda: None)
    config = load_config([*overrides, "run.name=r"])
    return saver_of(engine, session_of(rank), config, checkpoints, **options)


def start_step(saver: Any, step: int) -> None:
    """Begin to save."""
    from train.progress import Progress

    saver._state.seed = step
    saver.save(Progress(step, 10 * step, 0, 10 * step, 0))


def save_step(saver: Any, step: int) -> Any:
    """Save and wait; what became of it."""
    start_step(saver, step)
    return next(o for o in saver.finish() if o.progress.step == step and not o.is_copy)


def steps_in(checkpoints: Path) -> list[int]:
    """Committed steps, newest first."""
    return [step_of(folder) for folder in committed(checkpoints)]


def check_content(folder: Path, seed: int) -> None:
    """The checkpoint is whole and holds the state of that step."""
    verify(folder)
    for name, values in load_full_tensors(folder, "master").items():
        assert torch.equal(values, tensors(seed)[name, "master"])
