"""Lookups: the rows, and their gradients with and without a sum that somebody else keeps."""

from typing import Any

import torch

from glm.lookup import lookup
from tests.helpers.operators import called_operators

ROWS = torch.tensor([2, 0, 2, 2])


def table_of(dtype: torch.dtype) -> Any:
    return torch.arange(8.0).view(4, 2).to(dtype).requires_grad_()


def test_rows_and_their_gradients_are_those_of_pytorch() -> None:
    table = table_of(torch.float32)
    found = lookup(ROWS, table)
    assert found.tolist() == [[4, 5], [0, 1], [4, 5], [4, 5]]
    found.backward(torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]]))
    assert table.grad.tolist() == [[3, 4], [0, 0], [13, 16], [0, 0]]


def test_gradients_are_added_to_the_sum_in_its_own_precision_and_no_table_is_made() -> None:
    table = table_of(torch.bfloat16)
    table.main_grad = torch.ones(4, 2)
    told = []
    table.grad_ready = lambda: told.append(True)
    found = lookup(ROWS, table)
    # 256 + 1 needs 9 bits, one more than bf16 has.
    gradient = torch.tensor([[256.0, 0], [3, 4], [1, 0], [1, 0]], dtype=torch.bfloat16)
    with called_operators() as names:
        found.backward(gradient)
    assert table.main_grad.tolist() == [[4, 5], [1, 1], [259, 1], [1, 1]]
    assert table.grad is None and told == [True]
    assert not [name for name in names if "embedding" in name or "zeros" in name]
