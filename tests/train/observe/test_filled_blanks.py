"""When blanks are filled, by whom, and what all ranks make of it; whole runs are in tests/integration."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train.observe.filled_blanks
from data_pipeline.tokenizer import load_tokenizer
from glm.prompt import Objectives, Prompt
from tests.helpers.rank_runs import config_of
from train.observe.filled_blanks import FilledBlanks
from train.observe.held_out_blanks import HeldOutBlank
from train.observe.observers import ObservedStep
from train.plan import StepPlan, TrainingPlan
from train.progress import Progress
from train.topology import Topology
from train.trackers import Tracker

BYTES = load_tokenizer("bytes")
ONE_RANK = Topology(1, 1, 1, rank=0)


def blank(objective: str, text: str, most: int) -> HeldOutBlank:
    row = Prompt.parse(text).blanks(BYTES, Objectives())
    row.spans.append([])
    return HeldOutBlank(objective, text, "truth", row, most)


BLANKS = [blank("mask", "one [MASK] two", 2), blank("gmask", "a longer text [gMASK]", 5)]


class World(Tracker):
    """A rank's surroundings: its session, engine and trackers, and what they were asked for.

    Args:
        topology: its place.
        favourite: the byte that its engine holds for the most probable one.
        told: what other ranks add to each sum.
    """

    def __init__(self, topology: Topology, favourite: str = "x", told: str | None = None) -> None:
        self.topology = topology
        self.said: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.watched = 0
        self._favourite = ord(favourite)
        self._told = told

    def sum(self, values: list[float]) -> list[float]:
        return [value + (ord(self._told) if self._told else 0) for value in values]

    def logits(self, tokens: torch.Tensor, fields: torch.Tensor) -> torch.Tensor | None:
        self.shapes.append(tuple(tokens.shape))
        if not self.topology.is_last_stage:
            return None
        scores = torch.zeros(len(tokens), 264)
        scores[:, [ord("\n"), BYTES.special.mask, 263]] = torch.tensor([9.0, 9.0, 9.0])
        scores[:, self._favourite] = 5.0
        return scores

    def log(self, text: str) -> None:
        """See Tracker."""
        self.said.append(text)

    def log_samples(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        assert self.watched, "it is watched before it begins"
        self.lines.append(line)

    def watch(self, doing: str) -> None:
        self.watched += 1


def observer(world: Any, monkeypatch: pytest.MonkeyPatch, *words: str, blanks: Any = BLANKS) -> Any:
    config = config_of(("model.vocab_size=264", "optim.total_samples=40", *words), 1)
    found = lambda *_: list(blanks)  # noqa: E731
    monkeypatch.setattr(train.observe.filled_blanks, "held_out_blanks", found)
    monkeypatch.setattr(
        train.observe.filled_blanks, "decided_by_rank_0", lambda _, decide: decide()
    )
    prepared: Any = SimpleNamespace(config=config, tokenizer=BYTES, corpora=None)
    plan = TrainingPlan.from_config(config)
    return FilledBlanks(prepared, world, world, plan, world, world.watch)


def ended(step: int) -> ObservedStep:
    plan = StepPlan(4 * step - 4, 4, learning_rate=0.1, embedding_shrink=1.0)
    agreed: Any = None
    return ObservedStep(plan, Progress(step=step, samples_seen=4 * step), agreed, valid=None)


def steps_with_lines(interval: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    world = World(ONE_RANK)
    watching = observer(world, monkeypatch, f"log.samples_every_samples={interval}")
    for step in range(1, 11):
        assert watching.end(ended(step)) == {}
    return [line["step"] for line in world.lines]


@pytest.mark.parametrize(
    ("interval", "steps"),
    [("12", [3, 6, 9, 10]), ("6", [2, 3, 5, 6, 8, 9, 10]), ("100", [10])],
)
def test_multiples_that_a_step_crosses_have_a_line_and_the_end_does(
    interval: str, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steps_with_lines(interval, monkeypatch) == steps


def test_the_most_probable_tokens_that_may_stand_there_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(ONE_RANK)
    observer(world, monkeypatch, "log.samples_every_samples=4").end(ended(1))
    (line,) = world.lines
    assert line == {
        "step": 1,
        "samples_seen": 4,
        "blanks": [
            # Neither begins nor consists of what generation leaves out: only the first place may be no line break.
            {"index": 0, "objective": "mask", "text": BLANKS[0].text, "truth": "truth"}
            | {"filled": "x\n"},
            {"index": 1, "objective": "gmask", "text": BLANKS[1].text, "truth": "truth"}
            | {"filled": "\n" * 5},
        ],
    }


def test_every_pass_has_the_same_shape_which_tensor_parallel_ranks_divide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(Topology(3, 1, 1, rank=0))
    observer(world, monkeypatch, "log.samples_every_samples=4").end(ended(1))
    longest = max(len(each.row.context) for each in BLANKS) + 5
    assert world.shapes == [(2, 24)] * 5
    assert longest <= 24


@pytest.mark.parametrize(
    ("topology", "passes"),
    [
        (Topology(1, 2, 1, rank=0), 5),
        (Topology(2, 1, 1, rank=1), 5),
        (Topology(1, 1, 2, rank=1), 0),
    ],
    ids=["first stage", "second tensor-parallel rank", "second replica"],
)
def test_all_ranks_follow_the_one_that_chooses(
    topology: Topology, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(topology, favourite="w", told="t")  # its own choice would be another one
    observer(world, monkeypatch, "log.samples_every_samples=4").end(ended(1))
    (line,) = world.lines
    assert [each["filled"] for each in line["blanks"]] == ["tt", "ttttt"]
    assert len(world.shapes) == passes


def test_nothing_to_fill_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(ONE_RANK)
    watching = observer(world, monkeypatch, "log.samples_every_samples=4", blanks=[])
    for step in (1, 2, 3):
        watching.end(ended(step))
    assert world.lines == [] and world.shapes == []
    assert len(world.said) == 1 and "There is no blank to fill" in world.said[0]
