"""What several observers measure of a step becomes one line of details.jsonl."""

from typing import Any, cast

from train.observe.observers import ObservedStep, Observer, Observers
from train.plan import StepPlan
from train.progress import Progress
from train.trackers import Tracker


class Lines(Tracker):
    """Keeps the details."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def log_details(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self.lines.append(line)


class EverySecond(Observer):
    """Measures each second step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun: list[int] = []

    def begin(self, step: int) -> None:
        """See Observer."""
        self.begun.append(step)

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer."""
        number = step.progress.step
        return {self.name: number} if number % 2 == 0 else {}


def ended(number: int) -> ObservedStep:
    plan = StepPlan(8 * number - 8, 8, learning_rate=0.1, embedding_shrink=1.0)
    progress = Progress(step=number, samples_seen=8 * number)
    return ObservedStep(plan, progress, agreed=cast(Any, None), valid=None)


def test_what_is_measured_of_a_step_stands_in_one_line_behind_its_position() -> None:
    tracker = Lines()
    first, second = EverySecond("a"), EverySecond("b")
    observers = Observers([first, second], tracker)
    for number in (1, 2, 3, 4):
        observers.begin(number)
        observers.end(ended(number))
    assert tracker.lines == [
        {"step": 2, "samples_seen": 16, "a": 2, "b": 2},
        {"step": 4, "samples_seen": 32, "a": 4, "b": 4},
    ]
    assert list(tracker.lines[0]) == ["step", "samples_seen", "a", "b"]
    assert first.begun == second.begun == [1, 2, 3, 4]
