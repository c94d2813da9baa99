"""Display, lines and log.txt: complete, readable on 80 columns, and never the end of a run."""

import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.schema import Config, ProgressBar
from configs.terminal import Forgiving
from tests.helpers.steps import line
from tests.helpers.vt import Terminal
from train.terminal import screen as screens
from train.terminal.lines import evaluation_text
from train.terminal.records import printed_lines
from train.terminal.screen import Screen
from train.terminal.tracker import ConsoleTracker
from train.trackers import Trackers


@pytest.fixture(autouse=True)
def prints() -> Iterator[None]:
    """As in `python -m train`."""
    with printed_lines():
        yield


def screen() -> Screen:
    return Screen("default", 80_000, 10, sys.stdout, is_forced=True)


def test_lines_are_printed_when_due_and_kept_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = ConsoleTracker(tmp_path / "log.txt", every_steps=2, screen=None)
    tracker.log("model tiny")
    for step in range(1, 4):
        tracker.log_metrics(line(step, optim__grad_norm=float("inf")))
    tracker.log_metrics(line(5, **{"valid/loss": 4.0, "valid/loss_gmask": 4.0}))
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "log.txt").read_text()
    assert [text.split("|")[0].strip() for text in printed.splitlines()] == [
        "model tiny",
        "step      2",
        "step      5",
    ]
    assert "loss 2.5000 ([gMASK] 2.50)" in printed and "gnorm inf" in printed
    assert printed.endswith("held-out loss 4.0000 ([gMASK] 4.000)\n")


def test_a_display_leaves_sentences_and_evaluations_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trackers = Trackers([ConsoleTracker(tmp_path / "log.txt", every_steps=1, screen=screen())])
    trackers.log_metrics(line(1))
    trackers.log("a checkpoint [not markup]")
    trackers.log_metrics(line(2, **{"valid/loss": 4.0}))
    trackers.log_metrics(line(3, **{"train/loss": float("nan")}))
    trackers.close()
    printed = capsys.readouterr().out
    assert "a checkpoint [not markup]" in printed and "held-out loss 4.0000" in printed
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4


def test_an_evaluation_fits_a_terminal_of_80_columns():
    values = {"valid/loss": 3.41123, "valid/loss_mask": 3.4112, "valid/loss_gmask": 3.6415}
    text = evaluation_text(line(9_999, **values))
    assert text == (
        "   79,992 samples  held-out loss 3.4112 ([MASK] 3.411 [gMASK] 3.642)  lr 1.0e-03"
    )
    assert len(text) <= 80


