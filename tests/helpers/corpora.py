"""Small corpora in memory."""

import numpy as np

from tests.helpers.tiny import FIRST_WORD


class MemoryStream:
    """Tokens that repeat a few phrases, so that a small model learns quickly."""

    def __init__(self, num_tokens: int, vocab_size: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        phrases = rng.integers(FIRST_WORD, vocab_size, size=(8, 12))
        order = rng.integers(0, len(phrases), size=num_tokens // 12 + 1)
        self.tokens = phrases[order].reshape(-1)[:num_tokens]

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop]

    @property
    def fingerprint(self) -> str:
        return str(hash(self.tokens.tobytes()))
