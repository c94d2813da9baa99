"""The display on a terminal: in place, below what is printed, one write a frame, and gone at the end."""

import io
import os
import threading
from collections.abc import Iterator

import pytest

from tests.helpers.steps import line
from tests.helpers.vt import Terminal
from train.terminal import screen as screens
from train.terminal.screen import Screen

LONG = "a path /" + "x" * 150


class Recorded(io.StringIO):
    """A terminal that keeps its writes apart."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


class Case:
    """A display of made-up steps, by a clock that stands still."""

    def __init__(self, width: int, height: int = 24, name: str = "default") -> None:
        self.now = 0.0
        self.stream = Recorded()
        self.screen = Screen(name, 800, 10, self.stream, is_forced=True, clock=lambda: self.now)
        self.resize(width, height)

    def resize(self, width: int, height: int = 24) -> None:
        self.screen._console.size = (width, height)  # pyright: ignore[reportAttributeAccessIssue]
        self.width = width

    def step(self, number: int, seconds: float = 1.0, **values: float) -> None:
        self.now += seconds
        self.screen.take(line(number, **values))

    def shown(self) -> Terminal:
        return Terminal(self.width).show(self.stream.getvalue())


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "60")  # of the sentences; the display asks its console
    yield


@pytest.mark.parametrize("width", [60, 80, 200])
def test_it_stays_in_place_below_what_is_printed(width: int) -> None:
    case = Case(width, name="预训练" * 40)
    for step in range(1, 30):
        case.step(step)
        if step % 10 == 0:
            case.screen.print(f"sentence {step}\nand its second line")
    shown = case.shown()
    printed = ["sentence 10", "and its second line", "sentence 20", "and its second line"]
    assert shown.lines[:4] == printed
    assert "step 29" in shown.lines[4] and "sentence 20" in shown.lines[-1]
    assert len([text for text in shown.lines if "step 29" in text]) == 1
    assert len(shown.lines) == 4 + 8
    assert shown.cursor == (len(shown.lines), 0) and shown.has_cursor
    assert shown.folded == 0 and not shown.unknown
    case.screen.close()
    shown = case.shown()
    assert shown.lines == printed
    assert shown.cursor == (4, 0) and shown.has_cursor


def test_a_frame_is_one_write_which_shows_the_cursor_and_clears_no_screen() -> None:
    case = Case(80)
    for step in range(1, 20):
        case.step(step)
    case.screen.print("a sentence")
    begin, frames = case.stream.writes[0], case.stream.writes[1:]
    assert begin == "\x1b[?25l\x1b[?25h"  # shown again before anything is drawn
    assert len(frames) == 20
    assert all(each.startswith("\x1b[?2026h") and each.endswith("\x1b[?2026l") for each in frames)
    assert not any(sign in each for each in frames for sign in ("\x1b[2J", "\x1b[H", "\x1b[?25l"))
    case.screen.close()


def test_it_is_drawn_twice_a_second_at_most() -> None:
    case = Case(80)
    for step in range(1, 101):
        case.step(step, seconds=0.125)
    assert len(case.stream.writes) - 1 == 25
    case.step(101, seconds=0.125, valid__loss=3.0)  # an evaluation at once
    assert len(case.stream.writes) - 1 == 26 and "3.0000" in case.stream.writes[-1]
    case.screen.close()


def test_a_terminal_that_becomes_narrower_has_no_remains() -> None:
    """It folds what was drawn, so that the old display takes more lines than were drawn."""
    case = Case(120)
    case.step(1)
    case.screen.print("a sentence")
    before = case.shown().lines
    case.resize(70)
    folded = sum((len(text) - 1) // 70 for text in before)
    assert folded > 0
    case.step(2)
    assert (
        case.stream.writes[-1].count("\x1b[1A") == len(before) - 1 + folded
    )  # the sentence is no part of it, the cursor's line is
    case.step(3)
    assert case.stream.writes[-1].count("\x1b[1A") == 8  # only once
    case.screen.close()


def test_a_low_terminal_gets_one_line() -> None:
    case = Case(80, height=5)
    case.step(1)
    assert len(case.shown().lines) == 1 and "step 1 " in case.shown().lines[0]
    case.screen.close()


def test_a_sentence_of_a_signal_handler_waits_for_the_drawing_it_interrupts() -> None:
    case = Case(80)
    assert not case.screen.print_at_once("nothing is drawn yet")
    case.step(1)
    assert case.screen.print_at_once("first")
    with case.screen._lock:  # as if a drawing were going on
        assert case.screen.print_at_once("second")
        assert "second" not in case.stream.getvalue()
    case.step(2)
    assert case.shown().lines[:2] == ["first", "second"]
    case.screen.close()
    assert not case.screen.print_at_once("nothing is drawn any more")


def test_a_long_wait_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "_HEARTBEAT_SECONDS", 0.01)
    drawn, before = threading.Event(), set(threading.enumerate())
    case = Case(120)
    case.step(1)
    case.now += 3600
    original = case.stream.write

    def write(text: str) -> int:
        written = original(text)
        drawn.set()
        return written

    monkeypatch.setattr(case.stream, "write", write)
    assert drawn.wait(60), "nothing was drawn"
    (beat,) = set(threading.enumerate()) - before
    case.screen.close()
    assert "1:00:01" in case.stream.getvalue()
    beat.join(60)
    assert not beat.is_alive()


def test_without_colours_the_words_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = Case(80)
    coloured.step(1, train__loss=float("nan"))
    monkeypatch.setenv("NO_COLOR", "1")
    uncoloured = Case(80)
    uncoloured.step(1, train__loss=float("nan"))
    assert "\x1b[1;31m" in coloured.stream.getvalue()
    assert "31m" not in uncoloured.stream.getvalue() and "36m" not in uncoloured.stream.getvalue()
    assert coloured.shown().lines == uncoloured.shown().lines
    assert "nan !" in "\n".join(uncoloured.shown().lines)
    coloured.screen.close()
    uncoloured.screen.close()


def test_a_terminal_of_another_encoding_gets_what_it_has() -> None:
    case = Case(80, name="训练")
    case.stream.encoding = "latin-1"
    case.screen = Screen("训练", 800, 10, case.stream, is_forced=True, clock=lambda: case.now)
    case.resize(80)
    case.step(1)
    case.screen.print("事件 \x1b[2J", is_warning=True)
    case.step(2)
    shown = case.shown()
    assert "".join(shown.lines[1:]).isascii() and shown.folded == 0
    assert "\\u8bad\\u7ec3" in shown.lines[1] and "! \\u4e8b\\u4ef6 \\x1b[2J" in shown.lines[-1]
    case.screen.close()


def test_on_a_terminal_each_frame_is_one_call_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, other = os.openpty()
    written: list[bytes] = []
    original = os.write

    def write(descriptor: int, content: bytes) -> int:
        if descriptor == other:
            written.append(content)
        return original(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    with open(other, "w", encoding="utf-8", closefd=False) as stream:
        case = Case(80)
        case.screen = Screen("default", 800, 10, stream, clock=lambda: case.now)
        case.resize(200, 50)
        for step in range(1, 5):
            case.step(step)
            os.read(own, 65536)
        case.screen.close()
    assert len(written) == 1 + 4 + 1
    assert all(b"\x1b[?2026l" in each[-8:] for each in written[1:])
    os.close(own)
    os.close(other)
