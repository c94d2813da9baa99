"""A terminal that takes nothing delays nobody, and what it gets once it goes on is whole."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.killing import run_forked
from tests.helpers.stalled import StalledTerminal
from tests.helpers.steps import line
from tests.helpers.vt import Terminal
from train import watchdog
from train.terminal import frames
from train.terminal import screen as screens
from train.terminal.frames import Frames
from train.terminal.screen import Screen
from train.watchdog import Watchdog


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(frames, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(screens, "_CLOSE_SECONDS", 0.1)


def returns(act: Callable[[], None]) -> None:
    """Check that something comes back although nobody reads."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for the terminal"


def display(stream: object, now: Callable[[], float]) -> Screen:
    screen = Screen("default", 800, 10, stream, is_forced=True, clock=now)  # type: ignore[arg-type]
    screen._console.size = (80, 24)  # type: ignore[assignment]
    return screen


def test_a_stalled_terminal_delays_nobody_and_later_shows_one_display() -> None:
    terminal, clock = StalledTerminal(), [0.0]
    with open(terminal.descriptor, "w", encoding="utf-8") as stream:
        screen = display(stream, lambda: clock[0])

        def train() -> None:
            for step in range(1, 30):
                clock[0] += 1.0
                screen.take(line(step))
                if step % 10 == 0:
                    screen.print(f"sentence {step}")

        returns(train)
        assert screen._file.is_behind
        terminal.go_on()
        assert screen._file.settle(60) and not screen._file.is_behind
        clock[0] += 1.0
        screen.take(line(30))
        shown = Terminal(80).show(terminal.read_until("30.0 %"))
        assert shown.lines[:2] == ["sentence 10", "sentence 20"] and "step 30" in shown.lines[2]
        assert len(shown.lines) == 2 + 8 and not shown.unknown
        # No frame was drawn that nobody could see; sentences stand above the one that was there.
        drawn = set(re.findall(r"(?<!\d)(\d+)\.0 %", terminal.read_until("")))
        assert drawn == {"1", "30"}
        returns(screen.close)
        screen._file.write("the end\n")
        shown = Terminal(80).show(terminal.read_until("the end\n"))
        assert shown.lines == ["sentence 10", "sentence 20", "the end"] and shown.has_cursor


def test_a_display_on_a_stalled_terminal_is_taken_down_all_the_same() -> None:
    terminal = StalledTerminal()
    before = sys.stdout
    with open(terminal.descriptor, "w", encoding="utf-8") as stream:
        screen = display(stream, time.monotonic)
        returns(lambda: screen.take(line(1)))
        returns(screen.close)
        assert screen._live is None and sys.stdout is before
        terminal.go_on()
        assert screen._file.settle(60)


def test_what_waits_for_a_terminal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_LARGEST_WAIT_BYTES", 100)
    terminal = StalledTerminal()
    with open(terminal.descriptor, "w", encoding="utf-8") as stream:
        file = Frames(stream)
        for number in range(40):
            file.write(f"text {number:3}.")
        terminal.go_on()
        assert file.settle(60)
        file.write("then")
        whole = "".join(f"text {number:3}." for number in range(11))
        assert terminal.read_until("then") == whole + "then"


def test_the_watchdog_ends_a_process_whose_terminal_and_display_are_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_TERMINAL_SECONDS", 0.1)
    terminal = StalledTerminal()

    def work() -> None:
        signal.alarm(120)
        for number in (1, 2):
            os.dup2(terminal.descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w") for number in (1, 2))
        screen = display(sys.stdout, time.monotonic)
        screen.take(line(1))
        assert hasattr(sys.stderr, "rich_proxied_file"), "prints go through the display"
        # A lone rank has no alarm; a file in the place of the folder: the stacks go to the terminal as well.
        (tmp_path / "stacks").write_text("")
        dog = Watchdog(tmp_path / "stacks", 0, True, lambda reason: None)
        dog.watch("a step", 0.2)
        with screen._lock, screen._console._lock:
            time.sleep(300)

    assert run_forked(work) == 3
