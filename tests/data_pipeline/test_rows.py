"""Every stored token is read exactly once an epoch, by rows of the asked objectives."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.derive import slice_length
from configs.errors import DataError
from configs.objectives import BUILT_IN, Objective
from configs.schema import ObjectiveConfig, SliceRule
from data_pipeline.rows import MIN_ROWS, Division, Row, RowMap, divide

SHARES = st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.95, 1.0])


def epoch_of(rows: RowMap, epoch: int) -> list[Row]:
    return [rows.row(epoch * rows.num_rows + place) for place in range(rows.num_rows)]


@given(
    st.integers(8, 60_000),
    st.sampled_from([32, 64, 512, 2048]),
    SHARES,
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 5, 64]),
)
@settings(max_examples=60)
def test_an_epoch_reads_every_token_exactly_once(
    num_tokens: int, seq_length: int, share: float, seed: int, locality_rows: int
):
    objective = ObjectiveConfig(gmask_share=share)
    rows = RowMap("text", num_tokens, seq_length, objective, seed, locality_rows=locality_rows)
    for epoch in range(2):
        reads = np.zeros(num_tokens, dtype=np.int64)
        for row in epoch_of(rows, epoch):
            assert row.epoch == epoch
            np.add.at(reads, np.arange(row.start, row.start + row.length) % num_tokens, 1)
        assert (reads == 1).all()


@given(st.integers(8, 10**6), st.sampled_from([32, 64, 512, 2048]), SHARES, st.integers(0, 2**32))
@settings(max_examples=60)
def test_rows_hold_their_share_to_the_nearest_row_and_never_too_much(
    num_tokens: int, seq_length: int, share: float, seed: int
):
    rows = RowMap("text", num_tokens, seq_length, ObjectiveConfig(gmask_share=share), seed)
    division = rows.division
    assert abs(division.counts[1] - share * division.num_rows) <= 0.5
    assert division.num_rows >= MIN_ROWS
    most = {Objective.MASK: 4 * slice_length(seq_length // 4), Objective.GMASK: seq_length - 1}
    counted: Counter[Objective] = Counter()
    for place in range(min(division.num_rows, 300)):
        row = rows.row(place)
        counted[row.objective] += 1
        assert 1 <= row.length <= most[row.objective]
        assert 0 <= row.start < num_tokens
    if division.num_rows <= 300:
        assert counted[Objective.GMASK] == division.counts[1]


def test_one_row_fewer_would_not_hold_the_stream():
    # 30 rows of 1824 and 70 of 2047 tokens hold 198,010; 30 and 69 hold 195,963.
    def num_rows(num_tokens: int) -> tuple[int, ...]:
        division = RowMap("text", num_tokens, 2048, ObjectiveConfig(), 1).division
        return division.counts

    assert num_rows(198_010) == (30, 70)
    assert num_rows(195_964) == (30, 70)
    assert num_rows(195_963) == (30, 69)
    assert num_rows(198_011) == (30, 71)


def test_full_rows_read_as_many_tokens_as_the_rule_says():
    rows = RowMap("text", 198_010, 2048, ObjectiveConfig(), seed=1)
    lengths = {(row.objective, row.length) for row in epoch_of(rows, 0)}
    assert lengths == {(Objective.MASK, 4 * 456), (Objective.GMASK, 2047)}


def test_epochs_cut_the_text_elsewhere_and_in_another_order():
    rows = RowMap("text", 198_010, 2048, ObjectiveConfig(), seed=1)
    first, second = epoch_of(rows, 0), epoch_of(rows, 1)
    assert [row.number for row in first] != [row.number for row in second]
    assert {row.start for row in first}.isdisjoint(row.start for row in second)


def test_locality_keeps_reads_near_each_other_for_a_while():
    rows = RowMap("text", 10**7, 512, ObjectiveConfig(), seed=1, locality_rows=100)
    starts = np.array([rows.row(place).start for place in range(1000)])
    for window in starts.reshape(10, 100):
        spread = (window - window[0] + 5 * 10**6) % 10**7
        assert np.ptp(spread) <= 100 * 511
        assert (np.diff(window) < 0).any() and (np.diff(window) > 0).any()
    assert np.ptp(starts) > 10**6


def test_order_depends_on_seed_and_name():
    def order(name: str, seed: int) -> list[int]:
        return [
            row.number for row in epoch_of(RowMap(name, 10**5, 512, ObjectiveConfig(), seed), 0)
        ]

    assert order("a", 1) == order("a", 1)
    assert order("a", 1) != order("a", 2)
    assert order("a", 1) != order("b", 1)


def test_row_of_a_stream_of_a_trillion_tokens_is_found_at_once():
    rows = RowMap("text", 10**12, 2048, ObjectiveConfig(), seed=1)
    assert rows.num_rows == pytest.approx(10**12 / (0.3 * 1824 + 0.7 * 2047), rel=1e-6)
    row = rows.row(123_456_789_012)
    assert row.epoch == 123_456_789_012 // rows.num_rows
    assert row.length in (1823, 1824, 2046, 2047)


@pytest.mark.parametrize("seq_length", [32, 64, 2048])
def test_no_row_of_a_tiny_stream_is_empty(seq_length: int):
    for num_tokens in range(8, 120):
        rows = RowMap("text", num_tokens, seq_length, ObjectiveConfig(), seed=1)
        assert min(row.length for row in epoch_of(rows, 0)) >= 1


def test_stream_of_a_few_tokens_is_refused():
    with pytest.raises(DataError, match="The corpus poem has 7 tokens; at least 8 are needed"):
        RowMap("poem", 7, 512, ObjectiveConfig(), seed=1)


def test_original_rows_are_2000_tokens_at_fixed_places():
    objective = ObjectiveConfig(slice_rule=SliceRule.glm_130b)
    rows = RowMap("text", 201_999, 2048, objective, seed=1)
    for epoch in range(2):
        found = sorted((row.start, row.length) for row in epoch_of(rows, epoch))
        assert found == [(2000 * number, 2000) for number in range(100)]
    # Each row draws its objective anew in each epoch: about 70 of 100 are [gMASK].
    kinds = [{row.start: row.objective for row in epoch_of(rows, epoch)} for epoch in range(2)]
    assert kinds[0] != kinds[1]
    assert 50 < list(kinds[0].values()).count(Objective.GMASK) < 90


@pytest.mark.parametrize("rule", list(SliceRule))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.7, 1.0])
def test_validation_holds_each_objective_at_its_share_in_any_prefix(rule: SliceRule, share: float):
    objective = ObjectiveConfig(slice_rule=rule, gmask_share=share)
    rows = RowMap("text", 10**5, 512, objective, seed=1, is_validation=True)
    gmask = 0
    for place in range(rows.num_rows):
        gmask += rows.row(place).objective is Objective.GMASK
        assert abs(gmask - share * (place + 1)) <= 1
    assert gmask == rows.division.counts[1]


@pytest.mark.parametrize("rule", list(SliceRule))
def test_validation_rows_are_all_different_and_the_same_in_every_pass(rule: SliceRule):
    rows = RowMap("text", 10**5, 512, ObjectiveConfig(slice_rule=rule), seed=1, is_validation=True)
    first, second = epoch_of(rows, 0), epoch_of(rows, 1)
    assert first == second
    assert len({row.number for row in first}) == rows.num_rows


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_rows_of_an_objective_are_found_by_their_rank(counts: list[int]):
    division = Division(tuple(counts), (0,) * len(counts))
    ranks = [0] * len(counts)
    for number in range(division.num_rows):
        assert division.rows_before(number) == ranks
        which = division.which(number)
        assert division.nth(which, ranks[which]) == number
        ranks[which] += 1
        # Each list of k objectives is interleaved by k - 1 roundings of at most half a row.
        shares = [(number + 1) * count / division.num_rows for count in counts]
        assert max(abs(np.subtract(ranks, shares))) <= max(len(counts) - 1, 0) / 2
    assert ranks == counts


SIZES = st.lists(st.tuples(st.integers(1, 2047), st.floats(0, 0.25)), min_size=1, max_size=4)


@given(st.integers(8, 10**6), SIZES)
def test_any_list_of_objectives_divides_the_stream_without_gap_or_stub(
    num_tokens: int, others: list[tuple[int, float]]
):
    sizes, shares = [1824, *(size for size, _ in others)], [0.0, *(share for _, share in others)]
    division = divide(num_tokens, sizes, shares)
    assert sum(division.tokens) == num_tokens
    for size, count, tokens in zip(sizes, division.counts, division.tokens, strict=True):
        assert count <= tokens <= size * count
    starts = [division.start_of(number) for number in range(min(division.num_rows, 300) + 1)]
    assert starts[0] == 0 and division.start_of(division.num_rows) == num_tokens
    assert min(np.diff(starts)) >= 1
    for which, share in enumerate(shares[1:], start=1):
        assert abs(division.counts[which] - share * division.num_rows) <= 0.5


@pytest.mark.parametrize("is_validation", [False, True])
def test_each_objective_reads_every_part_of_the_text(is_validation: bool):
    num_tokens, parts = 10**5, 10
    rows = RowMap("text", num_tokens, 512, ObjectiveConfig(), 1, is_validation)
    read = {objective: np.zeros(parts) for objective in BUILT_IN}
    for row in epoch_of(rows, 0):
        places = np.arange(row.start, row.start + row.length) % num_tokens
        read[row.objective] += np.bincount(places * parts // num_tokens, minlength=parts)
    # A part of 10,000 tokens holds its share of each objective, to a row at either end.
    share = rows.division.tokens[0] / parts
    assert np.abs(read[Objective.MASK] - share).max() <= 2 * 456
    assert np.abs(read[Objective.GMASK] - (num_tokens / parts - share)).max() <= 2 * 511
