"""Curves in one line, by hand, and the values that are kept for them."""

import math

import pytest

from train.terminal.sparkline import ASCII_LEVELS, Series, sparkline

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([3.0], "▁"),
        ([3.0, 3.0], "▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([8, 0.9, 1.1, -0.0], "█▁▂▁"),
        ([1.0, NAN, 2.0, math.inf], "▁!█!"),
        ([NAN], "!"),
        ([1e308, -1e308], "█▁"),
    ],
)
def test_curves_by_hand(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_curves_without_unicode() -> None:
    assert sparkline(range(8), ASCII_LEVELS) == "_.:-=+*#" and ASCII_LEVELS.isascii()


def test_columns_are_merged_until_they_are_long_enough() -> None:
    series, steps = Series(longest=2, capacity=4), [1.0, 3.0, 5.0, 7.0, 9.0]
    for value in steps[:4]:
        series.add(value)
    assert series.newest(9) == steps[:4]
    assert series.newest(2) == [5.0, 7.0] and series.newest(0) == []
    series.add(9.0)  # no room: columns of two steps, of which the newest is not full
    assert series.newest(9) == [2.0, 6.0, 9.0]
    for value in (11.0, 0.0, 2.0, 20.0, 30.0):  # columns get no longer
        series.add(value)
    assert series.newest(9) == [2.0, 6.0, 10.0, 1.0, 25.0][-4:]


def test_peaks_and_what_is_not_finite_stay_when_columns_are_merged() -> None:
    series = Series(longest=4, capacity=2, keeps_peaks=True)
    for value in (1.0, 8.0, 2.0, 3.0, NAN, 1.0, 5.0, 6.0):
        series.add(value)
    peak, broken = series.newest(9)
    assert peak == 8.0 and math.isnan(broken)


def test_memory_is_bounded() -> None:
    series = Series(longest=10, capacity=16)
    for step in range(5_000):
        series.add(float(step))
    shown = series.newest(1_000)
    assert len(shown) <= 17 and shown == sorted(shown)
    assert shown[-1] > 4_980
