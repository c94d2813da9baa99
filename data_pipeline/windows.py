"""From a row's stored tokens to segments, for each slice rule: how many slices, and what is hidden in each.

`fit` hides so little that everything fits its window: a plan that would not is drawn again, and no target is lost.
`glm_130b` does what the original did: slices of 500 tokens, most of whose segments are longer than the window of 512
and lose the end of their last targets (96 % of them, and 36 % of all targets).

What is drawn does not depend on where documents end: with `objective.documents=isolated` the same slices and spans are
cut at their borders (data_pipeline/isolation.py).
"""

from bisect import bisect_left
from itertools import accumulate, pairwise

import numpy as np

from configs.derive import GLM_130B_ROW, slice_length
from configs.schema import Documents, ObjectiveConfig, SliceRule
from data_pipeline.blanks import Segment, gmask_segment, mask_segments
from data_pipeline.isolation import isolate, isolated_gmask_segments
from data_pipeline.sentences import SentenceBlanks, choose_sentences
from data_pipeline.spans import (
    check_plans_fit,
    draw_plan,
    hidden_budget,
    place_spans,
    shuffled_within,
)
from data_pipeline.special_tokens import SpecialTokens

# The original never shortens a slice below this many tokens.
SHORTEST_SLICE = 32


def gmask_windows(
    rng: np.random.Generator,
    tokens: np.ndarray,
    objective: ObjectiveConfig,
    special: SpecialTokens,
) -> list[list[Segment]]:
    """One window, of one segment or one per document, whose target is uniform on [0.2 n, n]: the context may be empty."""
    shortest = max(int(objective.gmask_min_fraction * len(tokens)), 1)
    length = int(rng.integers(shortest, len(tokens) + 1))
    if objective.documents is Documents.isolated:
        return [isolated_gmask_segments(tokens, len(tokens) - length, special)]
    return [[gmask_segment(tokens, len(tokens) - length, special)]]


def mask_windows(
    rng: np.random.Generator,
    tokens: np.ndarray,
    window_length: int,
    objective: ObjectiveConfig,
    special: SpecialTokens,
    sentences: SentenceBlanks | None = None,
) -> tuple[list[list[Segment]], int]:
    """Spread a row over its windows.

    Args:
        rng: source of randomness.
        tokens: (n,) stored tokens of the row; a short row leaves its last windows empty.
        window_length: tokens of a window.
        objective: number of windows, slice rule, how spans are drawn.
        special: ids of the special tokens.
        sentences: needed where the objective hides sentences in a share of the windows.

    Returns:
        objective.windows_per_row lists of segments, and how many span plans were rejected.
    """
    windows, redraws, _ = mask_windows_of_a_kind(
        rng, tokens, window_length, objective, special, sentences
    )
    return windows, redraws


def mask_windows_of_a_kind(
    rng: np.random.Generator,
    tokens: np.ndarray,
    window_length: int,
    objective: ObjectiveConfig,
    special: SpecialTokens,
    sentences: SentenceBlanks | None = None,
) -> tuple[list[list[Segment]], int, list[bool]]:
    """Spread a row over its windows; arguments as of `mask_windows`.

    Returns:
        What `mask_windows` returns, and of each window whether it hides sentences.
    """
    is_original = objective.slice_rule is SliceRule.glm_130b
    draw = _draw_original if is_original else _draw_fit
    windows: list[list[Segment]] = [[] for _ in range(objective.windows_per_row)]
    # Slices that hide spans, their plans and windows: the segments of all are made at once.
    slices: list[np.ndarray] = []
    plan: list[np.ndarray] = []
    window_of: list[int] = []
    hides_sentences = [False] * objective.windows_per_row
    redraws = 0
    for number, (start, stop) in enumerate(row_slices(len(tokens), window_length, objective)):
        stored = tokens[start:stop]
        if objective.smask_share > 0 and rng.random() < objective.smask_share:
            assert sentences is not None, "hiding sentences needs to know where they end"
            windows[number] = _hide_sentences(rng, stored, window_length, objective, sentences)
            hides_sentences[number] = bool(windows[number])
        if not windows[number]:
            parts, lengths, rejected = draw(rng, stored, window_length, objective)
            slices += parts
            plan += lengths
            window_of += [number] * len(parts)
            redraws += rejected
    if slices:
        made = _hide_spans(rng, slices, plan, objective, special)
        for number, segments in zip(window_of, made, strict=True):
            windows[number] += segments
    if is_original:
        windows = [_cut(segments, window_length) for segments in windows]
    return windows, redraws, hides_sentences


