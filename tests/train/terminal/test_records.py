"""Sentences as records of logging: printed by default, taken over by a program that embeds training, global state untouched."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.schema import Config, ProgressBar
from tests.helpers.steps import line
from train.terminal.records import LOGGER_NAME, PrintHandler, printed_lines, printer, say
from train.terminal.tracker import ConsoleTracker

LOGGER = logging.getLogger(LOGGER_NAME)


class Kept(logging.Handler):
    """A handler of an embedding program."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    LOGGER.addHandler(handler)
    yield handler
    LOGGER.removeHandler(handler)


def told(log: Path) -> None:
    """What a run says: a sentence, a warning, an alert, a step and the reason of a failure."""
    tracker = ConsoleTracker.of(Config(), log)
    tracker.log("a sentence")
    tracker.log("Warning: a rank is slow.")
    tracker.alert("Spike", "Spike at step 3.")
    tracker.log_metrics(line(10))
    tracker.close()
    say("It failed.", logging.ERROR, to_stderr=True, in_log_file=False)


def test_by_default_lines_are_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)
    with printed_lines():
        with printed_lines():  # `train` within `cli`
            told(tmp_path / "log.txt")
        assert printer() is not None
        say("after it")
    assert (
        before
        == (list(root.handlers), root.level, LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    )  # fmt: skip
    out, err = capsys.readouterr()
    log = (tmp_path / "log.txt").read_text()
    assert out == log + "after it\n" and err == "It failed.\n"
    assert log.startswith("a sentence\nWarning: a rank is slow.\nSpike at step 3.\nstep     10 |")


def test_a_handler_takes_the_lines_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: Kept
) -> None:
    with printed_lines():
        assert printer() is None
        told(tmp_path / "log.txt")
    assert capsys.readouterr() == ("", "")
    assert [(each.levelname, each.getMessage()[:10]) for each in kept.records] == [
        ("INFO", "a sentence"),
        ("WARNING", "Warning: a"),
        ("WARNING", "Spike at s"),
        ("INFO", "step     1"),
        ("ERROR", "It failed."),
    ]
    assert vars(kept.records[3])["metrics"] == line(10)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4
    assert LOGGER.handlers == [kept] and LOGGER.propagate


def test_a_handler_that_does_nothing_leaves_the_lines_to_the_root_logger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing, root = logging.NullHandler(), Kept()
    LOGGER.addHandler(nothing)
    logging.getLogger().addHandler(root)
    try:
        with printed_lines():
            told(tmp_path / "log.txt")
    finally:
        LOGGER.removeHandler(nothing)
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr() == ("", "") and len(root.records) == 5


def test_where_lines_are_taken_over_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    for wanted, is_drawn in ((ProgressBar.auto, False), (ProgressBar.on, True)):
        config = Config()
        config.log.progress_bar = wanted
        with printed_lines():
            tracker = ConsoleTracker.of(config, tmp_path / "log.txt")
            tracker.log_metrics(line(10))
            tracker.close()
        assert ("\x1b[" in screen.getvalue()) is is_drawn


def test_a_level_that_the_program_chose_holds(tmp_path: Path, kept: Kept) -> None:
    LOGGER.setLevel(logging.WARNING)
    try:
        with printed_lines():
            told(tmp_path / "log.txt")
        assert LOGGER.level == logging.WARNING
    finally:
        LOGGER.setLevel(logging.NOTSET)
    assert [each.levelname for each in kept.records] == ["WARNING", "WARNING", "ERROR"]
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_a_failing_log_file_is_said_once_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_device(descriptor: int, content: bytes) -> int:
        raise OSError(5, "Input/output error")

    with printed_lines():
        tracker = ConsoleTracker(tmp_path / "log.txt", 1, None)
        monkeypatch.setattr(os, "write", no_device)
        tracker.log("one")
        tracker.log("two")
        monkeypatch.undo()
        tracker.close()
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n" and err.count("The log misses what comes now.") == 1


def test_what_a_run_leaves_on_the_logger_after_an_error_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bug"), printed_lines():  # noqa: PT012
        ConsoleTracker(tmp_path / "log.txt", 1, None).log("a sentence")
        raise ValueError("a bug")
    say("nobody hears")
    assert (tmp_path / "log.txt").read_text() == "a sentence\n"
    assert not [each for each in LOGGER.handlers if isinstance(each, PrintHandler)]
