"""Several spans that grow together: each ends by itself, and every choice is asked for with all that is known."""

from collections.abc import Sequence

import pytest

from glm.completion import complete_spans
from glm.prompt import Blanks
from tests.helpers.tiny import FIRST_WORD, SPECIAL

A, B, C = range(FIRST_WORD, FIRST_WORD + 3)


def blank(*context: int) -> Blanks:
    return Blanks([*context, SPECIAL.mask], [len(context)], False, [[]])


@pytest.mark.parametrize("end", [SPECIAL.eop, SPECIAL.eos])
def test_spans_end_one_by_one(end: int) -> None:
    answers = {A: [A, end], B: [B, B, B, end], C: [C] * 9}
    asked: list[list[tuple[int, int]]] = []

    def following(rows: Sequence[Blanks]) -> list[int]:
        places = [(row.context[0], len(row.spans[-1])) for row in rows]
        asked.append(places)
        return [answers[first][length] for first, length in places]

    rows = [blank(A), blank(B), blank(C)]
    spans = complete_spans(rows, [9, 9, 4], 100, SPECIAL, following)
    assert spans == [[A], [B, B, B], [C, C, C, C]]
    assert asked == [[(A, n), (B, n), (C, n)] for n in (0, 1)] + [[(B, n), (C, n)] for n in (2, 3)]
    assert [row.spans for row in rows] == [[[]]] * 3, "the rows stay as they were"


def test_the_row_is_the_last_limit() -> None:
    rows = [blank(A), blank(A, A, A), blank(*[A] * 7)]

    def following(rows: Sequence[Blanks]) -> list[int]:
        assert all(len(row.segment(SPECIAL)) <= 8 for row in rows)
        return [B] * len(rows)

    spans = complete_spans(rows, [64, 64, 64], 8, SPECIAL, following)
    assert [len(span) for span in spans] == [6, 4, 0]
