"""Activation checkpointing: what a layer's backward pass computes again instead of keeping it.

torch's own function takes the place of DeepSpeed's. It hands the same input tensors to the second pass, so that the plan
of a micro-batch's rows is made once (glm/row_plan.py); it stops as soon as everything is there that the backward pass
needs; and its second pass may take the outputs of named operators from the first. No generator's state is kept:
dropout is arithmetic (glm/dropout.py).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from configs.schema import Recompute

# Operators whose outputs selective recompute keeps, because they cost more time to repeat than memory to keep: matrix
# products, attention, and sums over ranks. Everything else is one pass over memory. torch.compile's kernels are no
# operators: FlexAttention as it is compiled on CUDA is computed again.
_KEPT = (
    *("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"),
    *(
        "aten._scaled_dot_product_flash_attention_for_cpu",
        "aten._scaled_dot_product_flash_attention",
    ),
    *("aten._scaled_dot_product_efficient_attention", "aten._scaled_dot_product_cudnn_attention"),
    "aten._scaled_dot_product_fused_attention_overrideable",
    *("c10d.allreduce_", "c10d._allgather_base_", "c10d._reduce_scatter_base_"),
    *("_c10d_functional.all_reduce", "_c10d_functional.all_gather_into_tensor"),
    *("_c10d_functional.reduce_scatter_tensor", "_c10d_functional.wait_tensor"),
)


def checkpoint_function(recompute: Recompute) -> Callable[..., Any]:
    """The function that a stage runs its layers with: called as function(layer, *inputs).

    Args:
        recompute: selective or full.
    """
    assert recompute is not Recompute.none, "then the layers are called as they are"
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recompute is Recompute.selective:
        # A sum over ranks works in place on a kept product, without a new version of it: what is taken again is the sum,
        # as it was the first time. PyTorch refuses any other change of a kept tensor.
        options["context_fn"] = functools.partial(
            create_selective_checkpoint_contexts, kept_operators()
        )
    return functools.partial(checkpoint, **options)


def kept_operators() -> list[Any]:
    """The operators of `_KEPT` that this PyTorch has, all overloads that return something."""
    found = list[Any]()
    for name in _KEPT:
        library, _, operator = name.partition(".")
        packet = getattr(getattr(torch.ops, library), operator, None)
        if packet is not None:
            found += [getattr(packet, overload) for overload in packet.overloads()]
    # FlexAttention where it is not compiled.
    return [*found, torch.ops.higher_order.flex_attention]
