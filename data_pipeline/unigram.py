"""The best unigram model: what a held-out loss is measured against.

It predicts each token by how often it was a target in training, context unseen. A model that has learnt nothing but
frequencies reaches its loss; everything below was learnt from context.
"""

from collections.abc import Iterable

import numpy as np

from data_pipeline.objective import Objective
from data_pipeline.packing import Sample


def count_targets(samples: Iterable[Sample], vocab_size: int) -> dict[Objective, np.ndarray]:
    """Count how often each token is a target, per objective: (vocab_size,) int64 each."""
    counts: dict[Objective, np.ndarray] = {}
    for sample in samples:
        seen = np.bincount(sample.targets[sample.loss_mask], minlength=vocab_size)
        counts[sample.objective] = counts.get(sample.objective, 0) + seen
    return counts


def unigram_loss(fitted_on: np.ndarray, held_out: np.ndarray) -> float:
    """Cross-entropy of held-out targets under add-one smoothed training frequencies, in nats per token.

    Args:
        fitted_on: (vocab,) counts in training.
        held_out: (vocab,) counts in the held-out rows.
    """
    log_probabilities = np.log(fitted_on + 1.0) - np.log(fitted_on.sum() + len(fitted_on))
    return float(-(held_out * log_probabilities).sum() / held_out.sum())


def most_frequent(counts: Iterable[np.ndarray], number: int, excluded: Iterable[int]) -> list[int]:
    """The most frequent tokens, special ones left out."""
    total = np.sum(list(counts), axis=0)
    total[list(excluded)] = -1
    return [int(token) for token in np.argsort(-total, kind="stable")[:number]]
