"""Where words begin and end in tokenized text.

A word is a run of letters, digits and underscores; vocabularies store it together with the blank before it. Chinese and
Japanese are written without blanks: there each token counts as a word. A token that holds only a part of a character is
decoded as U+FFFD, and belongs to the text before it.
"""

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"
"""Decoded text of an incomplete character."""
# Kana, ideographs, their radicals and marks: first and last code point of each range.
_UNSPACED = ((0x2E80, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def is_part_of_word(text: str) -> bool:
    """True if text appended to a word would make the word longer, judged by the first character of text."""
    first = text[:1]
    return first == INCOMPLETE or first == "_" or (first.isalnum() and not _is_unspaced(first))


def begins_word(text: str) -> bool:
    """True if text begins a word (also an unspaced one) or is the blank before it."""
    first = text.lstrip(" ")[:1]
    return bool(text) and (not first or first.isalnum() or is_part_of_word(first))


def is_whole(text: str) -> bool:
    """True if whatever follows begins something new: text ends with a mark, white space or an unspaced character."""
    return bool(text.strip(" ")) and not is_part_of_word(text[-1])


def whole_words(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], shortest: int
) -> list[tuple[int, int]]:
    """Find the words of a text, each of which can be hidden whole.

    Args:
        tokens: ids of a text.
        decode: returns the text of ids, including a blank at its beginning.
        shortest: fewest characters of a word; for Chinese and Japanese one is enough.

    Returns:
        First token and one past the last of each word, in order.
    """
    found: list[tuple[int, int]] = []
    for start, stop in _groups(tokens, decode):
        word = decode(tokens[start:stop]).removeprefix(" ")
        is_long = len(word) >= shortest and all(map(is_part_of_word, word))
        is_unspaced = all(letter.isalnum() and _is_unspaced(letter) for letter in word)
        if word and INCOMPLETE not in word and (is_long or is_unspaced):
            found.append((start, stop))
    return found


def _groups(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, int]]:
    """Cut a text before each token that begins something new."""
    groups: list[tuple[int, int]] = []
    start = 0
    for place in range(1, len(tokens) + 1):
        before = decode(tokens[start:place])
        # A blank that is a token of its own belongs to the word after it.
        is_open = before.endswith(INCOMPLETE) or not before.strip(" ")
        if place == len(tokens) or (
            not is_open
            and not (
                is_part_of_word(before[-1:]) and is_part_of_word(decode(tokens[place : place + 1]))
            )
        ):
            groups.append((start, place))
            start = place
    return groups


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)
