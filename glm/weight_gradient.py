"""The gradient of a weight, added into a wider sum that somebody else keeps.

In bf16 the gradients of the micro-batches are added up in fp32 (train/engine/accumulate.py). A linear layer that returns
its weight's gradient to autograd has it written in bf16, read, and added: 10 bytes a parameter beside the product's own.
So a weight may carry three attributes:

    main_grad    fp32 tensor of the weight's shape: the sum, kept from micro-batch to micro-batch
    has_grad     called without arguments: whether anything was added since the sum was zero
    grad_ready   called without arguments after the sum has grown

A backward pass then adds its product there and returns None for the weight. On CUDA the product itself adds in fp32
(`out_dtype`), where PyTorch and the device have it. Elsewhere it is rounded to the weight's type first, as autograd does.

A backward pass must take the weight from `ctx.weight`, not from `ctx.saved_tensors`: what is saved under activation
checkpointing comes back as another tensor, without these attributes.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Elements of a product that are rounded before they are added: 8 MiB, and 16 MiB where they are widened.
_ROUNDED_AT_ONCE = 1 << 22

MAIN_GRAD = "main_grad"
HAS_GRAD = "has_grad"
GRAD_READY = "grad_ready"


def add_weight_gradient(weight: Tensor, grad_output: Tensor, inputs: Tensor) -> Tensor | None:
    """Compute grad_output^T @ inputs, the gradient of a linear layer's weight.

    Args:
        weight: (outputs, inputs), perhaps with a `main_grad`.
        grad_output: (rows, outputs).
        inputs: (rows, inputs).

    Returns:
        The gradient, in the type of the operands; None if it was added into the weight's `main_grad`.
    """
    main_grad = main_grad_of(weight)
    if main_grad is None:
        return grad_output.t() @ inputs
    has_grad: Callable[[], bool] | None = getattr(weight, HAS_GRAD, None)
    is_first = has_grad is not None and not has_grad()
    add_product(main_grad, grad_output.t(), inputs, beta=0.0 if is_first else 1.0)
    tell_ready(weight)
    return None


def main_grad_of(weight: Tensor) -> Tensor | None:
    """The fp32 sum that gradients of `weight` are added into; None: autograd adds them up."""
    return getattr(weight, MAIN_GRAD, None)


def tell_ready(weight: Tensor) -> None:
    """Tell whoever keeps the sum that it has grown."""
    ready: Callable[[], None] | None = getattr(weight, GRAD_READY, None)
    if ready is not None:
        ready()


def add_product(
    total: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0, beta: float = 1.0
) -> None:
    """Total = beta * total + alpha * left @ right, in place.

    Args:
        total: (m, n), contiguous.
        left: (m, k).
        right: (k, n), in the type of `left`. If `total` is wider, the product is kept that wide where the device can
            do so, and otherwise rounded to the operands' type before it is added.
        alpha: factor of the product.
        beta: 1 or 0; 0: what `total` held is not read.
    """
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=beta, alpha=alpha)
    elif has_wide_product(left.device, left.dtype):
        wide: Any = torch.addmm
        wide(total, left, right, out_dtype=total.dtype, beta=beta, alpha=alpha, out=total)
    else:
        for part in _blocks(total):
            product = left[part] @ right
            if beta == 0.0 and alpha == 1.0:
                total[part].copy_(product)
            elif beta == 0.0:
                torch.mul(product, alpha, out=total[part])
            else:
                total[part].add_(product, alpha=alpha)


def _blocks(total: Tensor) -> Iterator[slice]:
    """Rows whose product is made at once: on CPU PyTorch widens a whole product in memory before it is added."""
    rows, width = total.shape
    size = max(_ROUNDED_AT_ONCE // width, 1) if total.device.type == "cpu" else rows
    return (slice(start, start + size) for start in range(0, rows, size))


@lru_cache(maxsize=8)
def has_wide_product(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch adds a product of `dtype` into an fp32 matrix on a device, tried once on a small one."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    wide: Any = torch.addmm
    ones = torch.ones(16, 16, dtype=dtype, device=device)
    # 257 needs 9 bits: a product that was rounded to bf16 on its way would be 256.
    total = torch.full((16, 16), 241.0, device=device)
    try:
        wide(total, ones, ones, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):  # an older PyTorch, or a device without it
        return False
    return bool((total == 257.0).all())