def test_the_display_is_gone_before_what_is_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = terminal(monkeypatch)
    tracker = ConsoleTracker(tmp_path / "log.txt", every_steps=1, screen=screen())
    for step in range(1_000, 1_004):
        tracker.log_metrics(line(step))
    tracker.take_down()
    tracker.log("The run is in runs/default")
    tracker.close()
    text = drawn.getvalue()
    assert "1,000" in text and "12,346 tokens/s" in text
    assert text.endswith("\x1b[2K\x1b[?2026lThe run is in runs/default\n")
    log = (tmp_path / "log.txt").read_text()
    assert log.splitlines()[-1] == "The run is in runs/default" and len(log.splitlines()) == 5


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns as standard output; holds what was written."""
    drawn = io.StringIO()
    monkeypatch.setattr(sys, "stdout", drawn)
    monkeypatch.setattr(drawn, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    return drawn


@pytest.mark.parametrize(
    ("wanted", "term", "is_terminal", "is_drawn"),
    [
        (ProgressBar.auto, "xterm", True, True),
        (ProgressBar.auto, "dumb", True, False),
        (ProgressBar.auto, "xterm", False, False),
        (ProgressBar.on, "xterm", False, True),
        (ProgressBar.off, "xterm", True, False),
    ],
)
def test_when_there_is_a_display(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: ProgressBar,
    term: str,
    is_terminal: bool,
    is_drawn: bool,
) -> None:
    drawn = terminal(monkeypatch)
    monkeypatch.setattr(drawn, "isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", term)
    config = Config()
    config.log.progress_bar = wanted
    tracker = ConsoleTracker.of(config, tmp_path / "log.txt")
    tracker.log_metrics(line(10))
    tracker.close()
    assert ("\x1b[" in drawn.getvalue()) is is_drawn
    assert ("step     10 | samples" in drawn.getvalue()) is not is_drawn


def test_control_characters_are_shown_on_the_screen_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker = ConsoleTracker(tmp_path / "log.txt", every_steps=1, screen=None)
    tracker.log("model: '\x1b[2Jgone'")
    assert (
        capsys.readouterr().out == "model: '\\x1b[2Jgone'\n" == (tmp_path / "log.txt").read_text()
    )


@pytest.mark.parametrize("has_display", [True, False])
def test_neither_a_full_output_nor_a_failing_log_stops_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_display: bool
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", Forgiving(full))
        tracker = ConsoleTracker(
            tmp_path / "log.txt", every_steps=1, screen=screen() if has_display else None
        )
        monkeypatch.setattr(os, "write", _no_such_device)
        tracker.log_metrics(line(1))
        tracker.log("words")
        tracker.log_metrics(line(2, **{"valid/loss": 4.0}))
        tracker.close()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    assert (tmp_path / "log.txt").read_text() == ""


def _no_such_device(descriptor: int, content: bytes) -> int:
    raise OSError(5, "Input/output error")


def test_an_evaluation_of_many_objectives_fits_80_columns() -> None:
    losses = {f"valid/loss_{name}": 2.3456 for name in ("mask", "gmask", "mip")}
    many = line(1250, **{"valid/loss": 3.618, **losses}) | {"samples_seen": 10_000_000}
    few = line(1250, **{"valid/loss": 3.618, "valid/loss_mask": 2.3456})
    assert len(evaluation_text(many)) < 80 and "lr" not in evaluation_text(many)
    assert "MIP 2.346" in evaluation_text(many) and "lr" in evaluation_text(few)


def test_an_evaluation_fits_a_terminal_of_60_columns() -> None:
    losses = {f"valid/loss_{name}": 2.3456 for name in ("mask", "gmask", "mip")}
    text = evaluation_text(line(1250, **{"valid/loss": 3.618, **losses}), 60)
    assert text == "   10,000 samples  held-out loss 3.6180"


@pytest.mark.parametrize("where", ["step", "between", "sentence", "signal"])
def test_a_display_that_fails_is_taken_down_and_lines_go_on(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = terminal(monkeypatch)
    monkeypatch.setattr(screens, "_HEARTBEAT_SECONDS", 0.01 if where == "between" else 1000.0)
    monkeypatch.setattr(screens, "_SECONDS", 0.0)
    # Where it fails between two steps, only the thread draws.
    clock = iter(range(1000)) if where == "between" else None
    shown = Screen("default", 800, 10, sys.stdout, is_forced=True, clock=clock.__next__ if clock else time.monotonic)  # fmt: skip
    tracker = ConsoleTracker(tmp_path / "log.txt", every_steps=1, screen=shown)
    tracker.log_metrics(line(1))
    has_failed = threading.Event()

    def fails(*_: object, **__: object) -> list[object]:
        has_failed.set()
        raise ZeroDivisionError("no width\nat all")

    if where in ("sentence", "signal"):
        prints = shown._console.print
        monkeypatch.setattr(
            shown._console,
            "print",
            lambda what, **options: (fails if isinstance(what, str) else prints)(what, **options),
        )
    else:
        monkeypatch.setattr(screens, "rows", fails)
    if where == "sentence":
        tracker.log("what was said")
    elif where == "signal":
        assert not tracker.say_at_once("from a handler"), "the handler prints it by itself"
    elif where == "between":
        assert has_failed.wait(60)
    tracker.log_metrics(line(2))
    tracker.log_checkpoint(tmp_path / "step_00000002", 16)
    tracker.log_metrics(line(3))
    tracker.log("the last sentence")
    assert not tracker.say_at_once("there is no display")
    tracker.close()
    said = "Warning: the live display has failed (ZeroDivisionError: no width). Lines are printed in its place."
    lines = Terminal(80).show(drawn.getvalue()).lines
    text = " ".join(lines)
    assert text.count(said) == 1 and not text.startswith("default"), "the display is gone"
    assert lines[-1] == "the last sentence" and "step      3 |" in text
    if where == "sentence":
        assert "what was said" in text
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert log.count(said) == 1 and log[-1] == "the last sentence"
    assert [each[:10] for each in log if each.startswith("step ")] == [
        f"step {number:6}"[:10] for number in (1, 2, 3)
    ]
    assert sys.stdout is drawn
