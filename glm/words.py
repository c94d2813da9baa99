"""Where words begin and end in text that is known token by token.

A word is a run of letters, digits and underscores, the blank before it included in what a vocabulary stores. Chinese
and Japanese are written without blanks: there each token stands for itself. A character that a token holds only a part
of is decoded as U+FFFD, and belongs to what stands before it.
"""

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"
"""What is decoded for a part of a character."""
# Kana, ideographs, their radicals and marks: first and last code point of each range.
_UNSPACED = ((0x2E80, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def is_part_of_word(text: str) -> bool:
    """True if text, put behind a word, makes a longer word; of the first character."""
    first = text[:1]
    return first == INCOMPLETE or first == "_" or (first.isalnum() and not _is_unspaced(first))


def begins_word(text: str) -> bool:
    """True if text is the beginning of a word, of an unspaced one too, or the blank before it."""
    first = text.lstrip(" ")[:1]
    return bool(text) and (not first or first.isalnum() or is_part_of_word(first))


def is_whole(text: str) -> bool:
    """True if whatever follows begins something new: text that ends with a mark, with white space, or unspaced."""
    return bool(text.strip(" ")) and not is_part_of_word(text[-1])


def whole_words(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], shortest: int
) -> list[tuple[int, int]]:
    """Find what may be hidden without cutting a word.

    Args:
        tokens: ids of a text.
        decode: text of ids, a blank at its beginning included.
        shortest: characters that a word has at least; of Chinese and Japanese one will do.

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
        # A blank that is a token of its own belongs to the word behind it.
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
