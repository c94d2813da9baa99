"""Words are found whole, whatever the tokens are."""

from collections.abc import Sequence

import pytest

from data_pipeline.tokenizer import load_tokenizer
from glm.words import begins_word, is_part_of_word, is_whole, whole_words

HAN = "\u4e2d\u6587"


@pytest.mark.parametrize(
    ("text", "is_part", "is_end"),
    [("ing", True, False), (" string", False, False), ("_x", True, False), (".", False, True)]
    + [("\n", False, True), (" ", False, False), (HAN, False, True), ("\ufffd", True, False)],
)
def test_parts_and_ends_of_words(text: str, is_part: bool, is_end: bool) -> None:
    assert is_part_of_word(text) is is_part
    assert is_whole(text) is is_end


def test_words_begin_with_a_letter_or_the_blank_before_it() -> None:
    assert all(map(begins_word, ("a", " a", " ", "_", "7", HAN)))
    assert not any(map(begins_word, ("", ".", " (", "\n", "\u3002")))


def words_of(pieces: Sequence[str]) -> list[str]:
    def decode(ids: Sequence[int]) -> str:
        return "".join(pieces[token] for token in ids)

    tokens = range(len(pieces))
    return [decode(tokens[start:stop]) for start, stop in whole_words(tokens, decode, 3)]


def test_a_word_of_several_tokens_is_taken_whole() -> None:
    pieces = ["Ret", "urn", " a", " str", "ing", "'s", " co", "py", ".", "\n", "It", "em"]
    assert words_of(pieces) == ["Return", " string", " copy", "Item"]


def test_a_blank_that_is_a_token_belongs_to_the_word_behind_it() -> None:
    assert words_of(["one", " ", "two", " ", "(", "three", ")"]) == ["one", " two", "three"]


def test_in_chinese_a_token_is_enough() -> None:
    assert words_of([HAN, HAN[0], "\u3002", "abc"]) == [HAN, HAN[0], "abc"]


def test_characters_are_not_cut_between_bytes() -> None:
    tokenizer = load_tokenizer("bytes")
    text = f"a word {HAN}, caf\u00e9 and end"
    tokens = tokenizer.encode(text)
    found = [tokenizer.decode(tokens[a:b]) for a, b in whole_words(tokens, tokenizer.decode, 3)]
    assert found == [" word", f" {HAN[0]}", HAN[1], " caf\u00e9", " and", " end"]
