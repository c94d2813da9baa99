"""Which part of the model, or of the step, each moment of a profiled step belongs to.

A moment counts for the innermost range that is known. A backward pass has no ranges of its own: each of its functions
belongs where the operator of the forward pass does that has made it, which the trace tells by a number. On a GPU the
moments are those of the device: a kernel belongs where the call does that has started it, and what is left of a step is
time in which the device had nothing to do.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from train.parts import (
    BACKWARD,
    BUBBLE,
    CHECKPOINT,
    COMMUNICATION,
    DATA,
    EVALUATION,
    FORWARD,
    LOGGING,
    OPTIMIZER,
    belongs_to,
)
from train.profile import names
from train.profile.trace import Event, Trace, short_name

EMBEDDING, ATTENTION, MLP = "embedding", "attention", "MLP"
NORMS, HEAD = "norms and residuals", "head and loss"
OTHER, IDLE = "other", "device idle"

SHARES = (
    *(EMBEDDING, ATTENTION, MLP, NORMS, HEAD, OPTIMIZER, COMMUNICATION, BUBBLE, DATA),
    *(EVALUATION, CHECKPOINT, LOGGING, IDLE, OTHER),
)

_BY_RANGE = {
    names.EMBEDDING: EMBEDDING,
    names.ATTENTION: ATTENTION,
    names.MLP: MLP,
    names.FINAL_NORM: NORMS,
    names.HEAD: HEAD,
    **{
        name: name
        for name in (OPTIMIZER, COMMUNICATION, BUBBLE, DATA, EVALUATION, CHECKPOINT, LOGGING)
    },
}
# All ranges of ours. Those of libraries may end in another thread, across what goes on in this one.
_RANGES = re.compile(
    "|".join(
        (names.STEP.pattern, names.LAYER.pattern, FORWARD, BACKWARD, *map(re.escape, _BY_RANGE))
    )
)
_BACKWARD = "autograd::engine::evaluate_function: "
_ACCUMULATE = f"{_BACKWARD}torch::autograd::AccumulateGrad"


@dataclass
class Operator:
    """All calls of one operator, or of one kernel."""

    seconds: float = 0.0
    """Without what it calls."""
    calls: int = 0


@dataclass
class Shares:
    """The steps of a trace, summed."""

    steps: list[int] = field(default_factory=list[int])
    step_seconds: list[float] = field(default_factory=list[float])
    on_gpu: bool = False
    parts: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    """Seconds by name of SHARES; they add up to those of the steps."""
    operators: dict[str, Operator] = field(
        default_factory=lambda: defaultdict[str, Operator](Operator)
    )


@dataclass
class _Open:
    """An event that has begun."""

    event: Event
    part: str
    is_backward: bool
    own: float = 0.0
    """Seconds in which it was the innermost."""


def shares_of(trace: Trace) -> Shares:
    """What the steps of a trace went into."""
    steps = [event for event in trace.host if event.is_range and names.STEP.fullmatch(event.name)]
    found = Shares(on_gpu=bool(trace.kernels))
    for step in steps:
        found.steps.append(int(step.name.split()[1]))
        found.step_seconds.append(step.end - step.start)
    if not steps:
        return found
    threads: dict[str, list[Event]] = defaultdict(list)
    for event in (*trace.host, *trace.launches):
        if not event.is_range or _RANGES.fullmatch(event.name):
            threads[event.thread].append(event)
    creators: dict[int, str] = {}
    started: dict[int, str] = {}
    # That of the training loop first: the backward passes of the others refer to its operators.
    main = steps[0].thread
    for thread in (main, *(each for each in threads if each != main)):
        events = sorted(threads[thread], key=lambda event: (event.start, -event.end))
        for event, own, part in _attributed(_within(events, steps), creators):
            if event.correlation is not None:
                started[event.correlation] = part
            if found.on_gpu:
                continue
            if thread == main:
                found.parts[part] += own
            if not event.is_range and event.correlation is None:
                operator = found.operators[short_name(event.name)]
                operator.seconds += own
                operator.calls += 1
    if found.on_gpu:
        _add_kernels(found, trace.kernels, steps, started)
    return found


def _within(events: Iterable[Event], steps: list[Event]) -> Iterator[Event]:
    """Those that begin in one of the steps; both are in order."""
    remaining = iter(steps)
    step = next(remaining, None)
    for event in events:
        while step is not None and event.start >= step.end:
            step = next(remaining, None)
        if step is None:
            return
        if event.start >= step.start:
            yield event


def _attributed(
    events: Iterable[Event], creators: dict[int, str]
) -> Iterator[tuple[Event, float, str]]:
    """The events of one thread, each with its own seconds and its part; `creators` learns and tells by sequence number."""
    stack: list[_Open] = []
    last_backward = OTHER
    now = 0.0
    for event in events:
        yield from _ended(stack, now, event.start)
        now = event.start
        part = stack[-1].part if stack else OTHER
        is_backward = bool(stack) and stack[-1].is_backward
        if event.is_range:
            if not belongs_to(part, event.name):
                layer = NORMS if names.LAYER.fullmatch(event.name) else part
                part = _BY_RANGE.get(event.name, layer)
        elif event.name.startswith(_BACKWARD):
            is_backward = True
            if not belongs_to(part, event.name):
                # A gradient is added up right after the function that has computed it.
                known = None if event.sequence is None else creators.get(event.sequence)
                part = last_backward if event.name == _ACCUMULATE else known or part
                last_backward = part
        elif event.sequence is not None and not is_backward:
            creators[event.sequence] = part
        stack.append(_Open(event, part, is_backward))
    yield from _ended(stack, now, math.inf)


def _ended(stack: list[_Open], since: float, until: float) -> Iterator[tuple[Event, float, str]]:
    """Let time pass, which the innermost event has to itself until it ends; yields those that end."""
    while stack:
        opened = stack[-1]
        end = min(opened.event.end, until)
        if end > since:
            opened.own += end - since
            since = end
        if opened.event.end > until:
            return
        stack.pop()
        yield opened.event, opened.own, opened.part


def _add_kernels(
    found: Shares, kernels: list[Event], steps: list[Event], started: dict[int, str]
) -> None:
    """Divide the steps among the kernels that run in them; where several do, that counts which computes."""
    for step in steps:
        edges: list[tuple[float, int, str]] = []
        for kernel in kernels:
            start, end = max(kernel.start, step.start), min(kernel.end, step.end)
            if end <= start:
                continue
            part = started.get(kernel.correlation or 0, OTHER)
            if "nccl" in kernel.name.lower() and part != BUBBLE:
                part = COMMUNICATION
            edges += [(start, 1, part), (end, -1, part)]
            operator = found.operators[short_name(kernel.name)]
            operator.seconds += end - start
            operator.calls += 1
        running: dict[str, int] = defaultdict(int)
        before = step.start
        for moment, change, part in sorted(edges):
            found.parts[_counts(running)] += moment - before
            running[part] += change
            before = moment
        found.parts[_counts(running)] += step.end - before


def _counts(running: dict[str, int]) -> str:
    at_work = [part for part, kernels in running.items() if kernels > 0]
    computing = [part for part in at_work if part not in (COMMUNICATION, BUBBLE)]
    return next(iter(computing or at_work), IDLE)
