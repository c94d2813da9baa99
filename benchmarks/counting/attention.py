"""FlexAttention as one kernel forward and one backward: on meta tensors it cannot run, so it is counted by its signature.

Forward it reads queries, keys and values, and writes the mixed values and a log-sum in fp32 per query; backward it
reads all of these and the output's gradient, and writes three gradients. Operations are those of a mask that allows
everything: two products forward, and five backward, for the scores are computed again.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import glm.attention_paths
from benchmarks.counting.counter import OperatorCounter
from benchmarks.counting.tally import Work
from glm.fused import traffic

# Products of (seq x head) and (seq x seq) tensors.
_FORWARD_PRODUCTS, _BACKWARD_PRODUCTS = 2, 5


@contextlib.contextmanager
def flex_counted_by(counter: OperatorCounter) -> Iterator[None]:
    """Put the counted kernel in FlexAttention's place."""

    class Flex(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            # Like the kernel's, the output lies in memory as the queries do.
            mixed = torch.empty_like(q)
            log_sums = q.new_empty(q.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(q, k, v, mixed, log_sums)
            flops = _FORWARD_PRODUCTS * _product_flops(q)
            work = Work(1, traffic([q, k, v]), traffic([mixed, log_sums]), flops)
            counter.add("attention", "flex forward", work)
            return mixed

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            saved = ctx.saved_tensors
            found = tuple(torch.empty_like(tensor) for tensor in saved[:3])
            flops = _BACKWARD_PRODUCTS * _product_flops(saved[0])
            work = Work(1, traffic([*saved, *gradients]), traffic(found), flops)
            counter.add("attention", "flex backward", work)
            return found

    def flex(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        return Flex.apply(q, k, v)

    # The name under which glm/attention_paths.py calls it where there is no compiler.
    with mock.patch.object(glm.attention_paths, "_flex_attention", flex):
        yield


def _product_flops(q: Tensor) -> int:
    """Of one product over all pairs of tokens."""
    return 2 * q.numel() * q.shape[-2]
