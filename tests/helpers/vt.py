"""What a terminal shows after it was sent some text: the few control sequences that a display in place needs."""

import re

from configs.folding import shown_width

_PARTS = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([\r\n\b\x07])|([^\x1b\r\n\b\x07]+)")


class Terminal:
    """A terminal that scrolls without end. What is longer than its lines goes on in the next one.

    Args:
        width: columns.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self.has_cursor = True
        self.folded = 0
        """How often a line did not fit."""
        self.unknown: set[str] = set()
        """Control sequences that it does not know."""

    def show(self, text: str) -> "Terminal":
        """Take what a program writes; its line ends also return to the first column, as the terminal driver does."""
        for mode, numbers, letter, control, words in _PARTS.findall(text):
            if letter:
                self._control(mode, numbers, letter)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._column = 0
                self._down()
            for character in words:
                self._put(character)
        return self

    @property
    def lines(self) -> list[str]:
        """All lines, without what is empty at their ends and at the end."""
        return "\n".join("".join(row).rstrip() for row in self._rows).rstrip().split("\n")

    @property
    def cursor(self) -> tuple[int, int]:
        """Its line and column, from 0 on."""
        return self._row, self._column

    def _control(self, mode: str, numbers: str, letter: str) -> None:
        if letter == "A":
            self._row = max(self._row - int(numbers or 1), 0)
        elif letter == "K":
            self._rows[self._row] = [] if numbers == "2" else self._rows[self._row][: self._column]
        elif mode and numbers == "25":
            self.has_cursor = letter == "h"
        elif letter != "m" and (mode, numbers) != ("?", "2026"):
            self.unknown.add(f"{mode}{numbers}{letter}")

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])

    def _put(self, character: str) -> None:
        width = shown_width(character)
        if self._column + width > self._width:
            self.folded += 1
            self._column = 0
            self._down()
        row = self._rows[self._row]
        row += [" "] * (self._column + width - len(row))
        row[self._column : self._column + width] = [character, *[""] * (width - 1)]
        self._column += width
