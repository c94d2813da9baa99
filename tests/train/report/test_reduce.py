"""Curves are reduced without losing an extreme, a gap or what happened around an event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.report.reduce import AROUND, MAX_POINTS, reduced


def test_a_short_curve_stays_as_it_is() -> None:
    x = np.arange(MAX_POINTS, dtype=float)
    found = reduced(x, np.sin(x))
    assert np.array_equal(found.x, x) and np.array_equal(found.y, np.sin(x))
    assert found.is_whole and not len(found.mean_x)


@pytest.mark.parametrize("rows", [MAX_POINTS + 1, 10_000, 200_000])
def test_a_long_curve_keeps_its_extremes_in_few_points(rows: int) -> None:
    x = np.arange(rows, dtype=float) * 8
    y = np.sin(x / 500)
    spikes = np.random.default_rng(0).choice(rows, 40, replace=False)
    y[spikes[:20]] = 100 + np.arange(20)
    y[spikes[20:]] = -100 - np.arange(20)
    found = reduced(x, y)
    assert len(found.x) <= MAX_POINTS < found.total == rows
    assert (found.x[0], found.x[-1]) == (x[0], x[-1])
    assert np.all(np.diff(found.x) > 0)
    # Every point is one of the curve, and the extremes are among them.
    assert np.array_equal(y[(found.x / 8).astype(int)], found.y)
    assert (found.y.min(), found.y.max()) == (y.min(), y.max())


def test_each_bucket_keeps_its_own_extremes() -> None:
    rows = (MAX_POINTS // 2 - 1) * 10
    y = np.tile([0, 3, -5, 1, 2, 8, -1, 4, 5, 6], MAX_POINTS // 2 - 1).astype(float)
    found = reduced(np.arange(rows, dtype=float), y)
    inner = found.y[1:-1]
    assert np.count_nonzero(inner == 8) == np.count_nonzero(inner == -5) == MAX_POINTS // 2 - 1
    assert len(inner) == MAX_POINTS - 2


def test_rows_around_events_stay() -> None:
    x = np.arange(1, 50_001, dtype=float) * 8
    y = np.random.default_rng(1).normal(size=len(x))
    events = [8.0 * 20_000, 8.0 * 30_000 + 3, 0.0, 1e9]
    found = reduced(x, y, events)
    for row in (19_999, 30_000):
        near = x[row - AROUND : row + AROUND + 1]
        assert np.isin(near, found.x).all()
    assert np.isin(x[: AROUND + 1], found.x).all() and np.isin(x[-AROUND:], found.x).all()
    assert len(found.x) <= MAX_POINTS + len(events) * (2 * AROUND + 1)


def test_values_that_are_not_finite_are_gaps() -> None:
    x = np.arange(20_000, dtype=float)
    y = np.ones(20_000)
    y[7_000], y[9_000:11_000], y[12_000] = np.inf, np.nan, -np.inf
    found = reduced(x, y)
    assert len(found.x) <= MAX_POINTS
    gaps = found.x[np.isnan(found.y)]
    assert {7_000.0, 12_000.0} <= set(gaps.tolist())
    assert np.any((gaps >= 9_000) & (gaps < 11_000))
    assert not np.isinf(found.y).any()
    assert np.all(found.y[~np.isnan(found.y)] == 1)


def test_a_curve_without_a_finite_value_is_all_gap() -> None:
    found = reduced(np.arange(9_000, dtype=float), np.full(9_000, np.nan))
    assert len(found.x) <= MAX_POINTS and np.isnan(found.y).all() and np.isnan(found.mean_y).all()


def test_means_are_those_of_all_rows() -> None:
    rows = 40_000
    x, y = np.arange(rows, dtype=float), np.random.default_rng(2).normal(3, 1, rows)
    found = reduced(x, y)
    lengths = np.diff(np.concatenate([[-1], found.mean_x]))
    assert found.mean_x[-1] == x[-1]
    assert np.sum(found.mean_y * lengths) / rows == pytest.approx(y.mean())
    begin, end = int(found.mean_x[10]) + 1, int(found.mean_x[11]) + 1
    assert found.mean_y[11] == pytest.approx(y[begin:end].mean())


def test_curves_of_the_same_rows_have_their_means_at_the_same_places() -> None:
    x = np.arange(20_000, dtype=float)
    whole, broken = np.ones(20_000), np.ones(20_000)
    broken[5_000:5_020] = np.nan
    found = [reduced(x, y) for y in (whole, broken)]
    assert np.array_equal(found[0].mean_x, found[1].mean_x) and len(found[0].mean_x) == 2_000
    assert np.isnan(found[1].mean_y).sum() == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30_000), st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_any_curve_keeps_its_extremes_and_its_ends(rows: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    x = np.cumsum(random.integers(1, 9, rows)).astype(float)
    y = random.normal(size=rows)
    y[random.random(rows) < share] = np.nan
    found = reduced(x, y)
    assert len(found.x) <= MAX_POINTS
    assert (found.x[0], found.x[-1]) == (x[0], x[-1])
    known, kept = y[np.isfinite(y)], found.y[np.isfinite(found.y)]
    assert len(known) == 0 or (kept.min(), kept.max()) == (known.min(), known.max())
