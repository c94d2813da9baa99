"""Which tokens of a slice are hidden: span lengths, and where the spans lie.

GLM (Du et al. 2022) section 2.1, with the numbers of the GLM-130B run: lengths from Poisson(3) restricted to 1..39
until 15 % of the slice is hidden, placed so that at least one visible token separates two spans.
"""

import math
from functools import lru_cache

import numpy as np

from configs.errors import DataError
from configs.schema import ObjectiveConfig

# A plan that does not fit its window is drawn again; one in 200 needs it at 456 of 512 tokens.
_MAX_REDRAWS = 1000


@lru_cache(maxsize=4096)
def length_distribution(mean: float, max_length: int) -> np.ndarray:
    """Poisson probabilities restricted to 1..max_length: (max_length,) float64, entry l - 1 for length l."""
    lengths = np.arange(1, max_length + 1)
    log_factorials = np.cumsum(np.log(lengths))
    weights = np.exp(lengths * math.log(mean) - log_factorials)
    return weights / weights.sum()


def longest_span(objective: ObjectiveConfig, num_tokens: int) -> int:
    """Longest span of a slice: the configured limit, and never more than half of a short slice."""
    return min(objective.max_span_length, max(num_tokens // 2, 1))


def draw_lengths(
    rng: np.random.Generator, num_tokens: int, objective: ObjectiveConfig
) -> np.ndarray:
    """Draw span lengths until they hide `mask_fraction` of the slice; the last one may overshoot.

    Args:
        rng: source of randomness.
        num_tokens: length of the slice, in tokens.
        objective: mask fraction, mean and maximum span length, single-span probability.

    Returns:
        (num_spans,) int64, in the order drawn.
    """
    probabilities = length_distribution(
        objective.mean_span_length, longest_span(objective, num_tokens)
    )
    cumulative = probabilities.cumsum()
    is_single = rng.random() < objective.single_span_probability
    budget = max(int(objective.mask_fraction * num_tokens), 1)
    count = 1 if is_single else budget  # every span hides at least one token
    drawn = cumulative.searchsorted(rng.random(count) * cumulative[-1], side="right") + 1
    if is_single:
        return drawn
    enough = int(drawn.cumsum().searchsorted(budget)) + 1
    return drawn[:enough]


def draw_plan(
    rng: np.random.Generator, num_tokens: int, room: int, objective: ObjectiveConfig
) -> tuple[np.ndarray, int]:
    """Draw span lengths whose segment fits a window, drawing again as long as it does not.

    A segment has 2 tokens more than its slice for every span: a mask token in the context, and `<sop>` before the
    target.

    Args:
        rng: source of randomness.
        num_tokens: length of the slice.
        room: tokens that the window offers.
        objective: how lengths are drawn.

    Returns:
        (num_spans,) lengths, and how many plans were rejected.

    Raises:
        DataError: the objective hides so much in so many spans that no plan fits.
    """
    for redraws in range(_MAX_REDRAWS):
        lengths = draw_lengths(rng, num_tokens, objective)
        if num_tokens + 2 * len(lengths) <= room:
            return lengths, redraws
    raise DataError(
        f"No plan of spans for {num_tokens} tokens fits a window of {room}. Lower objective.mask_fraction "
        f"({objective.mask_fraction}) or raise objective.mean_span_length ({objective.mean_span_length})."
    )


def place_spans(
    rng: np.random.Generator, num_tokens: int, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place spans of the given lengths, in random order, so that no two touch.

    Drawing sorted starts among the free positions and shifting each by what lies before it gives every arrangement
    with a visible token between neighbours; a span may start the slice or end it.

    Returns:
        starts and ends, each (num_spans,) int64, in text order, half-open.
    """
    lengths = rng.permutation(lengths)
    count = len(lengths)
    free = num_tokens - int(lengths.sum()) - count + 1
    assert free >= 0, "the spans do not fit the slice"
    offsets = np.sort(rng.integers(0, free + 1, size=count))
    before = np.concatenate(([0], lengths.cumsum()[:-1])) + np.arange(count)
    starts = offsets + before
    return starts, starts + lengths
