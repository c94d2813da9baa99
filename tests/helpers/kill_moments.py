"""Kill -9 at chosen moments of a rollback: before or after a function that carries it out."""

import functools
import importlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """Where a rank dies, once a rollback has begun in its process."""

    name: str
    module: str
    owner: str | None
    attribute: str
    is_after: bool
    rank: int = 0
    """Of several; one process is rank 0."""

    def arm(self, rank: int) -> None:
        """Wrap the function in this process, if its rank is the one."""
        if rank != self.rank:
            return
        has_begun = False
        training = importlib.import_module("train.training").Training
        decide = training._decide

        def begin(*arguments: Any) -> Any:
            nonlocal has_begun
            has_begun = True
            return decide(*arguments)

        training._decide = begin
        module = importlib.import_module(self.module)
        holder = module if self.owner is None else getattr(module, self.owner)
        original: Callable[..., Any] = getattr(holder, self.attribute)

        @functools.wraps(original)
        def call(*arguments: Any, **options: Any) -> Any:
            if has_begun and not self.is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if has_begun:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(holder, self.attribute, call)


def arm(moment: Moment, rank: int) -> None:
    """`Moment.arm` as a function that can be sent to another process."""
    moment.arm(rank)


_ROLLBACK, _STORE = "train.stability.rollback", "train.checkpoint.store"
MOMENTS = (
    Moment("before it is decided", "train.training", None, "decide_and_record", False),
    Moment("before it is durable", _ROLLBACK, None, "replace_file", False),
    Moment("once it is durable", _ROLLBACK, None, "replace_file", True),
    Moment("once it is decided", "train.training", None, "decide_and_record", True),
    Moment("before verifying", "train.resume", None, "verify_together", False, rank=1),
    Moment("before loading", "train.resume", None, "restore", False, rank=2),
    Moment("after loading", "train.resume", None, "restore", True),
    Moment("in the new generation", "train.generations", "Generation", "renew", True),
    Moment("once the metrics are cut", "train.training", None, "JsonlTracker", True),
    Moment("before setting aside", _STORE, "CheckpointStore", "leave", False),
    Moment("after setting aside", _STORE, "CheckpointStore", "leave", True),
    Moment("before the first step", "train.engine.pipeline", "PipelineEngine", "train_step", False),
    Moment("before the first save", _STORE, "CheckpointStore", "commit", False),
    Moment("after the first save", _STORE, "CheckpointStore", "commit", True),
)
