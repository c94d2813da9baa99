"""Randomness that is a function of what it is for, never of who asks or when.

`rng_for(seed, "sample", name, epoch, row)` gives the same generator in every process, after every restart. Nothing in
this package uses a global generator. (GLM's first pre-training code seeded by rank, worker and call count: masks
repeated after a restart and changed with the number of workers.)
"""

import hashlib

import numpy as np


def key_for(seed: int, *path: str | int) -> int:
    """Hash a seed and a path of words and numbers into 128 bits."""
    return int.from_bytes(_digest(seed, path), "little")


def rng_for(seed: int, *path: str | int) -> np.random.Generator:
    """Generator for one purpose: Philox, a counter-based generator whose key is the hash of the path."""
    # The key as two words: Philox takes 5 microseconds longer over a large integer.
    key = np.frombuffer(_digest(seed, path), "<u8")
    return np.random.Generator(np.random.Philox(key=key))


def _digest(seed: int, path: tuple[str | int, ...]) -> bytes:
    # int(): an IntEnum or a NumPy integer must give the key of the plain number that it equals.
    plain = [part if isinstance(part, str) else int(part) for part in (seed, *path)]
    return hashlib.blake2b(repr(plain).encode(), digest_size=16).digest()
