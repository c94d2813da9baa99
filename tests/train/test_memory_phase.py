"""The message of a run without memory names what it was doing; errors are injected into real trainings."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.whole_runs import command
from train.memory_phase import PHASES

GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize("place", PHASES)
def test_every_phase_names_a_function_that_there_is(place: tuple[str, str]) -> None:
    source = Path(str(importlib.import_module(place[0]).__file__)).read_text()
    assert re.search(rf"^ *def {place[1]}\(", source, re.MULTILINE)


def out_of_memory(
    rank: int, world_size: int, overrides: tuple[str, ...], at: tuple[str, str, str], kind: str
) -> int:
    """A run in which a function fails as an allocator does; returns its exit code."""
    import sys

    import torch

    from train.main import cli

    def fail(*_: object, **__: object) -> None:
        if kind == "gpu":
            raise torch.OutOfMemoryError(GPU)
        raise MemoryError if kind == "python" else RuntimeError(CPU)

    module, name, errors = at
    holder: Any = importlib.import_module(module)
    *owner, name = name.split(".")
    for part in owner:
        holder = getattr(holder, part)
    setattr(holder, name, fail)
    with Path(errors).open("w") as sys.stderr:
        return cli(list(overrides))


@pytest.mark.parametrize(
    ("module", "name", "kind", "said"),
    [
        (
            "train.engine.pipeline",
            "build_pipeline",
            "cpu",
            "while it built the model and the optimizer ([enforce fail at alloc_cpu.cpp:121] err == 0. "
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes)",
        ),
        (
            "glm.mlp",
            "GeGLU.forward",
            "gpu",
            "in a training step (CUDA out of memory. Tried to allocate 2.00 GiB)",
        ),
        ("train.evaluation", "share_of", "python", "in an evaluation"),
    ],
)
def test_the_message_names_the_phase_what_was_asked_and_what_to_type(
    module: str, name: str, kind: str, said: str, tmp_path: Path
) -> None:
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.total_samples=16")
    errors = tmp_path / "errors.txt"
    ranks = Ranks(out_of_memory, 1, overrides, (module, name, str(errors)), kind)
    assert ranks.results(120) == [2]
    words = errors.read_text()
    assert f"ran out of memory {said}. Type the same command with a smaller" in words
    for key in ("optim.micro_batch_size", "parallel.recompute=", "parallel.tp", "parallel.pp"):
        assert key in words
    assert "python -m launch estimate" in words
    assert "Traceback" not in words