def row_slices(
    num_tokens: int, window_length: int, objective: ObjectiveConfig
) -> list[tuple[int, int]]:
    """The stored tokens of a [MASK] row that each of its windows reads, in as few windows as hold them."""
    return split_evenly(num_tokens, -(-num_tokens // longest_slice(window_length, objective)))


def check_objective(seq_length: int, objective: ObjectiveConfig) -> None:
    """Raise a ConfigError if the spans that are asked for hardly ever fit a [MASK] row."""
    window_length = seq_length // objective.windows_per_row
    is_original = objective.slice_rule is SliceRule.glm_130b
    room = None if is_original else window_length
    check_plans_fit(longest_slice(window_length, objective), room, objective)


def longest_slice(window_length: int, objective: ObjectiveConfig) -> int:
    """Stored tokens of a full slice: 456 of 512 in the fit rule, 500 in the glm_130b rule."""
    if objective.slice_rule is SliceRule.fit:
        return slice_length(window_length)
    num_windows = objective.windows_per_row
    return -(-original_row_length(window_length * num_windows) // num_windows)


def original_row_length(seq_length: int) -> int:
    """Stored tokens of a row in the glm_130b rule: 2000 of 2048."""
    numerator, denominator = GLM_130B_ROW
    return seq_length * numerator // denominator


def split_evenly(length: int, parts: int) -> list[tuple[int, int]]:
    """Cut range(length) into `parts` half-open ranges whose sizes differ by at most one."""
    return [(part * length // parts, (part + 1) * length // parts) for part in range(parts)]


_Drawn = tuple[list[np.ndarray], list[np.ndarray], int]
"""Slices of a window, span lengths of each, and how many plans were rejected."""


def _draw_fit(
    rng: np.random.Generator, tokens: np.ndarray, window_length: int, objective: ObjectiveConfig
) -> _Drawn:
    """One slice, or rarely two short ones side by side; nothing is dropped."""
    slices = [tokens]
    is_short = rng.random() < objective.short_segment_probability
    if is_short and len(tokens) >= 2 * SHORTEST_SLICE:
        cut = int(rng.integers(SHORTEST_SLICE, len(tokens) - SHORTEST_SLICE + 1))
        slices = [tokens[:cut], tokens[cut:]]
    plan, redraws = draw_plan(rng, [len(part) for part in slices], window_length, objective)
    return slices, plan, redraws


def _draw_original(
    rng: np.random.Generator, tokens: np.ndarray, window_length: int, objective: ObjectiveConfig
) -> _Drawn:
    """One slice whatever its window holds. A plan is drawn again only where its spans could not be placed at all."""
    is_short = rng.random() < objective.short_segment_probability
    if is_short and len(tokens) > SHORTEST_SLICE:
        tokens = tokens[: int(rng.integers(SHORTEST_SLICE, len(tokens)))]
    plan, redraws = draw_plan(rng, [len(tokens)], None, objective)
    return [tokens], plan, redraws


def _hide_spans(
    rng: np.random.Generator,
    slices: list[np.ndarray],
    plan: list[np.ndarray],
    objective: ObjectiveConfig,
    special: SpecialTokens,
) -> list[list[Segment]]:
    """Segments of each slice."""
    sizes = [len(part) for part in slices]
    starts, ends = place_spans(rng, sizes, plan)
    order = shuffled_within(rng, np.arange(len(plan)).repeat([len(lengths) for lengths in plan]))
    borders = [0, *accumulate(sizes)]
    return _segments(np.concatenate(slices), borders, starts, ends, order, objective, special)


def _hide_sentences(
    rng: np.random.Generator,
    tokens: np.ndarray,
    window_length: int,
    objective: ObjectiveConfig,
    sentences: SentenceBlanks,
) -> list[Segment]:
    """The whole slice with some of its sentences hidden; empty if it has only one, or no room for a blank."""
    is_original = objective.slice_rule is SliceRule.glm_130b
    most = len(tokens) if is_original else (window_length - len(tokens)) // 2
    budget = hidden_budget(objective, len(tokens))
    chosen = choose_sentences(rng, tokens, sentences.is_end, budget, most)
    if chosen is None:
        return []
    order = rng.permutation(len(chosen[0]))
    (segments,) = _segments(tokens, [0, len(tokens)], *chosen, order, objective, sentences.special)
    return segments


def _segments(
    tokens: np.ndarray,
    borders: list[int],
    starts: np.ndarray,
    ends: np.ndarray,
    order: np.ndarray,
    objective: ObjectiveConfig,
    special: SpecialTokens,
) -> list[list[Segment]]:
    """Segments of each slice: one, or one per document."""
    if objective.documents is Documents.crossed:
        return [[each] for each in mask_segments(tokens, borders, starts, ends, order, special)]
    cut, ends, order = isolate(tokens, borders, starts, ends, order, special.eos)
    made = mask_segments(tokens, cut, starts, ends, order, special)
    edges = [bisect_left(cut, border) for border in borders]
    return [made[first:stop] for first, stop in pairwise(edges)]


def _cut(segments: list[Segment], length: int) -> list[Segment]:
    """Keep the first `length` tokens of segments that lie one after another."""
    kept: list[Segment] = []
    for segment in segments:
        if length <= 0:
            break
        kept.append(segment.cut(length))
        length -= len(segment)
    return kept
