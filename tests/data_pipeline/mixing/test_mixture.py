"""Every source stays within a sample of the integral of its weights, at any prefix, whatever stages come and go."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixing.cycle import LONGEST_CYCLE, build_cycle, cycle_counts
from data_pipeline.mixing.mixture import Mixture, Stage, stages_of, with_share

WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any)


def draw(mixture: Mixture, length: int, num_sources: int) -> np.ndarray:
    """How many samples each source gave before each index: (length + 1, sources); each counted without gaps."""
    taken = np.zeros((length + 1, num_sources), dtype=np.int64)
    for index in range(length):
        source, within = mixture.locate(index)
        assert within == taken[index, source]
        taken[index + 1] = taken[index]
        taken[index + 1, source] += 1
    return taken


def asked(stages: list[Stage], length: int, ramp: int = 0) -> np.ndarray:
    """Integral of the weights before each index, summed up sample by sample: (length + 1, sources)."""
    asked = np.zeros((length + 1, len(stages[0].weights)))
    targets = [np.array(stage.weights, dtype=float) for stage in stages]
    targets = [target / target.sum() for target in targets]
    starts = [stage.first_sample for stage in stages]
    held = now = targets[0]
    for index in range(length):
        number = max(n for n, start in enumerate(starts) if start <= index)
        if index == starts[number]:
            held = now
        # The mean over a sample of a line is its middle, and `now` what holds at the sample's end.
        since = index - starts[number]
        middle, now = (
            held + (targets[number] - held) * (min(place / ramp, 1.0) if ramp and number else 1.0)
            for place in (since + 0.5, since + 1.0)
        )
        asked[index + 1] = asked[index] + middle
    return asked


@st.composite
def staged(draw: st.DrawFn, max_sources: int = 10) -> list[Stage]:
    num_sources = draw(st.integers(1, max_sources))
    weights = st.lists(st.integers(0, 30), min_size=num_sources, max_size=num_sources).filter(any)
    starts = [0, *sorted(draw(st.sets(st.integers(1, 500), max_size=4)))]
    return [Stage(start, tuple(draw(weights))) for start in starts]


@given(WEIGHTS)
def test_every_prefix_is_within_one_sample_of_constant_weights(weights: list[int]):
    taken = draw(Mixture.constant(weights), 800, len(weights))
    assert np.abs(taken - asked([Stage(0, tuple(weights))], 800)).max() < 1


def test_one_large_and_many_small_sources_keep_within_one_sample():
    # Serving whoever is furthest behind, or in the order of ideal times, drifts by several samples here.
    weights = [100] + [1] * 100
    taken = draw(Mixture.constant(weights), 2000, 101)
    assert np.abs(taken - asked([Stage(0, tuple(weights))], 2000)).max() < 1


@pytest.mark.parametrize("first", [50, 57, 100, 333])
def test_added_source_keeps_every_prefix_within_one_sample(first: int):
    # Wherever it begins, also in the middle of the cycle before: the fractions are carried over.
    stages = [
        Stage(0, (0.3, 0.25, 0.25, 0.2, 0.0)),
        Stage(first, (0.27, 0.225, 0.225, 0.18, 0.1)),
        Stage(2 * first + 1, (0.1, 0.2, 0.3, 0.39, 0.01)),
    ]
    taken = draw(Mixture(stages), 4000, 5)
    assert np.abs(taken - asked(stages, 4000)).max() < 1
    assert taken[first, 4] == 0


@given(staged())
@settings(max_examples=60)
def test_sources_follow_the_integral_through_any_stages(stages: list[Stage]):
    last = stages[-1].first_sample
    length = last + 400
    distance = np.abs(
        draw(Mixture(stages), length, len(stages[0].weights)) - asked(stages, length)
    ).max(axis=1)
    # Weights that jump onto sources that are all behind cannot be served at once; see the module's docstring.
    assert distance.max() < 2
    assert distance[: stages[1].first_sample if len(stages) > 1 else length].max() < 1


@given(staged())
@settings(max_examples=40)
def test_what_a_change_costs_does_not_last(stages: list[Stage]):
    # Once every source has a weight to catch up or wait with.
    last = stages[-1].first_sample + 1
    stages = [*stages, Stage(last, tuple(range(5, 5 + len(stages[0].weights))))]
    length = last + 600
    taken = draw(Mixture(stages), length, len(stages[0].weights))
    assert np.abs(taken - asked(stages, length))[-300:].max() < 1


def test_no_order_can_serve_two_sources_that_are_due_at_once():
    # After 8 samples of ten equal sources two are 0.8 behind; asked for 0.46 each, both are due in the next sample.
    equal = Mixture([Stage(0, (1,) * 10)])
    behind = sorted(set(range(10)) - {equal.locate(index)[0] for index in range(8)})
    jump = tuple(46 if source in behind else 1 for source in range(10))
    stages = [Stage(0, (1,) * 10), Stage(8, jump)]
    distance = np.abs(draw(Mixture(stages), 1000, 10) - asked(stages, 1000)).max(axis=1)
    assert 1.25 < distance.max() < 1.5
    assert distance[150:].max() < 1


@given(staged(6), st.integers(1, 300))
@settings(max_examples=60)
def test_ramps_follow_the_line(stages: list[Stage], ramp: int):
    length = stages[-1].first_sample + ramp + 100
    taken = draw(Mixture(stages, ramp), length, len(stages[0].weights))
    assert np.abs(taken - asked(stages, length, ramp)).max() < 2


def test_long_ramp_keeps_within_one_sample_and_an_eighth():
    stages = [Stage(0, (0.7, 0.3, 0)), Stage(1000, (0.5, 0.2, 0.3))]
    taken = draw(Mixture(stages, 10_000), 13_000, 3)
    assert np.abs(taken - asked(stages, 13_000, 10_000)).max() < 1.125


@given(staged(), st.integers(0, 200), st.integers(1, 900), st.sampled_from([0, 7, 100]))
@settings(max_examples=40)
def test_stage_added_ahead_leaves_what_was_drawn_as_it_was(
    stages: list[Stage], ahead: int, index: int, ramp: int
):
    num_sources = len(stages[0].weights)
    drawn = stages[-1].first_sample + ahead + 1
    # A new source at the end, which had no weight, and one in front.
    longer = [Stage(stage.first_sample, (0, *stage.weights, 0)) for stage in stages]
    longer.append(Stage(drawn, (5, *(1,) * num_sources, 3)))
    before, after = Mixture(stages, ramp), Mixture(longer, ramp)
    for place in [drawn - 1, *range(min(index, drawn))]:
        source, within = before.locate(place)
        assert after.locate(place) == (source + 1, within)


@given(staged(), st.lists(st.integers(0, 3000), max_size=30), st.sampled_from([0, 50]))
@settings(max_examples=30)
def test_any_index_is_found_without_the_ones_before(
    stages: list[Stage], indices: list[int], ramp: int
):
    in_order, at_random = Mixture(stages, ramp), Mixture(stages, ramp)
    places = [in_order.locate(index) for index in range(max(indices, default=0) + 1)]
    for index in indices:
        assert at_random.locate(index) == places[index]


def test_far_index_of_late_stage_is_found_by_arithmetic():
    weights = (0.5, 0.3, 0.2)
    mixture = Mixture([Stage(0, (0.2, 0.3, 0.5)), Stage(10**9, weights)])
    counted = [mixture.locate(10**12 + place) for place in range(1000)]
    for source, weight in enumerate(weights):
        ranks = [rank for which, rank in counted if which == source]
        assert len(ranks) == 1000 * weight
        assert ranks == list(range(ranks[0], ranks[0] + len(ranks)))
        wanted = (0.2, 0.3, 0.5)[source] * 10**9 + weight * (10**12 - 10**9)
        assert abs(ranks[0] - wanted) <= 1


def test_sources_without_weight_are_never_served():
    stages = [Stage(0, (0, 1, 2, 2, 2)), Stage(51, (1, 0, 1, 0, 0)), Stage(80, (0, 1, 0, 1, 1))]
    mixture = Mixture(stages)
    assert {mixture.locate(index)[0] for index in range(51)} == {1, 2, 3, 4}
    assert {mixture.locate(index)[0] for index in range(51, 80)} == {0, 2}
    assert {mixture.locate(index)[0] for index in range(80, 500)} == {1, 3, 4}


def test_shares_at_an_index_by_hand():
    mixture = Mixture([Stage(0, (1, 1)), Stage(100, (3, 1)), Stage(105, (0, 1))], ramp_samples=10)
    assert mixture.shares_at(99) == (0.5, 0.5)
    assert mixture.shares_at(102) == (0.55, 0.45)
    # The first ramp was half done: it goes on from 0.625, to 0.
    assert mixture.shares_at(105) == (0.625, 0.375)
    assert mixture.shares_at(110) == (0.3125, 0.6875)
    assert mixture.shares_at(115) == (0, 1)


def test_typed_decimals_are_kept_exactly():
    assert cycle_counts([0.3, 0.7]) == (3, 7)
    assert cycle_counts([0.95 * 0.5, 0.95 * 0.5, 0.05]) == (19, 19, 2)
    assert cycle_counts([2.0, 4.0, 0.0]) == (1, 2, 0)


def test_weights_by_size_are_rounded_and_no_source_is_forgotten():
    sizes = [123_456_789, 7_654_321, 3, 0]
    counts = cycle_counts(sizes)
    assert sum(counts) == LONGEST_CYCLE
    assert counts[2] == 1
    assert counts[3] == 0
    for size, count in zip(sizes, counts, strict=True):
        assert abs(count / LONGEST_CYCLE - size / sum(sizes)) <= 1 / LONGEST_CYCLE
    mixture = Mixture.constant(sizes)
    taken = draw(mixture, 3000, 4)
    assert np.abs(taken - asked([Stage(0, counts)], 3000)).max() < 1
    assert mixture.locate(LONGEST_CYCLE) == (mixture.locate(0)[0], counts[mixture.locate(0)[0]])


@given(st.lists(st.integers(1, 10**12), min_size=2, max_size=40))
@settings(max_examples=30)
def test_rounded_counts_fill_the_cycle(sizes: list[int]):
    counts = cycle_counts(sizes)
    assert min(counts) >= 1
    assert sum(counts) == LONGEST_CYCLE or [c * sum(sizes) for c in counts] == [
        size * sum(counts) for size in sizes
    ]


@given(WEIGHTS)
def test_cycle_of_large_fractions_is_that_of_the_same_small_ones(weights: list[int]):
    # Numbers that do not fit 64 bits take another path through NumPy.
    counts = cycle_counts(weights)
    tiny = Fraction(1, 10**15 + 37)
    lags = [tiny, -tiny, *[Fraction(0)] * len(counts)][: len(counts)]
    if len(counts) > 1 and counts[0] and counts[1]:
        served = build_cycle(counts, lags).served
        assert np.abs(np.array(served) - np.array(counts)).max() <= 1


def test_share_of_one_more_source_is_taken_from_all_others_alike():
    stages = stages_of([[0, 0.6, 0.4], [100, 1]], 2)
    combined = with_share(stages, [(0, 0.05), (40, 0.1)])
    assert [stage.first_sample for stage in combined] == [0, 40, 100]
    assert [tuple(map(float, stage.weights)) for stage in combined] == [
        (0.57, 0.38, 0.05),
        (0.54, 0.36, 0.1),
        (0.9, 0.0, 0.1),
    ]
    assert cycle_counts(combined[0].weights) == (57, 38, 5)


def test_rows_of_the_configuration_may_leave_weights_out():
    stages = stages_of([[0.0, 1.0], [50_000.0, 0.5, 0.0, 0.5]], 4)
    assert stages == [Stage(0, (1.0, 0, 0, 0)), Stage(50_000, (0.5, 0, 0.5, 0))]


def test_stages_begin_at_the_first_sample():
    with pytest.raises(AssertionError, match="begins at sample 0"):
        Mixture([Stage(5, (1.0,))])


def test_no_weight_at_all_is_a_programming_error():
    with pytest.raises(AssertionError, match="above 0"):
        Mixture.constant([0.0, 0.0])
