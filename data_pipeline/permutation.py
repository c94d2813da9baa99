"""A keyed permutation of range(n) without a table: a Feistel network with cycle-walking.

`permutation(i)` costs the same for a thousand rows and for 10^12, needs no shuffle file, and can be asked in any order.
The network permutes the smallest even number of bits that covers n; values that fall outside are permuted again until
they fall inside, fewer than four times on average. Black and Rogaway 2002, "Ciphers with arbitrary finite domains".
"""

from dataclasses import dataclass

from data_pipeline.rng import key_for

_ROUNDS = 8
_MASK_32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Permutation:
    """A bijection of range(size), chosen by one 32-bit key per round."""

    size: int
    keys: tuple[int, ...]

    @classmethod
    def of(cls, size: int, seed: int, *path: str | int) -> "Permutation":
        """Choose the permutation of range(size) that belongs to a purpose."""
        assert size > 0, "nothing to permute"
        return cls(size, tuple(key_for(seed, *path, turn) & _MASK_32 for turn in range(_ROUNDS)))

    def __call__(self, index: int) -> int:
        """Map `index` in range(size) to its place."""
        assert 0 <= index < self.size, f"index {index} is outside range({self.size})"
        value = self._scramble(index)
        while value >= self.size:
            value = self._scramble(value)
        return value

    def _scramble(self, value: int) -> int:
        """Permute the numbers of 2 x half_bits bits: each round xors one half with a hash of the other."""
        half_bits = max(((self.size - 1).bit_length() + 1) // 2, 1)
        half_mask = (1 << half_bits) - 1
        left, right = value >> half_bits, value & half_mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right, key) & half_mask)
        return left << half_bits | right


@dataclass(frozen=True)
class LocalPermutation:
    """A bijection of range(size) that stays in one window of neighbours until all of it was visited.

    The windows follow each other in a shuffled order, and so do the places inside each. They begin at a keyed place, so
    that their borders are elsewhere in another epoch; the one that is left over when `window` does not divide `size` is
    the last.
    """

    size: int
    window: int
    shift: int
    windows: Permutation
    """Order of the whole windows."""
    inside: Permutation
    """Order inside a whole window, the same for each up to a keyed rotation."""
    rest: Permutation
    """Order inside the last window."""
    key: int

    @classmethod
    def of(cls, size: int, window: int, seed: int, *path: str | int) -> "LocalPermutation":
        """Choose the permutation of range(size) that belongs to a purpose; `window` must lie below `size`."""
        assert 0 < window < size, "a window of everything is a Permutation"
        rest = size % window
        return cls(
            size,
            window,
            key_for(seed, *path, "shift") % size,
            Permutation.of(size // window, seed, *path, "windows"),
            Permutation.of(window, seed, *path, "inside"),
            Permutation.of(max(rest, 1), seed, *path, "rest"),
            key_for(seed, *path, "rotation") & _MASK_32,
        )

    def __call__(self, index: int) -> int:
        """Map `index` in range(size) to its place."""
        assert 0 <= index < self.size, f"index {index} is outside range({self.size})"
        number, within = divmod(index, self.window)
        if number == self.windows.size:
            place = number * self.window + self.rest(within)
        else:
            chosen = self.windows(number)
            rotated = (within + _mix(chosen, self.key)) % self.window
            place = chosen * self.window + self.inside(rotated)
        return (place + self.shift) % self.size


def _mix(value: int, key: int) -> int:
    """Hash (value, key) to 32 bits: two rounds of multiply and xor-shift."""
    value = (value ^ (value >> 32) ^ key) & _MASK_32
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _MASK_32
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _MASK_32
    return value ^ (value >> 16)
