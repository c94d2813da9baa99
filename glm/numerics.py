"""The number of this program's arithmetic: two programs with the same number compute the same bits.

"The same" is meant for the same layout, device type, thread count and library versions. A change that rounds otherwise
raises the number. A checkpoint keeps it, so that a run records where its bits begin to differ.
"""

from typing import Any

NUMERICS = 5
"""
1: everything before checkpoints kept the number.
2: torch's fused AdamW on CPU; layers as fused functions, with biases added in the product or with the residual, and
   attention of short rows in fp32 on CPU.
3: head and loss in chunks of targets, whose products are added up in fp32; sums per objective added up on the device.
4: in bf16, gradients of the embedding's rows added up in fp32 as well where a token occurs several times.
5: on CPU, attention of longer windows segment by segment without a mask; in bf16, and in fp32 on one replica, the
   gradient norm by which is clipped is added up in float64.
"""

ENTRY = "numerics"
"""Under this name a checkpoint keeps the number."""


def numerics_of(extra: dict[str, Any]) -> int:
    """The number that a checkpoint keeps among its extra values; 1 where there is none."""
    stored = extra.get(ENTRY, 1)
    return stored if type(stored) is int else 1
