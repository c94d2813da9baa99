r"""Words for people, on whatever standard output is: text from outside shown harmlessly, and never an error from it.

A terminal obeys control characters, and reorders text at bidirectional ones, wherever they come from: a corpus, a file
name, a run's name. `visible` shows them as \x1b and \u202e.
"""

import contextlib
import sys
import unicodedata
from typing import Any, TextIO

# Cc: control. Cf: format, which holds the bidirectional ones. Zl, Zp: line ends that few programs know. Cs: no text.
_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Cs")
# Zero-width joiners shape words of several scripts and emoji, and move nothing.
_HARMLESS = "\u200c\u200d"


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Show control and format characters as escapes.

    Args:
        text: from data, names or overrides.
        keep: characters that stay; "" where the text must stay on one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def prepare_streams() -> None:
    """Let no character that a terminal's encoding lacks be an error; every command's first act."""
    streams: list[Any] = [sys.stdout, sys.stderr]  # None, or a test's, which cannot be reconfigured
    for stream in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line if it can be printed: a full disk behind standard output, or a closed one, stops nothing.

    Args:
        text: the line, without its end; made visible here.
        stream: default standard output.
    """
    target = sys.stdout if stream is None else stream
    # None: the process was started without one. ValueError: it is closed.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        target.write(visible(text) + "\n")
        target.flush()


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
