"""Which tokens of a slice are hidden: span lengths, and where the spans lie.

GLM (Du et al. 2022) section 2.1, with the numbers of the GLM-130B run: lengths from Poisson(3) restricted to 1..39
until 15 % of the slice is hidden, placed so that at least one visible token separates two spans.
"""

# pyright: basic
# NumPy's index arithmetic has no useful types in strict mode.
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from configs.errors import ConfigError
from configs.schema import ObjectiveConfig
from data_pipeline.rng import rng_for

_MAX_REDRAWS = 1000
_TRIALS = 200


@lru_cache(maxsize=4096)
def length_distribution(mean: float, max_length: int) -> np.ndarray:
    """Poisson probabilities restricted to 1..max_length: (max_length,) float64, entry l - 1 for length l."""
    lengths = np.arange(1, max_length + 1)
    log_weights = lengths * math.log(mean) - np.log(lengths).cumsum()  # log(mean^l / l!)
    weights = np.exp(log_weights - log_weights.max())
    probabilities = weights / weights.sum()
    probabilities.flags.writeable = False  # shared by every caller
    return probabilities


@lru_cache(maxsize=4096)
def _cumulative_distribution(mean: float, max_length: int) -> np.ndarray:
    return length_distribution(mean, max_length).cumsum()


def longest_span(objective: ObjectiveConfig, num_tokens: int) -> int:
    """Longest span of a slice: the configured limit, and never more than half of a short slice."""
    return min(objective.max_span_length, max(num_tokens // 2, 1))


def hidden_budget(objective: ObjectiveConfig, num_tokens: int) -> int:
    """How many tokens of a slice the spans must hide at least."""
    return max(int(objective.mask_fraction * num_tokens), 1)


def draw_lengths(
    rng: np.random.Generator, num_tokens: int, objective: ObjectiveConfig, is_single: bool
) -> np.ndarray:
    """Draw span lengths until they reach the budget; the last one may overshoot it.

    Args:
        rng: source of randomness.
        num_tokens: length of the slice, in tokens.
        objective: mask fraction, mean and maximum span length.
        is_single: draw one span only, whatever the budget.

    Returns:
        (num_spans,) int64, in the order drawn.
    """
    longest = longest_span(objective, num_tokens)
    cumulative = _cumulative_distribution(objective.mean_span_length, longest)
    budget = hidden_budget(objective, num_tokens)
    count = 1 if is_single else budget  # enough: every span hides at least one token
    draws = rng.random(count) * cumulative[-1]
    lengths = cumulative.searchsorted(draws, side="right") + 1
    if is_single:
        return lengths
    return lengths[: int(lengths.cumsum().searchsorted(budget)) + 1]


def draw_plan(
    rng: np.random.Generator,
    slice_lengths: Sequence[int],
    room: int | None,
    objective: ObjectiveConfig,
) -> tuple[list[np.ndarray], int]:
    """Draw the span lengths of all slices that share a window, again as long as their segments do not fit it.

    A segment has 2 tokens more than its slice for every span: a mask token in the context, and `<sop>` before the
    target. (`<eop>` is only ever predicted.) Which slices have a single span is drawn once, so that rejected plans do
    not make such slices more frequent.

    Args:
        rng: source of randomness.
        slice_lengths: stored tokens of each slice of the window, at least 1 each.
        room: tokens that the window offers; None: no limit, as the original, which truncates.
        objective: how lengths are drawn.

    Returns:
        (num_spans,) lengths for each slice, and how many plans were rejected.

    Raises:
        ConfigError: the objective hides so much, or in so many spans, that no plan fits.
    """
    is_single = (rng.random(len(slice_lengths)) < objective.single_span_probability).tolist()
    slices = list(zip(slice_lengths, is_single, strict=True))
    num_tokens = sum(slice_lengths)
    for redraws in range(_MAX_REDRAWS):
        plan = [draw_lengths(rng, length, objective, single) for length, single in slices]
        if room is not None and num_tokens + 2 * sum(map(len, plan)) > room:
            continue
        if all(map(_is_placeable, plan, slice_lengths)):
            return plan, redraws
    raise ConfigError([_does_not_fit(sum(slice_lengths), room, objective)])


def _is_placeable(lengths: np.ndarray, num_tokens: int) -> bool:
    return int(lengths.sum()) + len(lengths) - 1 <= num_tokens


def check_plans_fit(slice_length: int, room: int | None, objective: ObjectiveConfig) -> None:
    """Find out at the start, not in the middle of a run, that plans hardly ever fit.

    Raises:
        ConfigError: fewer than half of the plans fit; those that do would have other lengths than were asked for.
    """
    multiple = replace(objective, single_span_probability=0.0)
    rng = rng_for(0, "do plans fit")
    redraws = sum(draw_plan(rng, [slice_length], room, multiple)[1] for _ in range(_TRIALS))
    if redraws > _TRIALS:
        raise ConfigError([_does_not_fit(slice_length, room, objective)])


def _does_not_fit(num_tokens: int, room: int | None, objective: ObjectiveConfig) -> str:
    problem = (
        f"Spans of {num_tokens} tokens hardly ever leave a visible token between them"
        if room is None
        else f"Spans of {num_tokens} tokens hardly ever fit a window of {room}"
    )
    return (
        f"{problem}. Lower objective.mask_fraction ({objective.mask_fraction}), as GLM's 0.15, or raise "
        f"objective.mean_span_length ({objective.mean_span_length})."
    )


def place_spans(
    rng: np.random.Generator, slice_lengths: Sequence[int], plan: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Place the spans of all slices of a row, shuffled within each, so that no two touch.

    The n tokens of a slice leave n - sum + 1 - k free places once every gap has its one visible token. The k offsets are
    drawn among them with replacement and sorted; each span is then shifted by the spans and gaps before it. A span may
    begin the slice or end it.

    Args:
        rng: source of randomness.
        slice_lengths: tokens of each slice; they lie one behind the other.
        plan: span lengths of each slice, at least one, with sum + number - 1 <= length of the slice.

    Returns:
        starts and ends, each (num_spans,) int64, in text order, half-open, counted from the first slice's beginning.
    """
    slices = np.asarray(slice_lengths)
    counts = np.array([len(lengths) for lengths in plan])
    slice_of = np.arange(len(slices)).repeat(counts)
    lengths = np.concatenate(plan)[shuffled_within(rng, slice_of)]
    firsts = counts.cumsum() - counts
    free = slices - np.add.reduceat(lengths, firsts) - counts + 1
    assert free.min() >= 0, "the spans do not fit the slice"
    offsets = (rng.random(len(lengths)) * (free + 1)[slice_of]).astype(np.int64)
    # An offset is smaller than its slice, so that those of different slices cannot mix: one sort serves all.
    offsets += (slices.cumsum() - slices)[slice_of]
    offsets.sort()
    # Spans and gaps before the end of each span, those of earlier slices taken off.
    taken = (lengths + 1).cumsum()
    taken -= (taken[firsts] - lengths[firsts] - 1)[slice_of]
    ends = offsets + taken - 1
    return ends - lengths, ends


def shuffled_within(rng: np.random.Generator, group_of: np.ndarray) -> np.ndarray:
    """Draw a permutation that moves each element only within its group: (n,) places; `group_of` (n,) ascends."""
    return (group_of + rng.random(len(group_of)) / 2).argsort()
