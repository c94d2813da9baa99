"""Random numbers that are a function of a key and an element's index: no generator, no state, no order.

Initial weights and dropout masks come from here, so they are the same on every layout, under recomputation and after a
resume, and any slice of a matrix can be drawn without drawing the rest. The hash is two rounds of a 32-bit
multiply-xorshift finaliser, carried out in int64 tensors for masks and in int32 tensors, faster, for weights.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B
# Elements drawn at once. A processor core keeps the temporaries of so many in its second-level cache: of 2^22 they
# are mapped anew each time, which costs ten times as much. A GPU wants fewer and larger kernels.
_CPU_CHUNK = 1 << 16
_GPU_CHUNK = 1 << 24

_are_drawn: ContextVar[bool] = ContextVar("are_drawn", default=True)


@contextlib.contextmanager
def without_initial_values() -> Iterator[None]:
    """Leave weights undrawn, for a model whose weights are all read from a checkpoint.

    They are NaN until then: one that the checkpoint did not replace cannot be trained.
    """
    token = _are_drawn.set(False)
    try:
        yield
    finally:
        _are_drawn.reset(token)


def key_of(*path: str | int) -> tuple[int, int]:
    """Hash what the numbers are for, such as (seed, "layers.3.mlp.dense_out.weight"), into two 32-bit words."""
    digest = hashlib.blake2b(repr(path).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def mix(words: Tensor) -> Tensor:
    """Scramble 32-bit words held in an int64 tensor."""
    words = (words ^ (words >> 16)) * _FIRST & _WORD
    words = (words ^ (words >> 15)) * _SECOND & _WORD
    return words ^ (words >> 16)


def random_words(
    key: tuple[int, int], index: Tensor, streams: Sequence[int] = (0,)
) -> list[Tensor]:
    """Draw 32-bit words for every element index.

    Args:
        key: from `key_of`, for what the numbers are used for.
        index: int64, any shape, values in [0, 2^63).
        streams: independent draws for the same index.

    Returns:
        For each stream a tensor of the same shape: whole numbers in [0, 2^32), as float64.
    """
    low = _mix_(index.to(torch.int32).bitwise_xor_(_signed(key[0])))
    high = (index >> 32).to(torch.int32).bitwise_xor_(_signed(key[1]))
    words = [_mix_((high ^ _signed(stream * 0x9E3779B9)).add_(low)) for stream in streams]
    # The highest bit is the sign of an int32: turned over, the number is 2^31 less than without a sign.
    return [word.bitwise_xor_(-(2**31)).double().add_(2.0**31) for word in words]


def normal_(
    local: Tensor,
    std: float,
    key: tuple[int, int],
    full_width: int,
    row_offset: int = 0,
    column_offset: int = 0,
) -> None:
    """Fill a slice of a matrix with N(0, std^2), each element by its place in the whole matrix.

    The numbers are drawn on the slice's own device. Those of a GPU may differ from a CPU's in the last bit, because its
    logarithm and cosine do.

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
    if not _are_drawn.get():
        with torch.no_grad():
            local.fill_(math.nan)
        return
    rows, columns = local.shape
    column_index = torch.arange(column_offset, column_offset + columns, device=local.device)
    step = max((_GPU_CHUNK if local.is_cuda else _CPU_CHUNK) // columns, 1)
    with torch.no_grad():
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            row_index = torch.arange(row_offset + start, row_offset + stop, device=local.device)
            index = row_index[:, None] * full_width + column_index
            local[start:stop] = _normal(key, index).mul_(std).to(local.dtype)


def _normal(key: tuple[int, int], index: Tensor) -> Tensor:
    """Box-Muller in float64."""
    radius_words, angle_words = random_words(key, index, (1, 2))
    radius_draw = radius_words.add_(1).div_(2**32)  # (0, 1]
    angle_draw = angle_words.div_(2**32)
    radius = radius_draw.log_().mul_(-2).sqrt_()
    return radius.mul_(angle_draw.mul_(2 * math.pi).cos_())


def _mix_(words: Tensor) -> Tensor:
    """`mix` in place of words held in an int32 tensor, which takes a third of the time on a CPU.

    Sums and products wrap around, which is what the hash asks for; a shift to the right copies the sign, which is masked.
    """
    words.bitwise_xor_((words >> 16).bitwise_and_(0xFFFF)).mul_(_signed(_FIRST))
    words.bitwise_xor_((words >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(_SECOND))
    return words.bitwise_xor_((words >> 16).bitwise_and_(0xFFFF))


def _signed(word: int) -> int:
    """The int32 of a 32-bit word."""
    return (word + 2**31 & _WORD) - 2**31
