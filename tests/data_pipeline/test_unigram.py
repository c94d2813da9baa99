"""Unigram losses against hand-computed values."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.objectives import BUILT_IN, Objective
from data_pipeline.packing import Sample
from data_pipeline.unigram import best_unigram_loss, most_frequent, target_weights

WEIGHTS = st.lists(st.integers(0, 50), min_size=5, max_size=5).map(np.array)


def test_best_loss_is_the_entropy_of_the_held_out_targets():
    assert best_unigram_loss(np.array([2, 1, 1, 0])) == pytest.approx(1.5 * math.log(2))
    assert best_unigram_loss(np.array([0, 9])) == 0
    assert math.isnan(best_unigram_loss(np.array([0, 0])))


@given(WEIGHTS, WEIGHTS.filter(np.any))
def test_no_other_unigram_model_beats_the_best_one(fitted_on: np.ndarray, held_out: np.ndarray):
    probabilities = (fitted_on + 1) / (fitted_on + 1).sum()
    loss = -(held_out * np.log(probabilities)).sum() / held_out.sum()
    assert loss >= best_unigram_loss(held_out) - 1e-12


def test_every_row_weighs_the_same_whatever_its_number_of_targets():
    def sample(objective: Objective, targets: list[int]) -> Sample:
        row = np.array([*targets, 7])
        return cast(
            Sample,
            SimpleNamespace(
                objectives=np.full(len(row), BUILT_IN.index(objective)),
                targets=row,
                loss_mask=np.arange(len(row)) < len(targets),
            ),
        )

    rows = [
        sample(Objective.MASK, [1]),
        sample(Objective.MASK, [2, 2, 3, 2]),
        sample(Objective.GMASK, [0, 0]),
    ]
    weights = target_weights(rows, 8)
    np.testing.assert_allclose(weights[0], [0, 1, 0.75, 0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(weights[1], [1, 0, 0, 0, 0, 0, 0, 0])


def test_ties_of_the_most_frequent_go_to_the_smaller_id():
    tokens = np.array([3, 3, 1, 2, 0, 0, 0])
    assert most_frequent(tokens, 3) == [0, 3, 1]
    assert most_frequent(tokens, 2, excluded=[0, 9]) == [3, 1]
