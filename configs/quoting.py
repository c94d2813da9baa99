"""Quotes for lists in commands to type: unquoted, zsh and sometimes bash expand the brackets of `data.paths=[a,b]`."""

import re

# A key with a list, unless a quote, or more of a word, stands before it.
_LIST = re.compile(r"(?<![\w.'\"/-])[A-Za-z_]+(?:\.[A-Za-z_]+)*=(?=\[)")


def quoted_lists(text: str) -> str:
    """Put quotes around each unquoted `key=[...]` of a text.

    Args:
        text: a message or a page of documentation.
    """
    parts, at = list[str](), 0
    for found in _LIST.finditer(text):
        end = _end_of_list(text, found.end())
        if found.start() < at or end is None:
            continue
        word = text[found.start() : end]
        mark = '"' if "'" in word else "'"
        parts += [text[at : found.start()], mark, word, mark]
        at = end
    return "".join([*parts, text[at:]])


def _end_of_list(text: str, start: int) -> int | None:
    """The index after the bracket that closes the one at `start`; None if it is not closed on its line."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "[") - (text[place] == "]")
        if depth == 0:
            return place + 1
        if text[place] == "\n":
            return None
    return None
