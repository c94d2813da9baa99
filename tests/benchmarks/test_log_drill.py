"""What the drill of the log judges, on outcomes written by hand; the drill itself is tests/integration/test_log_drill.py."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.drill.figures import allowed, failures, table
from benchmarks.drill.run import Outcome
from benchmarks.drill.timeline import POISONED, TIMELINE, TOTAL, Ends, Variant, in_samples
from tests.helpers import poison


def rollback(skip: list[tuple[int, int]], rate: float = 1.0) -> dict[str, Any]:
    return {"skip": [list(each) for each in skip], "learning_rate": rate}


def outcome(seed: int, variant: Variant, loss: float | None, rollbacks: list[Any]) -> Outcome:
    return Outcome(seed, variant.value, loss is not None, "", loss, rollbacks)


@pytest.fixture
def outcomes() -> list[Outcome]:
    """As wanted, of five seeds whose clean losses vary little."""
    went_back = [
        *(rollback([each]) for each in in_samples(POISONED)),
        *(rollback([(1600, 1800)]), rollback([], 0.5)),
    ]
    found = []
    for seed in range(5):
        clean = 2.0 + seed / 1000
        found += [
            outcome(seed, Variant.clean, clean, []),
            outcome(seed, Variant.rollback, clean * 1.01, went_back),
            outcome(seed, Variant.warn, clean * 1.06, []),
        ]
    return found


def changed(outcomes: list[Outcome], place: int, **values: Any) -> list[str]:
    """The failures with one outcome changed."""
    return failures([*outcomes[:place], replace(outcomes[place], **values), *outcomes[place + 1 :]])


def test_acts_are_in_order_and_end_once() -> None:
    ends = [act.until for act in TIMELINE]
    assert ends == sorted(set(ends)) and ends[-1] == TOTAL
    assert [act.ends is Ends.done for act in TIMELINE] == [False] * (len(TIMELINE) - 1) + [True]


def test_what_is_wanted_passes(outcomes: list[Outcome]) -> None:
    assert failures(outcomes) == []
    lines = table(outcomes)
    assert len(lines) == 2 + 5
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    skipped = ", ".join(str(last - first) for first, last in POISONED)
    assert cells[:9] == [
        *("0", "2.000", "2.020", "+1.0 %", "2.120", "+6.0 %", "5"),
        *(f"{skipped}, 25, 0", "0.5"),
    ]


def test_what_is_not_as_wanted_is_named(outcomes: list[Outcome]) -> None:
    assert "more than" in changed(outcomes, 1, valid_loss=2.1)[0]
    assert changed(outcomes, 1, valid_loss=None, ended=False, message="it spikes") == [
        "seed 0: it spikes"
    ]
    without_lower_rate = [each for each in outcomes[1].rollbacks if each["skip"]]
    assert "lowered the rate" in changed(outcomes, 1, rollbacks=without_lower_rate)[0]
    assert "not left out" in changed(outcomes, 1, rollbacks=outcomes[1].rollbacks[1:])[0]
    unfinished = {"valid_loss": None, "ended": False, "message": "exit code 3"}
    assert changed(outcomes, 0, **unfinished) == ["seed 0, clean: exit code 3"]
    # One of five may end well without rollback; two may not.
    assert changed(outcomes, 2, valid_loss=2.0) == []
    second = [*outcomes[:2], replace(outcomes[2], valid_loss=2.0), *outcomes[3:]]
    assert "only 3" in changed(second, 5, valid_loss=2.0)[0]


def test_what_is_allowed_is_two_percent_or_two_standard_deviations() -> None:
    assert allowed([2.0]) == pytest.approx(0.04)
    assert allowed([1.0, 3.0]) == pytest.approx(2 * 2**0.5)


def test_enlarged_gradients_change_weights_of_rows_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from train import loop

    class Micro:
        def __init__(self, *drawn: int) -> None:
            self.sample_index = np.array(drawn)

    class Step:
        micro_batches = (Micro(7, 8), Micro(9, 10))

    labels = tuple(torch.ones(2) for _ in range(5))
    monkeypatch.setattr(loop, "micro_batches_of", lambda *_: [("x", labels)] * 2)
    poison.enlarge([(8, 9)])
    (_, first), (_, second) = loop.micro_batches_of(Step(), None, 0.0)  # type: ignore[arg-type]
    assert torch.equal(first[-1], torch.full((2,), poison.FACTOR))
    assert all(torch.equal(a, b) for a, b in zip(first[:-1], labels[:-1], strict=True))
    assert torch.equal(second[-1], torch.ones(2))
