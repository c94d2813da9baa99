"""Unigram losses by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.unigram import best_unigram_loss, most_frequent, unigram_loss

COUNTS = st.lists(st.integers(0, 50), min_size=5, max_size=5).map(np.array)


def test_best_loss_is_the_entropy_of_the_held_out_targets():
    assert best_unigram_loss(np.array([2, 1, 1, 0])) == pytest.approx(1.5 * math.log(2))
    assert best_unigram_loss(np.array([0, 9])) == 0
    assert math.isnan(best_unigram_loss(np.array([0, 0])))


def test_fitted_loss_uses_training_frequencies_with_one_added():
    # Four tokens seen 3, 1, 0 and 0 times have probabilities of 4, 2, 1 and 1 eighths.
    loss = unigram_loss(np.array([3, 1, 0, 0]), np.array([1, 0, 1, 0]))
    assert loss == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert math.isnan(unigram_loss(np.array([1, 1]), np.array([0, 0])))


@given(COUNTS, COUNTS.filter(np.any))
def test_no_fitted_model_beats_the_best_one(fitted_on: np.ndarray, held_out: np.ndarray):
    assert unigram_loss(fitted_on, held_out) >= best_unigram_loss(held_out) - 1e-12


def test_most_frequent_tokens_are_summed_and_ties_go_to_the_smaller_id():
    counts = [np.array([5, 1, 0, 9]), np.array([0, 4, 5, 9])]
    assert most_frequent(counts, 3) == [3, 0, 1]
    assert most_frequent(counts, 3, excluded=[3]) == [0, 1, 2]
