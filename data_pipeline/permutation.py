"""A keyed permutation of range(n) without a table: a Feistel network with cycle-walking.

`permute(i)` costs the same for a thousand rows and for 10^12, needs no shuffle file, and can be asked in any order.
The network permutes the smallest even number of bits that covers n; values that fall outside are permuted again until
they fall inside, at most four times on average. Black and Rogaway 2002, "Ciphers with arbitrary finite domains".
"""

import hashlib
from dataclasses import dataclass

from data_pipeline.rng import key_for

_ROUNDS = 6
_MASK_32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Permutation:
    """A bijection of range(size), chosen by `keys`."""

    size: int
    keys: tuple[int, ...]

    @classmethod
    def of(cls, size: int, seed: int, *path: str | int) -> "Permutation":
        """Choose the permutation of range(size) that belongs to a purpose."""
        assert size > 0, "nothing to permute"
        digest = hashlib.blake2b(
            key_for(seed, *path).to_bytes(16, "little"), digest_size=4 * _ROUNDS
        ).digest()
        keys = tuple(
            int.from_bytes(digest[4 * number : 4 * number + 4], "little")
            for number in range(_ROUNDS)
        )
        return cls(size, keys)

    def __call__(self, index: int) -> int:
        """Map `index` in range(size) to its place."""
        assert 0 <= index < self.size, f"index {index} is outside range({self.size})"
        value = self._scramble(index)
        while value >= self.size:
            value = self._scramble(value)
        return value

    def _scramble(self, value: int) -> int:
        half_bits = max(((self.size - 1).bit_length() + 1) // 2, 1)
        half_mask = (1 << half_bits) - 1
        left, right = value >> half_bits, value & half_mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right, key) & half_mask)
        return left << half_bits | right


def _mix(value: int, key: int) -> int:
    """32-bit integer hash of (value, key): two multiply-xorshift rounds."""
    value = (value ^ value >> 32 ^ key) & _MASK_32
    value = (value ^ value >> 16) * 0x7FEB352D & _MASK_32
    value = (value ^ value >> 15) * 0x846CA68B & _MASK_32
    return value ^ value >> 16
