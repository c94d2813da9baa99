"""Rehearse a step of the interleaved schedule: Megatron-core's own code, one thread for each stage.

Instead of hidden states the stages send numbers, which show whether each pass meets its own micro-batch: forward the
micro-batch's number, back its number plus one. A transfer is complete when both sides have asked for it, in the order in
which they asked; two neighbours have one line each way, as with two stages, where what goes forward and what goes back
between the same ranks is told apart by nothing else. If all stages wait, the pipeline hangs.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from configs import pipeline
from glm.tensor_parallel import ensure_initialised
from train.engine.megatron_schedule import Chunk, Transfers, run_interleaved, schedule_config

_SHOWN = 4


def rehearse(num_micro_batches: int, pp: int, chunks: int, group_size: int = 0) -> list[str]:
    """Run one step without computing anything.

    Args:
        num_micro_batches: of the step.
        pp: number of stages.
        chunks: of each stage.
        group_size: micro-batches that run through a chunk before the next one; 0: as in training.

    Returns:
        The problems; empty if the step completes and every pass was made once, with its own inputs.
    """
    ensure_initialised()  # without process groups Megatron-core takes every stage for the first one
    group = group_size or pipeline.group_size(pp, num_micro_batches)
    lines = _Lines(pp)
    stages = [_Stage(stage, pp, chunks, num_micro_batches, lines) for stage in range(pp)]
    threads = [threading.Thread(target=stage.run, args=(group,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if lines.hang:
        return [f"with {num_micro_batches} micro-batches the pipeline hangs"]
    return [problem for stage in stages for problem in stage.problems()]


class _HangError(Exception):
    """Every stage waits for another one."""


class _Request:
    """One side of a transfer."""

    def __init__(self, lines: "_Lines", tensor: Tensor) -> None:
        self._lines = lines
        self.tensor = tensor
        self.is_complete = False

    def wait(self) -> None:
        """Return once the other side has asked for the transfer, too."""
        self._lines.wait(self)


class _Lines:
    """Transfers between the stages, in order on each line from one stage to another."""

    def __init__(self, num_running: int) -> None:
        self._changed = threading.Condition()
        self._running = num_running
        self._awaited: list[_Request] = []
        self._sent = defaultdict[tuple[int, int], list[_Request]](list)
        self._wanted = defaultdict[tuple[int, int], list[_Request]](list)
        self.hang = False

    def ask(self, source: int, target: int, tensor: Tensor, is_sender: bool) -> _Request:
        """Ask for a transfer."""
        line, request = (source, target), _Request(self, tensor)
        with self._changed:
            (self._sent if is_sender else self._wanted)[line].append(request)
            while self._sent[line] and self._wanted[line]:
                sent, wanted = self._sent[line].pop(0), self._wanted[line].pop(0)
                wanted.tensor.data.copy_(sent.tensor.data)
                sent.is_complete = wanted.is_complete = True
            self._changed.notify_all()
        return request

    def wait(self, request: _Request) -> None:
        """Return once a transfer is complete.

        Raises:
            _HangError: no stage can go on.
        """
        with self._changed:
            self._awaited.append(request)
            self._look_for_hang()
            while not request.is_complete and not self.hang:
                self._changed.wait()
            self._awaited.remove(request)
            if self.hang:
                raise _HangError

    def leave(self) -> None:
        """Called by a stage at its end."""
        with self._changed:
            self._running -= 1
            self._look_for_hang()

    def _look_for_hang(self) -> None:
        waiting = [request for request in self._awaited if not request.is_complete]
        if waiting and len(waiting) == self._running:
            self.hang = True
            self._changed.notify_all()


class _Group:
    """The pipeline's ranks, as Megatron-core asks for them."""

    def __init__(self, pp: int, stage: int) -> None:
        self._pp, self._stage = pp, stage

    def size(self) -> int:
        return self._pp

    def rank(self) -> int:
        return self._stage


