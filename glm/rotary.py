"""Rotary position embedding on explicit position ids. Su et al. 2021; GLM-130B, section 2.2 and appendix B.3.

Rotate-half arrangement over the whole head: pair i is (element i, element i + half). The 2-D option of GLM's smaller and
chat models turns the first half of each head by the position and the second half by the block position.
"""

import torch
from torch import Tensor

from configs.schema import RopeTables


def rotary_tables(
    position_ids: Tensor, size: int, base: float, tables: RopeTables
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles.

    Args:
        position_ids: (batch, seq) int64.
        size: width that is rotated, even.
        base: of the geometric progression of frequencies.
        tables: fp16 carries frequencies, positions and angles in half precision as the trainer of GLM-130B did,
            which is off by up to 1 rad at position 2047; fp32 is exact.

    Returns:
        Two (batch, 1, seq, size) fp32 tensors.
    """
    exponents = torch.arange(0, size, 2, device=position_ids.device, dtype=torch.float32) / size
    frequencies = 1.0 / base**exponents
    if tables is RopeTables.fp16:
        angles = position_ids.half()[..., None] * frequencies.half()
    else:
        angles = position_ids.float()[..., None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos().float(), angles.sin().float()


def rotate(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn queries or keys by their positions.

    Args:
        values: (batch, heads_local, seq, size).
        cosines: (batch, 1, seq, size) fp32.
        sines: (batch, 1, seq, size) fp32.

    Returns:
        Same shape and type as `values`; computed in fp32.
    """
    wide = values.float()
    first, second = wide.chunk(2, dim=-1)
    turned = wide * cosines + torch.cat((-second, first), dim=-1) * sines
    return turned.to(values.dtype)
