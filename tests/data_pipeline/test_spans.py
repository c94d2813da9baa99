"""Spans have the right lengths, never touch, and fit."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from configs.errors import ConfigError
from configs.schema import ObjectiveConfig
from data_pipeline.rng import rng_for
from data_pipeline.spans import (
    check_plans_fit,
    draw_lengths,
    draw_plan,
    hidden_budget,
    length_distribution,
    longest_span,
    place_spans,
    shuffled_within,
)

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 20))
def test_placed_spans_keep_their_lengths_and_never_touch(seed: int, lengths: list[int], slack: int):
    num_tokens = sum(lengths) + len(lengths) - 1 + slack
    starts, ends = place_spans(rng_for(seed), [num_tokens], [np.array(lengths)])
    assert sorted(ends - starts) == sorted(lengths)
    assert starts[0] >= 0
    assert ends[-1] <= num_tokens
    assert (starts[1:] > ends[:-1]).all()


@given(
    SEEDS,
    st.lists(
        st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    ),
)
def test_spans_of_several_slices_stay_in_their_own(seed: int, slices: list[tuple[list[int], int]]):
    sizes = [sum(lengths) + len(lengths) - 1 + slack for lengths, slack in slices]
    plan = [np.array(lengths) for lengths, _ in slices]
    starts, ends = place_spans(rng_for(seed), sizes, plan)
    first = 0
    for (lengths, _), stop in zip(slices, np.cumsum(sizes), strict=True):
        inside = (starts >= first) & (ends <= stop)
        assert sorted((ends - starts)[inside]) == sorted(lengths)
        assert (starts[inside][1:] > ends[inside][:-1]).all()
        first = stop


@given(SEEDS, st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_shuffling_keeps_to_the_groups(seed: int, sizes: list[int]):
    groups = np.arange(len(sizes)).repeat(sizes)
    places = shuffled_within(rng_for(seed), groups)
    assert sorted(places) == list(range(len(groups)))
    assert (groups[places] == groups).all()


def test_every_order_within_a_group_is_as_frequent():
    groups = np.array([0, 1, 1, 1, 2])
    seen = Counter(tuple(shuffled_within(rng_for(seed), groups).tolist()) for seed in range(3000))
    assert len(seen) == 6
    assert stats.chisquare(list(seen.values())).pvalue > 0.001


def test_spans_without_slack_fill_the_slice_in_every_order():
    seen = set()
    for seed in range(100):
        starts, ends = place_spans(rng_for(seed), [8], [np.array([1, 2, 3])])
        assert starts[0] == 0
        assert ends[-1] == 8
        seen.add(tuple(ends - starts))
    assert len(seen) == 6


def test_free_places_are_drawn_with_replacement():
    # Two spans of 1 in 4 tokens have one free place: offsets 00, 01, 10, 11 give three arrangements, 1:2:1.
    seen = Counter(
        tuple(place_spans(rng_for(seed), [4], [np.array([1, 1])])[0].tolist())
        for seed in range(4000)
    )
    observed = [seen[(0, 2)], seen[(0, 3)], seen[(1, 3)]]
    assert sum(observed) == 4000
    assert stats.chisquare(observed, [1000, 2000, 1000]).pvalue > 0.001


def test_spans_reach_both_ends_of_a_slice():
    placed = [place_spans(rng_for(seed), [10], [np.array([2, 1])]) for seed in range(200)]
    assert {0, 1} <= {int(starts[0]) for starts, _ in placed}
    assert {9, 10} <= {int(ends[-1]) for _, ends in placed}


@given(SEEDS, st.integers(1, 2000))
def test_lengths_reach_the_budget_with_the_last_span_and_not_before(seed: int, num_tokens: int):
    objective = ObjectiveConfig()
    lengths = draw_lengths(rng_for(seed), num_tokens, objective, is_single=False)
    budget = hidden_budget(objective, num_tokens)
    assert lengths.sum() >= budget
    assert lengths[:-1].sum() < budget
    assert lengths.min() >= 1
    assert lengths.max() <= min(39, max(num_tokens // 2, 1))


def test_single_spans_are_as_frequent_as_asked_though_many_plans_are_rejected():
    objective = ObjectiveConfig(single_span_probability=0.5)
    plans = [draw_plan(rng_for(seed), [456], 500, objective) for seed in range(2000)]
    assert sum(redraws for _, redraws in plans) > 300
    singles = sum(len(lengths) == 1 for (lengths,), _ in plans)
    assert stats.binomtest(singles, 2000, 0.5).pvalue > 0.001


@given(SEEDS, st.lists(st.integers(1, 300), min_size=1, max_size=3))
def test_plan_fits_its_window_and_its_slices(seed: int, slices: list[int]):
    objective = ObjectiveConfig()
    spans = sum(-(-hidden_budget(objective, length) // 2) for length in slices)
    room = sum(slices) + 2 * spans
    plan, redraws = draw_plan(rng_for(seed), slices, room, objective)
    assert sum(slices) + 2 * sum(map(len, plan)) <= room
    assert redraws >= 0
    for lengths, num_tokens in zip(plan, slices, strict=True):
        assert lengths.sum() + len(lengths) - 1 <= num_tokens


def test_tight_window_is_drawn_again_and_counted():
    redraws = [draw_plan(rng_for(seed), [456], 500, ObjectiveConfig())[1] for seed in range(50)]
    assert sum(redraws) > 10


def test_spans_that_fit_no_window_are_refused_with_what_to_change():
    objective = ObjectiveConfig(mask_fraction=0.6)
    with pytest.raises(
        ConfigError, match=r"fit a window of 512\. Lower objective.mask_fraction \(0.6\)"
    ):
        check_plans_fit(456, 512, objective)


def test_spans_that_rarely_fit_are_refused_before_the_run():
    check_plans_fit(456, 512, ObjectiveConfig())
    with pytest.raises(ConfigError, match="hardly ever fit a window of 496"):
        check_plans_fit(456, 496, ObjectiveConfig())


def test_spans_that_leave_no_gaps_are_refused_with_what_to_change():
    objective = ObjectiveConfig(mask_fraction=0.9, max_span_length=2)
    with pytest.raises(ConfigError, match=r"a visible token between them\. Lower objective"):
        check_plans_fit(456, None, objective)


def test_distribution_is_the_restricted_poisson():
    # Weights 3^l / l! for l = 1..4: 3, 4.5, 4.5, 3.375; sum 15.375.
    expected = [3 / 15.375, 4.5 / 15.375, 4.5 / 15.375, 3.375 / 15.375]
    assert length_distribution(3.0, 4).tolist() == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(length_distribution(300.0, 39)).all()


def test_short_slice_has_no_span_longer_than_its_half():
    objective = ObjectiveConfig()
    assert [longest_span(objective, size) for size in (1, 3, 10, 78, 456)] == [1, 1, 5, 39, 39]
