"""`python -m train` on a terminal: what its screen shows at the end, after Ctrl-C, and what is left to log.txt."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.vt import Terminal
from tests.helpers.whole_runs import command, typed


def fail_when_told(told: Path) -> None:
    """Make a step fail once a file is there."""
    from train.metrics_file import JsonlTracker

    log = JsonlTracker.log_metrics

    def logged(tracker: JsonlTracker, line: dict[str, Any]) -> None:
        if told.exists():
            raise ArithmeticError("a failure in a step")
        log(tracker, line)

    JsonlTracker.log_metrics = logged  # type: ignore[method-assign]


def on_terminal(
    rank: int, world_size: int, path: str, overrides: tuple[str, ...], told: Path | None
) -> None:
    """Run the command with a terminal as its standard streams; it fails once the file `told` is there."""
    from train.main import cli

    if told is not None:
        fail_when_told(told)

    os.environ.update(TERM="xterm-256color", LANG="C.UTF-8")
    for name in ("NO_COLOR", "COLUMNS", "LINES", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):  # fmt: skip
        os.environ.pop(name, None)
    descriptor = os.open(path, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(descriptor, stream)
    for name, number in (("stdout", 1), ("stderr", 2), ("__stdout__", 1)):
        setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="utf-8"))
    code = cli(list(overrides))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class OnTerminal:
    """A run on a terminal of its own."""

    def __init__(self, width: int, overrides: tuple[str, ...], told: Path | None = None) -> None:
        self._own, self._other = pty.openpty()
        fcntl.ioctl(self._other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
        self._width = width
        self.ranks = Ranks(on_terminal, 1, os.ttyname(self._other), overrides, told)
        os.set_blocking(self._own, False)
        self.written = b""

    def read_until(self, words: bytes | None, seconds: float = 120) -> Terminal:
        """Read until some words were written, or for None until the process has ended."""
        deadline = time.monotonic() + seconds
        process = self.ranks.processes[0]
        while True:
            is_over = not process.is_alive()
            with contextlib.suppress(BlockingIOError):
                while content := os.read(self._own, 65536):
                    self.written += content
            if (words is not None and words in self.written) or (words is None and is_over):
                break
            assert time.monotonic() < deadline and not is_over, self.written[-2000:]
            time.sleep(0.01)
        text = self.written.decode("utf-8", "ignore").replace("\r\n", "\n")
        return Terminal(self._width).show(text)

    def close(self) -> None:
        self.ranks.kill_all()
        os.close(self._own)
        os.close(self._other)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_is_printed_stands_above_the_display_and_last_at_the_end(
    tmp_path: Path, width: int
) -> None:
    run = Path(os.path.relpath(tmp_path / "run"))
    words = command(tmp_path, f"run.dir={run}", "eval.every_samples=24", "log.every_steps=4")
    terminal = OnTerminal(width, words)
    try:
        shown = terminal.read_until(None)
    finally:
        terminal.close()
    assert terminal.ranks.processes[0].exitcode == 0, shown.lines
    text = terminal.written.decode()
    assert "since the start" in text if width >= 100 else "checkpoint " in text, "nothing was drawn"
    assert "\x1b[2J" not in text and not shown.unknown
    assert shown.has_cursor and shown.cursor == (len(shown.lines), 0)
    # Steps are in the file alone, evaluations in either in their own words; everything else is the same.
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    kept = [each for each in log if not each.startswith("step ")]
    printed = [
        each
        for each in shown.lines
        if " samples  held-out loss" not in each and "Loading" not in each
    ]
    begun = printed.index(next(each for each in printed if each.startswith("model ")))
    assert len([each for each in shown.lines if " samples  held-out loss" in each]) == 4
    assert [each for each in log if each.startswith("step ")][-1].startswith("step     12 |")
    assert _words(printed[begun:]) == _words(kept)


def _words(lines: list[str]) -> str:
    """Without white space: sentences are folded between words, and what is to be copied by the terminal."""
    return "".join(" ".join(lines).split())


def test_without_a_terminal_log_txt_and_the_output_are_the_same_lines(tmp_path: Path) -> None:
    ended = typed(tmp_path, *command(tmp_path, f"run.dir={tmp_path / 'run'}", "log.every_steps=4"))
    assert ended.returncode == 0, ended.stderr
    log = (tmp_path / "run" / "log.txt").read_text()
    assert ended.stdout.endswith(log) and "\x1b" not in ended.stdout
    assert len([each for each in log.splitlines() if each.startswith("step ")]) == 6


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_takes_the_display_down_and_leaves_the_cursor(
    sent: signal.Signals, tmp_path: Path
) -> None:
    words = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.total_samples=800000")
    terminal = OnTerminal(80, words)
    try:
        terminal.read_until(b"last event")
        os.kill(terminal.ranks.processes[0].pid, sent)
        shown = terminal.read_until(None)
    finally:
        terminal.close()
    assert terminal.ranks.processes[0].exitcode == 75
    said = [number for number, each in enumerate(shown.lines) if each.startswith("Saving after")]
    stopped = [
        number for number, each in enumerate(shown.lines) if each.startswith("Stopped after")
    ]
    # Only who has pressed Ctrl-C waits for an answer.
    assert len(stopped) == 1 and said == ([stopped[0] - 1] if sent is signal.SIGINT else [])
    assert shown.has_cursor and shown.cursor == (len(shown.lines), 0)
    assert "last event" not in "\n".join(shown.lines)


def test_a_failure_takes_the_display_down_and_is_said_last(tmp_path: Path) -> None:
    words = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.total_samples=800000")
    terminal = OnTerminal(80, words, tmp_path / "told")
    try:
        terminal.read_until(b"last event")
        (tmp_path / "told").touch()
        shown = terminal.read_until(None)
    finally:
        terminal.close()
    assert terminal.ranks.processes[0].exitcode == 1, shown.lines
    # An empty line follows what Python says of an error.
    assert shown.has_cursor and shown.cursor == (len(shown.lines) + 1, 0) and not shown.unknown
    text = "\n".join(shown.lines)
    assert "last event" not in text and "Traceback" in text
    assert text.count("ArithmeticError: a failure in a step") == 1
    assert "ArithmeticError: a failure in a step" in shown.lines[-1]


def test_a_killed_run_leaves_a_visible_cursor_below_the_display(tmp_path: Path) -> None:
    words = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.total_samples=800000")
    terminal = OnTerminal(80, words)
    try:
        terminal.read_until(b"last event")
        time.sleep(0.2)
        terminal.ranks.kill_all()
        shown = terminal.read_until(None)
    finally:
        terminal.close()
    assert shown.has_cursor and shown.lines[-1].startswith("last event")
    assert shown.cursor == (len(shown.lines), 0)
