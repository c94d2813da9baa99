"""The row order is a bijection of any size, and looks like a random one."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from data_pipeline.permutation import LocalPermutation, Permutation


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_every_number_is_hit_exactly_once(size: int, seed: int):
    permutation = Permutation.of(size, seed, "rows")
    assert sorted(permutation(index) for index in range(size)) == list(range(size))


@given(st.integers(1, 10**13), st.data())
def test_numbers_of_a_huge_range_stay_inside_and_differ(size: int, data: st.DataObject):
    permutation = Permutation.of(size, 1, "rows")
    indices = data.draw(st.sets(st.integers(0, size - 1), max_size=50))
    places = [permutation(index) for index in indices]
    assert len(set(places)) == len(indices)
    assert all(0 <= place < size for place in places)


def test_seed_purpose_and_epoch_choose_the_permutation():
    keys = [(1, "rows", "a", 0), (2, "rows", "a", 0), (1, "rows", "b", 0), (1, "rows", "a", 1)]
    orders = {tuple(map(Permutation.of(100, *key), range(100))) for key in keys}
    assert len(orders) == len(keys)


def test_every_order_of_four_is_equally_likely():
    orders = Counter(tuple(map(Permutation.of(4, seed, "rows"), range(4))) for seed in range(4800))
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > 0.001


def test_neighbours_are_spread_over_the_whole_range():
    size, count = 10**9 + 7, 20_000
    permutation = Permutation.of(size, 5, "rows")
    places = np.array([permutation(index) for index in range(count)])
    assert stats.kstest(places / size, "uniform").pvalue > 0.001
    # Of two independent places, the first is above the second by a uniform distance on the circle.
    assert stats.kstest(np.diff(places) % size / size, "uniform").pvalue > 0.001


@given(st.integers(2, 2000), st.data(), st.integers(0, 2**32))
def test_every_number_is_hit_once_window_after_window(size: int, data: st.DataObject, seed: int):
    window = data.draw(st.integers(1, size - 1))
    permutation = LocalPermutation.of(size, window, seed, "rows")
    places = [permutation(index) for index in range(size)]
    assert sorted(places) == list(range(size))
    for start in range(0, size, window):
        # On the circle, the places of a window are neighbours.
        inside = sorted(places[start : start + window])
        gaps = np.diff([*inside, inside[0] + size])
        assert len(inside) == size or sorted(gaps)[:-1] == [1] * (len(inside) - 1)


def test_windows_and_their_insides_are_in_a_random_order():
    size, window = 10**6, 1000
    permutation = LocalPermutation.of(size, window, 3, "rows")
    places = np.array([permutation(index) for index in range(0, size, 7)])
    shifted = (places - permutation.shift) % size
    visited = shifted[:: window // 7] // window
    assert stats.kstest(visited / (size / window), "uniform").pvalue > 0.001
    assert stats.kstest(np.diff(visited) % 1000 / 1000, "uniform").pvalue > 0.001
    assert stats.kstest(shifted[:140] % window / window, "uniform").pvalue > 0.001
    # Two windows do not visit their places in the same order.
    orders = [[permutation(start + place) % window for place in range(20)] for start in (0, 5000)]
    assert np.unique(np.diff(orders, axis=0) % window).size > 1


def test_local_order_depends_on_seed_purpose_and_epoch():
    keys = [(1, "rows", "a", 0), (2, "rows", "a", 0), (1, "rows", "b", 0), (1, "rows", "a", 1)]
    orders = {tuple(map(LocalPermutation.of(100, 30, *key), range(100))) for key in keys}
    assert len(orders) == len(keys)
