"""The profiler: a trace of chosen steps on chosen ranks, and on CUDA the history of the device's memory meanwhile.

`log.profile_steps=[a,b]` has PyTorch's profiler write one file a rank, which the trace viewers read (ui.perfetto.dev,
chrome://tracing) and `python -m train.profile` sums up. While it runs, the parts of the step and of the model are ranges
in the trace; nothing is attached to the model before or after. Whatever fails here is said once, and training goes on.
"""

import contextlib
import gzip
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import module as modules
from torch.profiler import ProfilerActivity, profile, record_function

from configs.run_paths import RunPaths
from configs.schema import Config
from configs.terminal import tell
from glm.attention import SelfAttention
from glm.embedding import WordEmbedding
from glm.layer import FinalNorm, GLMLayer
from glm.loss import GLMLoss
from glm.mlp import GeGLU
from glm.model import layer_index
from train.device import dump_memory_history, record_memory_history, stop_memory_history
from train.engine import Engine
from train.observe.observers import ObservedStep, Observer
from train.parts import COMMUNICATION, listen
from train.profile import names
from train.session import Session
from train.waits import waits_noted

_WRITING_SECONDS = 600.0
"""How long the end of a run waits for a trace that is being written; it is recorded by then."""


class Profiler(Observer):
    """Traces the steps `log.profile_steps` on this rank, if it is one of `log.profile_ranks`.

    Args:
        config: of the run; `log.profile_steps` is set.
        session: the open process groups.
        engine: of this rank.
        paths: of the run folder.
        log: takes what has to be said on rank 0.
        watch: called on all ranks before a profile is ended, which may take long, with these words.
    """

    def __init__(
        self,
        config: Config,
        session: Session,
        engine: Engine,
        paths: RunPaths,
        log: Callable[[str], None],
        watch: Callable[[str], None],
    ) -> None:
        assert config.log.profile_steps is not None, "there are steps to profile"
        self._first, self._last = config.log.profile_steps
        self._rank = session.topology.rank
        self._is_due = self._rank in config.log.profile_ranks
        self._session, self._engine, self._paths, self._log = session, engine, paths, log
        self._watch = watch
        self._ranges = _Ranges()
        self._attached = contextlib.ExitStack()
        self._profile: Any = None
        self._begun = self._latest = 0
        self._writing: threading.Thread | None = None
        self._failure: str | None = None

    def begin(self, step: int) -> None:
        """See Observer."""
        if self._is_due and self._profile is None and self._first <= step <= self._last:
            self._guarded(lambda: self._start(step))
        if self._profile is not None:
            self._latest = step
            self._ranges.enter(names.step_name(step))

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer."""
        number = step.progress.step
        self._ranges.leave_all()
        if number == self._last:
            self._watch("ending the profile")
            if self._profile is not None:
                self._guarded(lambda: self._stop(number))
            # Without it the others would wait for this rank in the next step, under the limit of a step.
            self._session.barrier()
        self._say_failure()
        return {}

    def close(self) -> None:
        """See Observer. A trace that is not complete is written as far as it got, if the process goes on for long enough."""
        if self._profile is not None:
            self._ranges.leave_all()
            self._guarded(lambda: self._stop(self._latest))
        self._say_failure()

    def finish(self) -> None:
        """See Observer."""
        if self._writing is not None:
            self._writing.join(_WRITING_SECONDS)
        self._say_failure()

    def _start(self, step: int) -> None:
        on_gpu = self._session.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        if on_gpu:
            record_memory_history()
            self._attached.callback(stop_memory_history)
        tracing = profile(activities=activities)
        tracing.start()
        self._attached.callback(tracing.stop)
        self._profile, self._begun = tracing, step
        self._attached.callback(listen(self._ranges))
        self._attached.enter_context(
            waits_noted(
                self._session.device,
                lambda: self._ranges.enter(COMMUNICATION),
                lambda _: self._ranges.leave(),
            )
        )
        self._attached.enter_context(_parts_of_the_model(self._engine, self._ranges))

    def _stop(self, last: int) -> None:
        tracing, self._profile = self._profile, None
        self._is_due = False
        trace = self._paths.profile_trace(self._begun, last, self._rank)
        try:
            trace.parent.mkdir(exist_ok=True)
            if self._session.device.type == "cuda":
                dump_memory_history(self._paths.profile_memory(self._begun, last, self._rank))
        finally:
            self._attached.close()
        # A long trace takes minutes, and the other ranks would wait.
        self._writing = threading.Thread(
            target=lambda: self._guarded(lambda: _write(tracing, trace)), name="trace", daemon=True
        )
        self._writing.start()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Nothing that fails here may end training, whatever it is."""
        try:
            act()
        except Exception as error:
            self._is_due = False
            self._profile = None
            with contextlib.suppress(Exception):
                self._attached.close()
            reason = error.strerror if isinstance(error, OSError) else None
            self._failure = f"The profile of rank {self._rank} was not written: {reason or error}. Training goes on without it."

    def _say_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is None:
            return
        if self._rank == 0:
            self._log(failure)
        else:
            tell(failure, sys.stderr)


