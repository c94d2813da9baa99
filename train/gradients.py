"""The embedding's gradient norm, read from the optimizer's buffers between reduction and update.

GLM-130B's instabilities showed in the embedding first (gradient norm above 170 in April 2022), hence a metric of its
own. Each wrapper keeps gradients elsewhere: BF16_Optimizer a whole fp32 copy per rank, ZeRO-1 a shard per replica.
"""

from typing import Any

import torch

from train.topology import Topology

SQUARED_AT_ONCE = 1 << 22


def embedding_sum_of_squares(
    optimizer: Any, weight: torch.nn.Parameter, topology: Topology, loss_scale: float
) -> float:
    """This rank's share of the squared gradient norm; the shares of all ranks of the first stage add up to it.

    Args:
        optimizer: DeepSpeed's wrapper, just before its `step`.
        weight: (vocab_local, hidden) embedding of the first stage.
        topology: this rank's place, to count whole copies once.
        loss_scale: factor that the stored gradients carry.
    """
    if hasattr(optimizer, "averaged_gradients"):
        squares = _sharded(optimizer, weight)
    elif topology.dp_rank > 0:
        squares = 0.0
    else:
        gradient = getattr(weight, "_hp_grad", None)
        gradient = weight.grad if gradient is None else gradient
        squares = 0.0 if gradient is None else sum_of_squares(gradient)
    return squares / loss_scale**2


def _sharded(optimizer: Any, weight: torch.nn.Parameter) -> float:
    """Sum over the part of the flat gradient partition that belongs to `weight`.

    The partition is a list of tensors (per parameter, padding between them, or one compact buffer), so it is walked
    by flat offset rather than by parameter.
    """
    mapping: Any = vars(weight)["_hp_mapping"]
    if mapping is None:  # this replica's shard holds nothing of it
        return 0.0
    address = mapping.hp_fragment_address
    first, last = address.start, address.start + address.numel
    squares, offset = 0.0, 0
    for gradient in optimizer.averaged_gradients[mapping.param_group_index] or []:
        start = max(first - offset, 0)
        stop = min(last - offset, gradient.numel())
        if start < stop:
            squares += sum_of_squares(gradient.reshape(-1)[start:stop])
        offset += gradient.numel()
    return squares


def sum_of_squares(gradient: torch.Tensor) -> float:
    """Squared norm, in float64."""
    # In parts: two float64 copies of GLM-130B's embedding shard would be 7 GB.
    parts = gradient.detach().reshape(-1).split(SQUARED_AT_ONCE)
    return float(sum(part.double().pow(2).sum() for part in parts))
