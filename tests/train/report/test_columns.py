"""Lines of metrics as columns: what is null, not finite or damaged."""

import numpy as np
import pytest

from train.report.columns import Columns

LINES = [
    {"samples_seen": 8, "a": 1, "b": None, "c": "inf", "d": [1]},
    {"samples_seen": 16, "a": 2.5, "b": 3, "c": None, "d": True},
    {"samples_seen": 24, "a": None, "c": "nan", "e": 2**62 - 1},
    {"samples_seen": 32, "a": 4, "c": 1.5, "d": "word"},
]


def test_a_curve_has_the_rows_in_which_its_value_exists() -> None:
    columns = Columns(LINES)
    x, y = columns.curve("a")
    assert (x.tolist(), y.tolist()) == ([8, 16, 32], [1, 2.5, 4])
    x, y = columns.curve("c")
    assert x.tolist() == [8, 24, 32]
    assert np.isinf(y[0]) and np.isnan(y[1]) and y[2] == 1.5
    assert columns.curve("b")[0].tolist() == [16]
    assert columns.curve("e")[0].tolist() == [24]


def test_what_is_no_number_does_not_exist() -> None:
    columns = Columns(LINES)
    assert columns.keys == ["samples_seen", "a", "b", "c", "e"]
    assert "d" not in columns and "never" not in columns
    for name in ("d", "never"):
        assert columns.curve(name)[0].tolist() == []
        assert np.isnan(columns.column(name)).all() and len(columns.column(name)) == 4


@pytest.mark.parametrize(("key", "last"), [("a", 4), ("b", 3), ("c", 1.5), ("d", None)])
def test_the_last_value_is_the_last_finite_one(key: str, last: float | None) -> None:
    assert Columns(LINES).last(key) == last


def test_no_line_is_no_column() -> None:
    columns = Columns([])
    assert (columns.keys, columns.length, columns.last("a")) == ([], 0, None)
