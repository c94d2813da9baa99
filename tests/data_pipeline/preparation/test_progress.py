"""What a preparation says of itself."""

import re

import pytest

from data_pipeline.preparation import progress
from data_pipeline.preparation.progress import Bar, Lines, line


def test_line_tells_share_speed_and_time_left():
    said = line(1_000_000_000, 100_000_000, 150_000_000, 50.0)
    assert said == "prepared 250 of 1,000 MB (25%), 3.0 MB/s, 4:10 left"


def test_line_without_a_known_end_tells_speed():
    assert line(None, 0, 30_000_000, 10.0) == "prepared 30 MB, 3.0 MB/s"


def test_small_corpora_are_told_in_tenths_and_nothing_that_is_not_known():
    assert line(900_000, 0, 0, 0.0) == "prepared 0.0 of 0.9 MB (0%)"
    assert line(None, 0, 0, 0.0) == "prepared 0.0 MB"


def test_lines_come_now_and_then(capsys, monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    meter = Lines()
    meter.start(40_000_000)
    meter.skip(10_000_000)
    for _ in range(5):
        now[0] += 6.0
        meter.advance(3_000_000)
    meter.stop()
    assert capsys.readouterr().out.splitlines() == [
        "prepared 16 of 40 MB (40%), 0.5 MB/s, 0:48 left",
        "prepared 22 of 40 MB (55%), 0.5 MB/s, 0:36 left",
    ]


def test_bar_reaches_its_end_after_what_was_skipped_and_goes(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    meter = Bar()
    meter.start(40)
    meter.skip(10)
    meter.advance(30)
    meter.stop()
    drawn = capsys.readouterr().out
    words = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)
    assert "prepared 0.0 of 0.0 MB (100%)" in words and "?" not in words and "-:--" not in words
    assert "\x1b[2K" in drawn[drawn.rindex("100%") :]


def test_bar_is_for_terminals_only():
    assert isinstance(progress.console_meter(), Lines)
