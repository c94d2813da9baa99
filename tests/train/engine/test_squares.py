"""Squares of a gradient are added up in pieces: none is left out, and none is counted twice."""

import pytest
import torch

from configs.computation import SQUARED_IN_CACHE
from train.engine.gradients import sum_of_squares


@pytest.mark.parametrize("size", [0, 1, SQUARED_IN_CACHE, 2 * SQUARED_IN_CACHE + 1])
def test_the_sum_is_that_of_all_elements_in_float64(size: int) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected = float(gradient.double().pow(2).sum())
    assert sum_of_squares(gradient) == pytest.approx(expected, rel=1e-13)
