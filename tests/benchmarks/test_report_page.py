"""The benchmark of the report's page runs on a short run."""

from pathlib import Path

import pytest

import benchmarks.report_page
from tests.helpers.chromium import installed


@pytest.mark.skipif(
    installed() is None, reason="no Chromium or Chrome on PATH, which opens the page"
)
def test_it_prints_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmarks.report_page, "STEPS", 5_000)
    monkeypatch.setattr(benchmarks.report_page, "OPENINGS", 1)
    benchmarks.report_page.measure(tmp_path)
    shown = capsys.readouterr().out
    assert "5,000 steps;" in shown and " MB, written in " in shown
    assert "first contentful paint: " in shown and "pictures in sight drawn" in shown
