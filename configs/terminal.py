r"""Print for people: text from outside is made safe to show, and printing never fails.

A terminal obeys control characters, and bidirectional ones reorder text, whether they come from a corpus, a file name or
a run's name. `visible` shows them as \x1b and \u202e.
"""

import contextlib
import os
import re
import shutil
import sys
import unicodedata
from typing import Any, TextIO

from configs.folding import fold
from configs.quoting import quoted_lists

# Cc: control. Cf: format, which holds the bidirectional ones. Zl, Zp: line ends that few programs know. Cs: no text.
_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Cs")
# Zero-width joiners belong to words of several scripts and to emoji, and reorder nothing.
_HARMLESS = "\u200c\u200d"
# How configs/errors.py numbers several problems.
_NUMBERED = re.compile(r"  \d+\. ")
# Words to type, which are copied as a whole.
_COMMAND = re.compile(r"\b(python|bash|pip|sbatch|srun|torchrun)\b|--|=|\\$")


LOADING = "Loading PyTorch ..."
"""What every command prints before it loads PyTorch, which takes seconds."""


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Show control and format characters as escapes.

    Args:
        text: text from data, names or overrides.
        keep: characters that stay; "" where the text must stay on one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def shows_colours(stream: TextIO) -> bool:
    """True for a terminal, unless its user has asked for plain text (NO_COLOR, no-color.org; TERM=dumb)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.isatty()
    return False


def can_be_redrawn(stream: TextIO) -> bool:
    """True for a terminal on which the cursor can be moved (TERM is not dumb)."""
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.isatty()
    return False


def prepare_streams() -> None:
    """Make standard output and error replace characters that their encoding lacks; every command calls this first."""
    for stream in _standard_streams():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")


def never_fail_to_print() -> None:
    """From now on, drop output that cannot be printed: a full disk behind its log must not end a run of weeks.

    This program, warnings of libraries and progress bars still write to standard output and error.
    """
    # The next file opened would otherwise get the number of a closed stream, and libraries would print into that file.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    prepare_streams()
    streams: list[Any] = [
        stream if isinstance(stream, Forgiving) else Forgiving(stream)
        for stream in _standard_streams()
    ]
    sys.stdout, sys.stderr = streams


class Forgiving:
    """A text stream whose writes never fail.

    Args:
        stream: where the words go; None: nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115

    def write(self, text: str) -> int:
        """Write the text; errors are ignored."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; errors are ignored."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """True if the stream is a terminal and still open."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line; errors, such as a full disk behind standard output or a closed stream, are ignored.

    Args:
        text: the line, without its end; control characters are shown as escapes, and lists to type are quoted.
        stream: where to print; default standard output.
    """
    target = sys.stdout if stream is None else stream
    # None: the process was started without the stream. ValueError: it is closed.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        shown = quoted_lists(visible(text))
        target.write((wrapped(shown) if target.isatty() else shown) + "\n")
        target.flush()


def columns() -> int | None:
    """Width of the terminal; None if standard output is a file or a pipe, whose lines are not folded."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return help_columns() if sys.stdout.isatty() else None
    return None


def help_columns() -> int:
    """Width of `--help` texts: that of the terminal, or 80 without one, as in argparse."""
    return shutil.get_terminal_size().columns


def hanging(name: str, text: str, width: int | None) -> str:
    """Render a name with its text beside it; the text is folded at `width`, with a hanging indent."""
    room = None if width is None else max(width, len(name) + 20)
    return fold(f"{name}{text}".rstrip(), room, " " * len(name))


def wrapped(text: str) -> str:
    """Break long lines between words at the terminal's width.

    Commands on indented lines stay as they are. Further lines of a list, and of indented text, are indented.
    """
    width = help_columns()
    lines = list[str]()
    for line in text.split("\n"):
        number = _NUMBERED.match(line)
        margin = len(line) - len(line.lstrip())
        indent = " " * (number.end() if number else margin + 2 if margin else 0)
        is_command = number is None and margin > 0 and _COMMAND.search(line) is not None
        lines.append(line if is_command else fold(line, width, indent))
    return "\n".join(lines)


def _standard_streams() -> list[Any]:
    """None where the process was started without one, and in tests what cannot be reconfigured."""
    return [sys.stdout, sys.stderr]


def _shown(character: str, keep: str) -> str:
    if (
        character in keep
        or character in _HARMLESS
        or unicodedata.category(character) not in _HIDDEN
    ):
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
