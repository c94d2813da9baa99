"""What each threshold trades, on short runs."""

import pytest

from benchmarks import thresholds
from benchmarks.thresholds import SETTINGS, Traded, lines, traded


def test_a_setting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that nothing reaches find nothing; low ones have alarms without a fault, and find the fault at once."""
    monkeypatch.setattr(thresholds, "SEEDS", range(1))
    monkeypatch.setattr(thresholds, "NUM_STEPS", 1500)
    never = traded({"gradient_limit": 1e9, "loss_limit": 1e9, "drift_limit": 1e9})
    assert (never.going_back, never.left_out) == (0, 0.0)
    assert {step for steps in never.found.values() for step in steps} == {None}
    low = traded({"gradient_limit": 3.0, "loss_limit": 2.0, "spike_steps": [2, 5]})
    assert low.going_back > 0 and low.left_out > 10
    assert {len(steps) for steps in low.found.values()} == {4}
    assert low.found["gradient x 5, 20 steps after x 50"] == [1] * 4
    assert any(step is not None for step in low.found["loss + .3 from here on"])


def test_the_table_begins_with_the_defaults() -> None:
    assert SETTINGS[0] == {}
    found = {name: [12, None, 14] for name in thresholds._FAULTS}
    assert len(found) == 3
    _, line = lines([Traded({"loss_limit": 5.0}, 2, 3.25, found)])
    cell = ["2", "of", "3,", "step", "13"]
    assert line.split() == ["loss_limit=5.0", "2", "3.2", *cell * 3]
    assert Traded({}, 0, 0.0, found).label == "defaults"
