"""Simulate the instructions of a step on all stages: every send must match a receive, or the pipeline hangs.

DeepSpeed's transfers block (p2p.py), so a send without a receive stops its stage. The simulation follows micro-batches
through the pipe buffers: each must have one forward and one backward pass on each stage, with its own activations,
gradients and labels.
"""

from collections import Counter
from collections.abc import Callable, Sequence

# For each send, the instruction that the receiving stage must be at, and the direction in which that stage lies.
_ANSWERS = {"SendActivation": ("RecvActivation", 1), "SendGrad": ("RecvGrad", -1)}
_RECEIVES = {receive for receive, _ in _ANSWERS.values()}

Instructions = Sequence[tuple[str, int]]


def simulate(
    num_micro_batches: int, pp: int, instructions_of: Callable[[int, int, int], Instructions]
) -> list[str]:
    """Simulate one step.

    Args:
        num_micro_batches: number of micro-batches of the step.
        pp: number of stages.
        instructions_of: function of (micro-batches, stages, stage) that returns the stage's instructions with their
            buffers.

    Returns:
        The problems; empty if the step completes with everything computed once.
    """
    stages = [
        _Stage(number, pp, list(instructions_of(num_micro_batches, pp, number)))
        for number in range(pp)
    ]
    while any(stage.is_waiting for stage in stages):
        if not any([_advance(stage, stages) for stage in stages]):
            heads = ", ".join(f"stage {stage.number} at {stage.head}" for stage in stages)
            return [f"with {num_micro_batches} micro-batches the pipeline hangs: {heads}"]
    return [problem for stage in stages for problem in stage.problems(num_micro_batches)]


class _Stage:
    """A stage and its next instruction."""

    def __init__(self, number: int, pp: int, instructions: list[tuple[str, int]]) -> None:
        self.number = number
        self.is_first, self.is_last = number == 0, number == pp - 1
        self._instructions = instructions
        self._at = 0
        self.inputs: dict[int, int] = {}
        """Micro-batch in each buffer."""
        self.gradients: dict[int, int] = {}
        self._loaded = 0
        self._done: Counter[tuple[str, int]] = Counter()
        self._wrong: list[str] = []

    @property
    def is_waiting(self) -> bool:
        return self._at < len(self._instructions)

    @property
    def head(self) -> tuple[str, int]:
        return self._instructions[self._at] if self.is_waiting else ("the end", -1)

    def step(self) -> None:
        self._at += 1

    def compute(self) -> None:
        """Execute an instruction that involves no other stage."""
        name, buffer = self.head
        if name == "LoadMicroBatch":
            if self.is_first:
                self.inputs[buffer] = self._loaded
            elif self.inputs.get(buffer) != self._loaded:
                self._wrong.append(
                    f"stage {self.number} has labels of micro-batch {self._loaded} for activations of "
                    f"{self.inputs.get(buffer)}"
                )
            self._loaded += 1
        elif name == "ForwardPass":
            self._done["forward", self.inputs[buffer]] += 1
        elif name == "BackwardPass":
            batch = self.inputs.pop(buffer)
            if not self.is_last and self.gradients.pop(buffer, None) != batch:
                self._wrong.append(f"stage {self.number} lacks the gradient of micro-batch {batch}")
            # The gradient of its input, which it will send back.
            self.gradients[buffer] = batch
            self._done["backward", batch] += 1
        elif name == "OptimizerStep":
            self._done["update", 0] += 1
        self.step()

    def problems(self, num_micro_batches: int) -> list[str]:
        expected = Counter(
            {
                (name, batch): 1
                for name in ("forward", "backward")
                for batch in range(num_micro_batches)
            }
        )
        expected["update", 0] = 1
        if self._done != expected:
            wrong = sorted((self._done - expected).keys() | (expected - self._done).keys())
            self._wrong.append(
                f"stage {self.number} does not execute these exactly once: {wrong[:4]}"
            )
        return self._wrong


def _advance(stage: _Stage, stages: list[_Stage]) -> bool:
    """Execute the next instruction of a stage if that is possible now; False if it must wait."""
    name, buffer = stage.head
    if not stage.is_waiting or name in _RECEIVES:
        return False
    if name not in _ANSWERS:
        stage.compute()
        return True
    answer, direction = _ANSWERS[name]
    other = stages[stage.number + direction]
    their_name, their_buffer = other.head
    if their_name != answer:
        return False
    if name == "SendActivation":
        other.inputs[their_buffer] = stage.inputs[buffer]
    else:
        other.gradients[their_buffer] = stage.gradients.pop(buffer)
    stage.step()
    other.step()
    return True
