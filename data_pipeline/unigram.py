"""Unigram models: what a held-out loss is measured against.

A unigram model predicts each token by a fixed probability, context unseen. A network that has learnt nothing but
frequencies reaches its loss; everything below was learnt from context. Of all unigram models the one with the held-out
targets' own frequencies is the best: its loss is their entropy, which no frequencies counted in training can beat.
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


def best_unigram_loss(held_out: np.ndarray) -> float:
    """Entropy of the held-out targets, in nats per token: a lower bound of every unigram model's loss on them.

    Args:
        held_out: (vocab,) counts in the held-out rows; nan if all are 0.
    """
    total = held_out.sum()
    if not total:
        return float("nan")
    shares = held_out[held_out > 0] / total
    return float(-(shares * np.log(shares)).sum())


def unigram_loss(fitted_on: np.ndarray, held_out: np.ndarray) -> float:
    """Cross-entropy of held-out targets under add-one smoothed training frequencies, in nats per token.

    Args:
        fitted_on: (vocab,) counts in training.
        held_out: (vocab,) counts in the held-out rows; nan if all are 0.
    """
    total = held_out.sum()
    if not total:
        return float("nan")
    log_probabilities = np.log(fitted_on + 1.0) - np.log(fitted_on.sum() + len(fitted_on))
    return float(-(held_out * log_probabilities).sum() / total)


def most_frequent(
    counts: Iterable[np.ndarray], number: int, excluded: Iterable[int] = ()
) -> list[int]:
    """The tokens with the largest summed counts, special ones left out; the smaller id wins a tie."""
    total = np.sum(list(counts), axis=0)
    total[list(excluded)] = -1
    return [int(token) for token in np.argsort(-total, kind="stable")[:number]]
