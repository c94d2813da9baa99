"""Lines broken at a terminal's width."""

import re

from hypothesis import given
from hypothesis import strategies as st

from configs.folding import fold, shown_width


def test_words_go_on_below_and_white_space_inside_stays() -> None:
    assert fold("  a:  bb  ccc dd", 10, "    ") == "  a:  bb\n    ccc dd"
    assert fold("short", 10) == "short"
    assert fold("no terminal " * 20, None) == "no terminal " * 20


def test_a_path_stays_whole_and_a_text_without_spaces_is_cut() -> None:
    assert fold("see /a/long/path/name now", 8) == "see\n/a/long/path/name\nnow"
    assert fold("如果没有指定则读取", 8, " ", cuts_words=True) == "如果没有\n 指定则\n 读取"


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert shown_width("如果a") == 5
    assert shown_width("e\u0301\u200d") == 1


@given(st.text(), st.integers(4, 20), st.sampled_from(["", "  "]))
def test_no_line_is_too_long_and_nothing_but_white_space_is_lost(
    text: str, width: int, indent: str
) -> None:
    line = re.sub(r"\s", " ", text)
    folded = fold(line, width, indent, cuts_words=True)
    assert re.sub(r"\s", "", folded) == re.sub(r"\s", "", line)
    if line.strip():
        assert all(shown_width(each) <= width for each in folded.split("\n"))
