"""Unigram models: what a held-out loss is measured against.

A unigram model predicts each token by a fixed probability, context unseen. A network that has learnt nothing but
frequencies reaches its loss; everything below was learnt from context. Of all unigram models the one with the held-out
targets' own frequencies is the best: its loss is their entropy, the minimum for any frequencies counted in training.
"""

from collections.abc import Iterable

import numpy as np

from data_pipeline.packing import Sample


def target_weights(samples: Iterable[Sample], vocab_size: int) -> dict[int, np.ndarray]:
    """Weigh each token as the held-out loss weighs it when it is a target: every row adds 1 in all.

    Returns:
        Per number of an objective (vocab_size,) float64.
    """
    weights: dict[int, np.ndarray] = {}
    for sample in samples:
        targets = sample.targets[sample.loss_mask]
        numbers = sample.objectives[sample.loss_mask]
        for number in np.unique(numbers).tolist():
            own = targets[numbers == number]
            counts = np.bincount(own, minlength=vocab_size) / len(targets)
            weights[number] = weights.get(number, 0.0) + counts
    return weights


def best_unigram_loss(held_out: np.ndarray) -> float:
    """Entropy of the held-out targets, in nats per token: a lower bound of every unigram model's loss on them.

    Args:
        held_out: (vocab,) counts or weights in the held-out rows; nan if all are 0.
    """
    total = held_out.sum()
    if not total:
        return float("nan")
    shares = held_out[held_out > 0] / total
    return float(-(shares * np.log(shares)).sum())


def most_frequent(tokens: np.ndarray, number: int, excluded: Iterable[int] = ()) -> list[int]:
    """The most frequent of `tokens`, special ones left out; the smaller id wins a tie."""
    counts = np.bincount(tokens)
    counts[[token for token in excluded if token < len(counts)]] = -1
    return [int(token) for token in np.argsort(-counts, kind="stable")[:number]]
