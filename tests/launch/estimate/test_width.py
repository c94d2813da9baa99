"""Estimates on a terminal of 80 columns."""

import pytest

from launch.estimate import command
from launch.estimate.command import estimate


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=glm_130b"],
        ["experiment=glm_130b", "--search"],
        ["model.num_layers=7", "parallel.pp=5"],
    ],
    ids=["default", "130b", "search", "stages"],
)
def test_an_estimate_fits_the_terminal_and_says_the_same(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = estimate(words)
    monkeypatch.setattr(command, "columns", lambda: 80)
    narrow = estimate(words)
    assert max(map(len, wide.splitlines())) > 80
    assert max(map(len, narrow.splitlines())) <= 80
    assert set(wide.split()) - {"why"} <= set(narrow.split())