class _Rehearsed(Transfers):
    """Transfers between threads."""

    def __init__(self, stage: int, pp: int, config: Any, lines: _Lines) -> None:
        # The base class would look its neighbours up in a process group.
        self.pp_group: Any = _Group(pp, stage)
        self.config = config
        self.virtual_pipeline_model_parallel_size = config.virtual_pipeline_model_parallel_size
        self._like = torch.zeros(1)
        self._stage, self._lines = stage, lines
        self._before, self._after = (stage - 1) % pp, (stage + 1) % pp

    def start(
        self,
        send_prev: Tensor | None,
        recv_prev: Tensor | None,
        send_next: Tensor | None,
        recv_next: Tensor | None,
    ) -> dict[str, Any]:
        """See the base class. Even and odd stages ask in Megatron-core's order."""
        asked = {
            "send_next": (send_next, self._stage, self._after),
            "recv_prev": (recv_prev, self._before, self._stage),
            "send_prev": (send_prev, self._stage, self._before),
            "recv_next": (recv_next, self._after, self._stage),
        }
        names = ["send_next", "recv_prev", "send_prev", "recv_next"]
        if self._stage % 2:
            names = ["recv_prev", "send_next", "recv_next", "send_prev"]
        found = dict[str, Any]()
        for name in names:
            tensor, source, target = asked[name]
            if tensor is not None:
                found[name] = self._lines.ask(source, target, tensor, name.startswith("send"))
        return found


class _Stage:
    """A stage, and what it has done."""

    def __init__(
        self, stage: int, pp: int, chunks: int, num_micro_batches: int, lines: _Lines
    ) -> None:
        self._stage = stage
        self._num_micro_batches = num_micro_batches
        self._lines = lines
        config = schedule_config(chunks, pp, torch.float32)
        self._transfers = _Rehearsed(stage, pp, config, lines)
        self._chunks = [Chunk(number, config) for number in range(chunks)]
        self._done = Counter[tuple[str, int, int]]()
        self._wrong: list[str] = []

    def run(self, group_size: int) -> None:
        """Run the stage's passes."""
        batches = [iter(range(self._num_micro_batches)) for _ in self._chunks]
        count = self._num_micro_batches
        try:
            run_interleaved(
                self._forward, self._chunks, batches, count, group_size, self._transfers
            )
        except _HangError:
            pass
        except Exception as error:  # a thread's traceback would be lost
            self._wrong.append(f"stage {self._stage}: {error!r}")
        finally:
            self._lines.leave()

    def problems(self) -> list[str]:
        """What was not done once, or with another micro-batch's tensor."""
        expected = Counter(
            (way, chunk.vp_stage, micro_batch)
            for way in ("forward", "backward")
            for chunk in self._chunks
            for micro_batch in range(self._num_micro_batches)
        )
        if self._done != expected:
            wrong = sorted((self._done - expected).keys() | (expected - self._done).keys())
            self._wrong.append(
                f"stage {self._stage} does not execute these exactly once: {wrong[:_SHOWN]}"
            )
        return self._wrong

    def _forward(self, micro_batches: Iterator[int], chunk: Chunk) -> tuple[Tensor, Any]:
        number = next(micro_batches)
        hidden = chunk.received
        if hidden is None:
            hidden = torch.tensor([float(number)], requires_grad=True)
        self._note("forward", chunk.vp_stage, number, float(hidden.detach()) - number)

        def note_backward(gradient: Tensor) -> None:
            self._note("backward", chunk.vp_stage, number, float(gradient) - number - 1)

        output = hidden * 1.0
        output.register_hook(note_backward)

        def loss(output: Tensor) -> tuple[Tensor, None]:
            # Megatron-core divides by the number of micro-batches.
            return output * float(self._num_micro_batches * (number + 1)), None

        return output, loss

    def _note(self, way: str, chunk: int, micro_batch: int, difference: float) -> None:
        self._done[way, chunk, micro_batch] += 1
        if abs(difference) > 1e-3:
            self._wrong.append(
                f"stage {self._stage}, chunk {chunk}: the {way} pass of micro-batch {micro_batch} is given a tensor of "
                "another one"
            )
