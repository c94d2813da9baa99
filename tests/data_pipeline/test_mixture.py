"""Every source stays within one sample of its share, at any prefix."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixture import LONGEST_CYCLE, Mixture, cycle_counts

WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any)


def largest_deviation(mixture: Mixture, shares: list[Fraction], length: int) -> float:
    """Largest distance of any prefix from shares x prefix length, in samples."""
    taken = np.zeros((length + 1, len(shares)))
    for index in range(length):
        taken[index + 1] = taken[index]
        taken[index + 1, mixture.locate(index)[0]] += 1
    wanted = np.arange(length + 1)[:, None] * np.array([float(share) for share in shares])
    return float(np.abs(taken - wanted).max())


@given(WEIGHTS)
def test_every_prefix_is_within_one_sample_of_the_weights(weights: list[int]):
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    assert largest_deviation(Mixture(weights), shares, 1500) < 1


@given(WEIGHTS)
def test_samples_of_a_source_are_counted_without_gaps(weights: list[int]):
    mixture = Mixture(weights)
    following = [0] * len(weights)
    for index in range(1500):
        source, within = mixture.locate(index)
        assert within == following[source]
        following[source] += 1


def test_one_large_and_many_small_sources_keep_within_one_sample():
    # Serving whoever is furthest behind, or in the order of ideal times, drifts by several samples here.
    weights = [100] + [1] * 100
    shares = [Fraction(weight, 200) for weight in weights]
    assert largest_deviation(Mixture(weights), shares, 2000) < 1


def test_typed_decimals_are_kept_exactly():
    assert cycle_counts([0.3, 0.7]) == (3, 7)
    assert cycle_counts([0.95 * 0.5, 0.95 * 0.5, 0.05]) == (19, 19, 2)
    assert cycle_counts([2.0, 4.0, 0.0]) == (1, 2, 0)


def test_weights_by_size_are_rounded_and_no_source_is_forgotten():
    sizes = [123_456_789, 7_654_321, 3, 0]
    counts = cycle_counts(sizes)
    assert sum(counts) == LONGEST_CYCLE
    assert counts[2] == 1
    assert counts[3] == 0
    for size, count in zip(sizes, counts, strict=True):
        assert abs(count / LONGEST_CYCLE - size / sum(sizes)) <= 1 / LONGEST_CYCLE
    mixture = Mixture(sizes)
    shares = [Fraction(count, LONGEST_CYCLE) for count in counts]
    assert largest_deviation(mixture, shares, 3000) < 1
    assert mixture.locate(LONGEST_CYCLE) == (mixture.locate(0)[0], counts[mixture.locate(0)[0]])


@given(st.lists(st.integers(1, 10**12), min_size=2, max_size=40))
@settings(max_examples=30)
def test_rounded_counts_fill_the_cycle(sizes: list[int]):
    counts = cycle_counts(sizes)
    assert min(counts) >= 1
    assert sum(counts) == LONGEST_CYCLE or [c * sum(sizes) for c in counts] == [
        size * sum(counts) for size in sizes
    ]


def test_source_with_weight_zero_is_never_served():
    mixture = Mixture([0, 1, 2])
    assert {mixture.locate(index)[0] for index in range(100)} == {1, 2}


def test_single_source_is_passed_through():
    assert [Mixture([5.5]).locate(index) for index in range(3)] == [(0, 0), (0, 1), (0, 2)]


def test_no_weight_at_all_is_a_programming_error():
    with pytest.raises(AssertionError, match="above 0"):
        Mixture([0.0, 0.0])