class _Ranges:
    """Ranges in the trace, one within the other; hears of the parts of a step."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def enter(self, name: str) -> None:
        """See train/parts.py."""
        opened: Any = record_function(name)
        opened.__enter__()
        self._open.append(opened)

    def leave(self) -> None:
        """See train/parts.py. The end of a step has ended all."""
        if self._open:
            self._open.pop().__exit__(None, None, None)

    def leave_all(self) -> None:
        """End every range."""
        while self._open:
            self.leave()


@contextlib.contextmanager
def _parts_of_the_model(engine: Engine, ranges: _Ranges) -> Iterator[None]:
    """Make the passes of the parts of a model ranges of the trace."""
    named = {id(weight.values): weight.name for weight in engine.weights()}
    call = GLMLoss.__call__

    def before(module: nn.Module, _: Any) -> None:
        name = _name_of(module, named)
        if name is not None:
            ranges.enter(name)

    def after(module: nn.Module, _: Any, __: Any) -> None:
        if _name_of(module, named) is not None:
            ranges.leave()

    def annotated(loss: GLMLoss, *arguments: Any) -> Any:
        ranges.enter(names.HEAD)
        try:
            return call(loss, *arguments)
        finally:
            ranges.leave()

    # A layer that is computed again stops where everything is there that its backward pass needs.
    hooks = [
        modules.register_module_forward_pre_hook(before),
        modules.register_module_forward_hook(after, always_call=True),
    ]
    setattr(GLMLoss, "__call__", annotated)  # noqa: B010
    try:
        yield
    finally:
        setattr(GLMLoss, "__call__", call)  # noqa: B010
        for hook in hooks:
            hook.remove()


def _name_of(module: nn.Module, named: dict[int, str]) -> str | None:
    if isinstance(module, GLMLayer):
        index = layer_index(named.get(id(module.input_norm.weight), ""))
        return None if index is None else names.layer_name(index)
    kinds = {
        WordEmbedding: names.EMBEDDING,
        SelfAttention: names.ATTENTION,
        GeGLU: names.MLP,
        FinalNorm: names.FINAL_NORM,
    }
    return kinds.get(type(module))


def _write(tracing: Any, path: Path) -> None:
    """Write a trace, which appears under its name when it is complete."""
    plain = path.with_name(f".{path.name.removesuffix('.gz')}")
    packed = path.with_name(f".{path.name}")
    try:
        tracing.export_chrome_trace(str(plain))
        with plain.open("rb") as file:
            file.seek(max(plain.stat().st_size - 16, 0))
            if not file.read().rstrip().endswith(b"}"):
                raise OSError("the trace is incomplete; is the disk full?")
            file.seek(0)
            with gzip.open(packed, "wb", compresslevel=3) as target:
                shutil.copyfileobj(file, target, 1 << 20)
        os.replace(packed, path)
    finally:
        for left in (plain, packed):
            left.unlink(missing_ok=True)
