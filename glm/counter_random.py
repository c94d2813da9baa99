"""Random numbers that are a function of a key and an element's index: no generator, no state, no order.

Initial weights and dropout masks come from here, so they are the same on every layout, under recomputation and after a
resume, and any slice of a matrix can be drawn without drawing the rest. The hash is two rounds of a 32-bit
multiply-xorshift finaliser, carried out in int64 tensors.
"""

import hashlib
import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_CHUNK = 1 << 22


def key_of(*path: str | int) -> tuple[int, int]:
    """Hash what the numbers are for, such as (seed, "layers.3.mlp.dense_out.weight"), into two 32-bit words."""
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def mix(words: Tensor) -> Tensor:
    """Scramble 32-bit words held in an int64 tensor."""
    words = (words ^ (words >> 16)) * 0x7FEB352D & _WORD
    words = (words ^ (words >> 15)) * 0x846CA68B & _WORD
    return words ^ (words >> 16)


def random_words(key: tuple[int, int], index: Tensor, stream: int = 0) -> Tensor:
    """Draw one 32-bit word for every element index.

    Args:
        key: from `key_of`, for what the numbers are used for.
        index: int64, any shape, values in [0, 2^63).
        stream: independent draws for the same index.

    Returns:
        Same shape, int64 in [0, 2^32).
    """
    low = mix((index & _WORD) ^ key[0])
    high = (index >> 32) ^ key[1] ^ (stream * 0x9E3779B9 & _WORD)
    return mix((low + high) & _WORD)


def normal_(
    local: Tensor,
    std: float,
    key: tuple[int, int],
    full_width: int,
    row_offset: int = 0,
    column_offset: int = 0,
) -> None:
    """Fill a slice of a matrix with N(0, std^2), each element by its place in the whole matrix.

    Args:
        local: (rows, columns), changed in place.
        std: standard deviation.
        key: of the matrix.
        full_width: columns of the whole matrix.
        row_offset: row of the whole matrix where the slice begins.
        column_offset: column where it begins.
    """
    if local.is_meta:
        return
    rows, columns = local.shape
    column_index = torch.arange(column_offset, column_offset + columns, device=local.device)
    step = max(_CHUNK // columns, 1)
    with torch.no_grad():
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            row_index = torch.arange(row_offset + start, row_offset + stop, device=local.device)
            index = row_index[:, None] * full_width + column_index
            local[start:stop] = (_normal(key, index) * std).to(local.dtype)


def _normal(key: tuple[int, int], index: Tensor) -> Tensor:
    """Box-Muller in float64."""
    radius_draw = (random_words(key, index, 1).double() + 1) / 2**32  # (0, 1]
    angle_draw = random_words(key, index, 2).double() / 2**32
    return torch.sqrt(-2 * torch.log(radius_draw)) * torch.cos(2 * math.pi * angle_draw)
