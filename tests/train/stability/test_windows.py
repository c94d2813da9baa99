"""Windows of recent values: median and MAD by hand, what is kept out, new levels, and changes on purpose."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from train.stability.windows import FIRST, RobustWindows, WindowSettings

NAN = float("nan")


def settings(size: int = 9, **changes: float) -> WindowSettings:
    """Nine values, judged by their own spread once there are nine, and short of persistence after three outliers."""
    chosen = {"limit": 4.0, "provisional": 1.0, "persistence": 3, "floor": 0.01, "least": size}
    return WindowSettings(size=size, **{**chosen, **changes})  # pyright: ignore


def filled(values: Sequence[float], **changes: float) -> RobustWindows:
    """A window with exactly these values."""
    windows = RobustWindows(1, settings(len(values), **changes))
    for value in values:
        observe(windows, value)
    return windows


def observe(windows: RobustWindows, value: float) -> float:
    return float(windows.observe(np.array([value]))[0])


def score(windows: RobustWindows, value: float) -> float:
    return float(windows.scores(np.array([value]))[0])


def usual(windows: RobustWindows) -> float:
    return float(windows.usual[0])


# Nine values around 0.5: deviations 0, .1, .1, .2, .2, .3, .3, .4, .4, so the MAD is .2.
NINE = [0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]


def test_median_and_mad_of_nine_values() -> None:
    windows = filled(NINE)
    assert usual(windows) == pytest.approx(0.5, abs=1e-7)
    assert score(windows, 1.1) == pytest.approx(3.0, abs=1e-5)
    assert score(windows, 0.1) == pytest.approx(-2.0, abs=1e-5)


def test_median_and_mad_of_ten_values() -> None:
    """Between .5 and .6; deviations .05, .05, .15, .15, .25, .25, ...: the fifth and sixth are .25."""
    windows = filled([*NINE, 1.0])
    assert usual(windows) == pytest.approx(0.55, abs=1e-7)
    assert score(windows, 1.3) == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("size", [16, 17, 63, 64])
def test_statistics_are_those_of_numpy(size: int) -> None:
    """Of any values, ties included, also where the median is an end of the values."""
    rng = np.random.default_rng(size)
    rows = np.stack(
        [
            *(rng.normal(size=size), rng.standard_t(2, size)),
            *(rng.integers(0, 3, size), np.zeros(size), np.arange(size) == 0),
        ]
    ).astype(np.float32)
    windows = RobustWindows(len(rows), settings(size, provisional=1e9, floor=0.125))
    for values in rows.T:
        windows.observe(values.astype(np.float64))
    wide = rows.astype(np.float64)
    medians = np.median(wide, axis=1)
    mads = np.median(np.abs(wide - medians[:, None]), axis=1)
    np.testing.assert_array_equal(windows.usual, medians)
    expected = (3.0 - medians) / np.maximum(mads, 0.125)
    np.testing.assert_array_equal(windows.scores(np.full(len(rows), 3.0)), expected)


def test_only_the_newest_values_count() -> None:
    windows = filled(NINE)
    for value in np.add(NINE, 0.25):
        assert observe(windows, value) < 4
    assert usual(windows) == pytest.approx(0.75, abs=1e-6)


def test_a_signal_that_hardly_varies_is_judged_by_the_floor() -> None:
    windows = filled([0.5] * 9)
    assert score(windows, 0.53) == pytest.approx(3.0, abs=1e-5)


def test_outliers_stay_out_and_do_not_hide_the_next() -> None:
    windows = filled(NINE)
    before = windows.state()
    assert observe(windows, 1.31) > 4
    assert windows.state()["values"] == before["values"]
    assert observe(windows, 1.31) > 4
    assert score(windows, 1.29) < 4
    # One that is inside begins the count anew: only three in a row are a new level.
    assert observe(windows, 0.5) == pytest.approx(0.0, abs=1e-5)
    observe(windows, 1.4), observe(windows, 1.5)
    assert usual(windows) == pytest.approx(0.5, abs=1e-6)


def test_a_value_far_below_is_no_outlier() -> None:
    """A loss or a norm that falls is no fault."""
    windows = filled(NINE)
    observe(windows, -50.0)
    assert usual(windows) == pytest.approx(0.4, abs=1e-6)


def test_the_level_is_new_after_persistence() -> None:
    windows = filled(NINE, least=3)
    for value in (2.0, 2.2, 2.6):
        assert observe(windows, value) > 4
    # Deviations .2, 0, .4: the MAD is .2.
    assert usual(windows) == pytest.approx(2.2, abs=1e-6)
    assert score(windows, 3.2) == pytest.approx(5.0, abs=1e-4)


def test_signals_are_judged_apart() -> None:
    windows = RobustWindows(2, settings())
    for value in NINE:
        windows.observe(np.array([value, 10 + 2 * value]))
    assert windows.usual == pytest.approx([0.5, 11.0], abs=1e-5)
    assert windows.observe(np.array([5.0, 11.0]))[0] > 4
    windows.reset([1])
    assert np.isnan(windows.usual[1]) and windows.usual[0] == pytest.approx(0.5, abs=1e-6)


def test_missing_values_change_nothing() -> None:
    windows = filled(NINE)
    before = windows.state()
    for _ in range(20):
        assert np.isnan(observe(windows, NAN))
    assert windows.state() == before


def test_nothing_is_said_of_the_first_values() -> None:
    windows = RobustWindows(1, settings(size=32))
    for _ in range(FIRST):
        assert np.isnan(observe(windows, 7.0))
    assert usual(windows) == 7.0


def test_a_short_window_finds_what_lies_far_above_its_first_values() -> None:
    windows = RobustWindows(1, settings(size=32))
    for value in [0.5] * FIRST:
        observe(windows, value)
    assert observe(windows, 1.49) < 4 < observe(windows, 1.51)


def test_the_lower_one_of_the_first_and_the_last_values_counts() -> None:
    """A signal that falls, as at the start of a run, is compared with where it is; one that rises with where it was."""
    falling, rising = (RobustWindows(1, settings(size=32)) for _ in range(2))
    for step in range(2 * FIRST):
        observe(falling, 5.0 - 0.1 * step)
        observe(rising, 5.0 + 0.1 * step)
    # The last eight of the one are 4.2 to 3.5, the first eight of the other 5 to 5.7; 1.0 above is the border.
    for windows, level in ((falling, 3.85), (rising, 5.35)):
        assert usual(windows) == pytest.approx(level, abs=1e-6)
        assert score(windows, level + 0.99) < 4 < score(windows, level + 1.01)


def test_a_change_begins_anew() -> None:
    windows = filled(NINE)
    windows.reset([0])
    for _ in range(FIRST):
        assert np.isnan(observe(windows, 3.0))
    assert usual(windows) == 3.0


def test_an_explosion_that_fills_a_short_window_is_found() -> None:
    """It begins with the change: the first values are part of it already."""
    windows = RobustWindows(1, settings(32))
    for _ in range(32):
        observe(windows, 0.5)
    windows.reset([0])
    found = [step for step in range(60) if observe(windows, 0.5 + 0.1 * step) > 4]
    assert found and found[0] <= FIRST + 12


def test_the_state_continues_through_json() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_t(2, (200, 3))
    values[rng.random(values.shape) < 0.1] = NAN
    values[120:140] += 60
    undisturbed, expected = RobustWindows(3, settings(16, persistence=10)), []
    for step, each in enumerate(values):
        if step in (50, 53):
            undisturbed.reset([step % 3])
        expected.append(undisturbed.observe(each))
    windows = RobustWindows(3, settings(16, persistence=10))
    for step, each in enumerate(values):
        stored = json.loads(json.dumps(windows.state()))
        windows = RobustWindows(3, settings(16, persistence=10))
        windows.load(stored)
        if step in (50, 53):
            windows.reset([step % 3])
        np.testing.assert_array_equal(windows.observe(each), expected[step])


def damaged() -> list[dict[str, object]]:
    """States that are not of nine values of one signal, or not consistent."""
    state, other = filled(NINE).state(), filled([*NINE, 1.0]).state()
    return [
        other,
        RobustWindows(2, settings()).state(),
        {**state, "num_values": [5]},
        {**state, "num_values": [-1]},
        {**state, "num_outside": [3]},
        {**state, "values": state["values"][4:]},
        {**state, "values": "no base64!"},
        {**state, "outside": None},
        {key: value for key, value in state.items() if key != "outside"},
    ]


@pytest.mark.parametrize("stored", damaged())
def test_a_state_that_does_not_fit_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        RobustWindows(1, settings()).load(stored)
