"""The study's text: a random first-order chain, whose losses are known without any model.

Real text would need far more steps than a study on one core can take before a model knows more than how often each
token occurs. Here a model that has learned nothing but that has the loss `unigram`, and no model is below `floor`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from configs.schema import Config
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=0, gmask=1, sop=2, eop=3, eos=4, pad=5)
FIRST_WORD = 6


@dataclass(frozen=True)
class ChainStream:
    """A corpus in which each token is followed by one of a few others.

    Args:
        size: tokens.
        vocab_size: ids, those of special tokens included.
        seed: of the chain and of the walk.
        successors: how many tokens may follow each; their shares halve from one to the next.
    """

    size: int
    vocab_size: int
    seed: int
    successors: int = 4

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop)."""
        return self._tokens[start:stop]

    @property
    def fingerprint(self) -> str:
        """What makes it this text."""
        return f"chain {self.size} {self.vocab_size} {self.seed} {self.successors}"

    @property
    def unigram(self) -> float:
        """Entropy of a token by itself, in nats: the loss of a model that knows the frequencies alone."""
        shares = np.bincount(self._tokens)[FIRST_WORD:] / self.size
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    @property
    def floor(self) -> float:
        """Entropy of a token if the one before it is known, in nats."""
        return float(-(self._shares * np.log(self._shares)).sum())

    @cached_property
    def _shares(self) -> np.ndarray:
        weights = 0.5 ** np.arange(self.successors)
        return weights / weights.sum()

    @cached_property
    def _tokens(self) -> np.ndarray:
        generator = np.random.default_rng(self.seed)
        words = self.vocab_size - FIRST_WORD
        # Frequencies like those of words, so that some rows of the embedding are rare.
        popularity = 1.0 / np.arange(1, words + 1)
        follow = np.stack(
            [
                generator.choice(words, self.successors, False, popularity / popularity.sum())
                for _ in range(words)
            ]
        )
        choices = generator.choice(self.successors, self.size, p=self._shares)
        tokens = np.empty(self.size, np.int64)
        here = 0
        for place, choice in enumerate(choices):
            tokens[place] = here
            here = follow[here, choice]
        return tokens + FIRST_WORD


def chain(config: Config) -> ChainStream:
    """The text of a configuration: another one for every seed."""
    return ChainStream(200_000, config.model.vocab_size, config.seed)


def dataset_of(config: Config) -> GLMDataset:
    """Its rows."""
    source = Source("chain", chain(config))
    return GLMDataset([source], SPECIAL, config.objective, config.model.seq_length, config.seed)
