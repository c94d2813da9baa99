"""Which documents are left out, each for its reason."""

import pytest

from configs.errors import DataError
from data_pipeline.preparation.filters import Filters


@pytest.mark.parametrize(
    ("filters", "text", "reason"),
    [
        (Filters(), "", "empty"),
        (Filters(), " \n\u3000", "empty"),
        (Filters(), "x", None),
        (Filters(min_characters=3), "ab", "too short"),
        (Filters(min_characters=3), "abc", None),
        (Filters(max_characters=3), "abcd", "too long"),
        (Filters(max_characters=3), "abc", None),
        (Filters(min_letters=0.5), "a1", None),
        (Filters(min_letters=0.5), "a  1 2", "few letters"),
        (Filters(min_letters=0.5), "\u4e2d\u6587 12", None),
        (Filters(min_letters=1.0), "a b", None),
        (Filters(scripts=("latin",)), "Gr\u00f6\u00dfe 123 !?", None),
        (Filters(scripts=("latin",)), "\u4e2d\u6587", "other script"),
        (Filters(scripts=("han",)), "\u4e2d\u6587", None),
        (Filters(scripts=("latin", "han")), "GLM \u4e2d\u6587", None),
        (Filters(scripts=("latin",)), "123", None),
        # A tenth of the letters may be foreign.
        (Filters(scripts=("latin",)), "abcdefghi\u03b1", None),
        (Filters(scripts=("latin",)), "abcdefgh\u03b1", "other script"),
        (Filters(scripts=("kana",)), "\u3072\u3089\u30ab\u30bf\u30ab\u30ca", None),
        (Filters(scripts=("hangul",)), "\ud55c\uad6d\uc5b4", None),
        (Filters(scripts=("cyrillic",)), "\u0442\u0435\u043a\u0441\u0442", None),
    ],
)
def test_document_is_left_out_for_its_reason(filters: Filters, text: str, reason: str | None):
    assert filters.reason_against((text,)) == reason


def test_several_texts_are_judged_together():
    assert Filters(min_characters=4).reason_against(("ab", "cd")) is None
    assert Filters(max_characters=3).reason_against(("ab", "cd")) == "too long"
    assert Filters().reason_against(("prompt", " ")) == "empty"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scripts": ("klingon",)}, '"klingon" is not known. Choose from latin, han'),
        ({"min_letters": 50.0}, "share between 0 and 1"),
        ({"min_characters": 9, "max_characters": 5}, "must be at least --min-characters"),
        ({"max_characters": 0}, "--max-characters"),
    ],
)
def test_impossible_filter_is_refused(options: dict[str, object], said: str):
    with pytest.raises(DataError, match=said):
        Filters(**options)
