"""The distributions of the objective, tested over 10,000 samples, and errors planted to show that the tests see them.

Every test compares with an exact distribution and passes at p > 0.001. Three subtleties decide what is counted:

- Span lengths are drawn until they reach a budget, and the draw that passes it is longer than most (length-biased).
  So the restricted Poisson itself is tested on the first draw of each plan, which no stopping rule has touched.
- In finished samples, one span of each segment is counted: the first one predicted. The order of prediction is a
  uniform permutation, so it is a uniformly chosen span of the plan; spans of one plan depend on each other, those of
  different segments do not.
- `fit` rejects plans that do not fit the window, which favours few and long spans a little; the exact distributions
  below are conditional on fitting.

Segments are counted whose slice has the full 456 tokens; shortened ones have other distributions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy import stats

from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline import spans
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.objective import Objective
from data_pipeline.rng import rng_for
from tests.helpers.streams import CountingStream, read_mask_segments
from tests.helpers.tiny import SPECIAL

NUM_SAMPLES = 10_000
SIGNIFICANCE = 0.001
SEQ_LENGTH, WINDOW, SLICE = 2048, 512, 456
MASK_SHARE, MASK_FRACTION, MEAN, LONGEST, SINGLE, GMASK_MIN = 0.3, 0.15, 3.0, 39, 0.02, 0.2


@dataclass
class Counts:
    """What the tests need to know of 10,000 samples."""

    num_mask: int
    gmask_lengths: list[tuple[int, int]]
    """(target tokens, stored tokens) of each [gMASK] row."""
    hidden: list[int]
    """Hidden tokens of each full [MASK] segment."""
    first_spans: list[int]
    """Length of the first predicted span of each full [MASK] segment."""
    first_blanks: list[tuple[int, int]]
    """(place in the text of the first predicted blank, blanks) of each full [MASK] segment."""
    cuts: list[int]
    """Stored tokens of the first of two segments, for each window that was split."""
    num_touching: int
    num_torn: int
    """Segments that lost a target."""
    padding: dict[Objective, float]
    """Share of padding in the rows of each objective."""
    num_redrawn: int


def count_samples(objective: ObjectiveConfig) -> Counts:
    stream = CountingStream(10**9)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, objective, SEQ_LENGTH, seed=20221005)
    counts = Counts(0, [], [], [], [], [], 0, 0, {}, 0)
    padding: dict[Objective, list[float]] = {Objective.MASK: [], Objective.GMASK: []}
    for index in range(NUM_SAMPLES):
        sample = dataset[index]
        padding[sample.objective].append(float((sample.segment_ids == 0).mean()))
        if sample.objective is Objective.GMASK:
            stored = int((sample.segment_ids == 1).sum()) - 1
            counts.gmask_lengths.append((int(sample.loss_mask.sum()), stored))
            continue
        counts.num_mask += 1
        counts.num_redrawn += sample.redraws
        starts_window = set(sample.segment_ids[::WINDOW].tolist())
        for number, segment in enumerate(read_mask_segments(sample), start=1):
            counts.num_touching += segment.has_touching_blanks
            counts.num_torn += not segment.is_whole
            if len(segment.stored) == SLICE:
                counts.hidden.append(sum(segment.span_lengths))
                counts.first_spans.append(segment.span_lengths[0])
                counts.first_blanks.append((segment.blank_order[0], len(segment.blank_order)))
            elif number in starts_window and len(segment.stored) < SLICE - 1:
                counts.cuts.append(len(segment.stored))
    counts.padding = {kind: float(np.mean(shares)) for kind, shares in padding.items()}
    return counts


@pytest.fixture(scope="module")
def default_counts() -> Counts:
    return count_samples(ObjectiveConfig())


# --- exact distributions


def restricted_poisson() -> np.ndarray:
    """Probability of each length, index 0 unused."""
    weights = [0.0] + [MEAN**length / math.factorial(length) for length in range(1, LONGEST + 1)]
    return np.array(weights) / sum(weights)


@cache
def plan_distribution() -> tuple[np.ndarray, np.ndarray]:
    """Distributions of (hidden tokens, length of a uniformly chosen span) of a plan that fits its window."""
    pmf = restricted_poisson()
    budget, most_spans = int(MASK_FRACTION * SLICE), (WINDOW - SLICE) // 2
    hidden, chosen = np.zeros(budget + LONGEST + 1), np.zeros(LONGEST + 1)
    # stops[c]: probability that exactly count - 1 draws are needed when c tokens are missing.
    stops = np.array([pmf[missing:].sum() for missing in range(budget + 1)])
    # partial[s]: probability of k - 1 draws that hide s < budget tokens together.
    partial = np.zeros(budget)
    partial[0] = 1.0
    for count in range(1, most_spans + 1):
        last = np.zeros(LONGEST + 1)
        following = np.zeros(budget)
        for already, probability in enumerate(partial):
            for length in range(1, LONGEST + 1):
                if already + length >= budget:
                    hidden[already + length] += probability * pmf[length]
                    last[length] += probability * pmf[length]
                else:
                    following[already + length] += probability * pmf[length]
        partial = following
        # The draws before the last are exchangeable: each is distributed as the first one, given the count.
        before = np.zeros(LONGEST + 1)
        if count > 1:
            for length in range(1, min(LONGEST, budget - 1) + 1):
                before[length] = pmf[length] * stops[budget - length]
            stops = one_more(stops, pmf)
        chosen += (last + (count - 1) * before) / count
    # What is left out does not fit and is drawn again; single spans always fit.
    hidden *= (1 - SINGLE) / hidden.sum()
    chosen *= (1 - SINGLE) / chosen.sum()
    hidden[: LONGEST + 1] += SINGLE * pmf
    chosen += SINGLE * pmf
    return hidden, chosen


def one_more(stops: np.ndarray, pmf: np.ndarray) -> np.ndarray:
    """From the probabilities that k draws reach what is missing, exactly at the last, those of k + 1 draws."""
    following = np.zeros_like(stops)
    for missing in range(1, len(stops)):
        for length in range(1, min(LONGEST, missing - 1) + 1):
            following[missing] += pmf[length] * stops[missing - length]
    return following


# --- tests: each returns a p-value


def chi_square_p(values: Iterable[int], probabilities: np.ndarray) -> float:
    """Chi-square test of integers against their distribution; cells are joined until each expects 10."""
    observed = np.bincount(np.asarray(list(values)), minlength=len(probabilities)).astype(float)
    if (
        observed[len(probabilities) :].any()
        or observed[: len(probabilities)][probabilities == 0].any()
    ):
        return 0.0
    expected = probabilities * observed.sum()
    groups = (np.cumsum(expected) // 10).astype(int)
    groups = np.minimum(groups, groups[-1] - 1)  # the last cell is never a small rest
    observed, expected = np.bincount(groups, observed), np.bincount(groups, expected)
    is_used = expected > 0
    return float(stats.chisquare(observed[is_used], expected[is_used]).pvalue)


def share_p(counts: Counts) -> float:
    return float(stats.binomtest(counts.num_mask, NUM_SAMPLES, MASK_SHARE).pvalue)


def mask_ratio_p(counts: Counts) -> float:
    return chi_square_p(counts.hidden, plan_distribution()[0])


def span_length_p(counts: Counts) -> float:
    return chi_square_p(counts.first_spans, plan_distribution()[1])


def gmask_length_p(counts: Counts) -> float:
    """Each length's rank among the allowed ones, in 40 cells."""
    cells = []
    for length, stored in counts.gmask_lengths:
        shortest = int(GMASK_MIN * stored)
        if not shortest <= length <= stored:
            return 0.0
        cells.append((length - shortest) * 40 // (stored - shortest + 1))
    stored = SEQ_LENGTH - 1
    allowed = stored - int(GMASK_MIN * stored) + 1
    widths = np.bincount(np.arange(allowed) * 40 // allowed)
    return chi_square_p(cells, widths / allowed)


TESTS = {
    "share": share_p,
    "mask ratio": mask_ratio_p,
    "span lengths": span_length_p,
    "gmask lengths": gmask_length_p,
}


@pytest.mark.parametrize("name", TESTS)
def test_samples_follow_the_exact_distribution(name: str, default_counts: Counts):
    assert TESTS[name](default_counts) > SIGNIFICANCE


@pytest.fixture(scope="module")
def planted_counts() -> Counts:
    """Three wrong settings at once: what they change is independent of each other."""
    return count_samples(
        ObjectiveConfig(gmask_share=0.67, mask_fraction=0.155, gmask_min_fraction=0.25)
    )


@pytest.mark.parametrize("name", ["share", "mask ratio", "gmask lengths"])
def test_planted_setting_is_rejected(name: str, planted_counts: Counts):
    assert TESTS[name](planted_counts) < SIGNIFICANCE


def one_too_long(
    rng: np.random.Generator, num_tokens: int, objective: ObjectiveConfig, is_single: bool
) -> np.ndarray:
    return DRAW_LENGTHS(rng, num_tokens, objective, is_single) + 1


DRAW_LENGTHS = spans.draw_lengths


def test_planted_spans_one_token_too_long_are_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spans, "draw_lengths", one_too_long)
    counts = count_samples(ObjectiveConfig())
    assert span_length_p(counts) < SIGNIFICANCE
    assert mask_ratio_p(counts) < SIGNIFICANCE


def first_lengths(mean: float = MEAN) -> list[int]:
    objective = ObjectiveConfig(mean_span_length=mean)
    return [
        int(spans.draw_lengths(rng_for(7, "first", number), SLICE, objective, is_single=False)[0])
        for number in range(NUM_SAMPLES)
    ]


def test_first_drawn_lengths_follow_the_restricted_poisson(monkeypatch: pytest.MonkeyPatch):
    assert chi_square_p(first_lengths(), restricted_poisson()) > SIGNIFICANCE
    assert chi_square_p(first_lengths(mean=3.2), restricted_poisson()) < SIGNIFICANCE
    monkeypatch.setattr(spans, "draw_lengths", one_too_long)
    assert chi_square_p(first_lengths(), restricted_poisson()) < SIGNIFICANCE


def test_every_blank_is_equally_likely_to_be_predicted_first(default_counts: Counts):
    # Each place is uniform on 0..blanks - 1; a fixed order would be at one end.
    places = np.array([place for place, _ in default_counts.first_blanks])
    blanks = np.array([count for _, count in default_counts.first_blanks])
    spread = rng_for(1, "within a cell").random(len(places))
    assert stats.kstest((places + spread) / blanks, "uniform").pvalue > SIGNIFICANCE
    assert stats.kstest((0 * places + spread) / blanks, "uniform").pvalue < SIGNIFICANCE


def test_two_percent_of_the_windows_are_split_anywhere(default_counts: Counts):
    windows, cuts = 4 * default_counts.num_mask, np.array(default_counts.cuts)
    assert stats.binomtest(len(cuts), windows, 0.02).pvalue > SIGNIFICANCE
    assert stats.binomtest(len(cuts), windows, 0.03).pvalue < SIGNIFICANCE
    assert cuts.min() >= 32
    spread = rng_for(2, "within a cell").random(len(cuts))
    uniform = (cuts - 32 + spread) / (SLICE - 64 + 1)
    assert stats.kstest(uniform, "uniform").pvalue > SIGNIFICANCE


def test_restricted_poisson_has_the_mean_that_the_original_reports():
    mean = float((restricted_poisson() * np.arange(LONGEST + 1)).sum())
    assert mean == pytest.approx(3.157, abs=5e-4)


def test_spans_never_touch_and_no_target_is_lost(default_counts: Counts):
    assert default_counts.num_touching == 0
    assert default_counts.num_torn == 0


def test_padding_is_at_most_three_percent_in_each_objective(default_counts: Counts):
    assert set(default_counts.padding) == {Objective.MASK, Objective.GMASK}
    assert max(default_counts.padding.values()) <= 0.03


def test_one_slice_in_two_hundred_is_drawn_again(default_counts: Counts):
    # 456 of 512 tokens was chosen because only half a percent of the plans do not fit.
    redrawn = default_counts.num_redrawn / (4 * default_counts.num_mask)
    assert 0.002 < redrawn < 0.01


def test_original_rule_loses_the_targets_that_the_original_lost():
    # An independent simulation of the original: 96 % of the slices are cut, 62.8 of 97.9 targets survive.
    objective = ObjectiveConfig(slice_rule=SliceRule.glm_130b, gmask_share=0.0)
    stream = CountingStream(10**8)
    dataset = GLMDataset([Source("text", stream)], SPECIAL, objective, SEQ_LENGTH, seed=1)
    survived, cut, slices = 0, 0, 0
    for index in range(NUM_SAMPLES // 4):
        sample = dataset[index]
        survived += int(sample.loss_mask.sum())
        slices += 4
        cut += sum(not segment.is_whole for segment in read_mask_segments(sample))
        assert sample.segment_ids.max() == 4
    assert survived / slices == pytest.approx(62.8, abs=0.5)
    assert cut / slices == pytest.approx(0.96, abs=0.01)
