"""Break long lines between words at a terminal's width; the terminal would break them inside words."""

import re
import unicodedata

_WORD = re.compile(r"\s*\S+")


def fold(text: str, width: int | None, indent: str = "", cuts_words: bool = False) -> str:
    """Break one line between words. White space inside of a line stays as it is.

    Args:
        text: one line, which may be indented.
        width: columns of the terminal; None: the line stays as it is.
        indent: the beginning of every further line.
        cuts_words: cut words that are longer than a line, as those of a language without spaces; paths and commands
            stay whole without it.
    """
    words = _WORD.findall(text)
    if width is None or not words or shown_width(text) <= width:
        return text
    lines, line = list[str](), ""
    for word in words:
        if not line or shown_width(line + word) <= width:
            line += word
        else:
            lines.append(line)
            line = indent + word.lstrip()
        while cuts_words and shown_width(line) > width:
            begun = len(indent) if lines else 0
            fitting = max(
                _fitting(line, width), begun + 1
            )  # each line takes at least one character
            lines.append(line[:fitting])
            line = indent + line[fitting:]
    return "\n".join([*lines, line])


def shown_width(text: str) -> int:
    """Columns that a text takes: Chinese, Japanese and Korean characters take two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(line: str, width: int) -> int:
    """How many characters of a line fit."""
    taken = 0
    for number, character in enumerate(line):
        taken += _columns(character)
        if taken > width:
            return number
    return len(line)
