"""What interventions.json says of a run: left-out ranges, factors that ease off, and a file that is read as written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import RecordError
from configs.interventions import (
    EarlierSchedule,
    Interventions,
    Rollback,
    read_interventions,
    skipped_by,
)
from configs.load import load_config
from configs.schema import BatchRampConfig, OptimConfig, Schedule


def rollback(*skip: tuple[int, int], **fields: Any) -> Rollback:
    """One decision; what is not named does not matter."""
    places = dict.fromkeys(("onset_step", "found_step", "onset_samples", "found_samples"), 0)
    default = {"generation": 1, "reason": "a spike", "checkpoint_step": 0, "checkpoint_samples": 0}
    return Rollback(**{**places, **default, "skip": list(skip), **fields})


EASED = rollback(
    checkpoint_samples=100,
    learning_rate=0.5,
    embedding_shrink=0.2,
    until_samples=200,
    return_samples=40,
)


@st.composite
def ranges(draw: st.DrawFn) -> list[list[int]]:
    """Ordered, disjoint ranges of a configuration, which may touch each other."""
    borders = sorted(draw(st.sets(st.integers(0, 60), max_size=8)))
    pairs = zip(borders[:-1], borders[1:], strict=True)
    kept = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    return [[a, b] for (a, b), is_kept in zip(pairs, kept, strict=False) if is_kept]


one_range = st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda each: (each[0], sum(each)))


@given(ranges(), st.lists(st.lists(one_range, max_size=2), max_size=4))
def test_left_out_are_exactly_the_samples_of_all_ranges_and_those_configured_stay(
    configured: list[list[int]], decided: list[list[tuple[int, int]]]
) -> None:
    found = Interventions([rollback(*skip) for skip in decided]).skipped(configured)
    assert all(start < stop for start, stop in found)
    assert all(before[1] <= after[0] for before, after in zip(found[:-1], found[1:], strict=True))
    assert all(each in found for each in configured)
    wanted = {n for a, b in [*configured, *(each for skip in decided for each in skip)] for n in range(a, b)}  # fmt: skip
    assert {n for a, b in found for n in range(a, b)} == wanted


def test_ranges_by_hand() -> None:
    known = Interventions([rollback((5, 25)), rollback((0, 3), (24, 50))])
    assert known.skipped([[30, 40], [10, 20]]) == [
        *([0, 3], [5, 10], [10, 20], [20, 25]),
        *([25, 30], [30, 40], [40, 50]),
    ]
    assert Interventions().skipped([[10, 20]]) == [[10, 20]]


def test_factors_hold_and_return_to_1_by_hand() -> None:
    places = (0, 99, 100, 199, 200, 210, 220, 239, 240, 10**9)
    rates = [EASED.eased(EASED.learning_rate, place) for place in places]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.625, 0.75, 0.9875, 1, 1])
    known = Interventions([EASED])
    assert [known.learning_rate_factor(place) for place in places] == rates
    shrinks = [known.embedding_shrink_factor(place) for place in places]
    assert shrinks == pytest.approx([1, 1, 0.2, 0.2, 0.2, 0.4, 0.6, 0.98, 1, 1])


def test_of_several_rollbacks_the_lowest_factor_holds() -> None:
    later = rollback(checkpoint_samples=150, learning_rate=0.8, until_samples=1000)
    known = Interventions([EASED, later])
    found = [known.learning_rate_factor(place) for place in (99, 100, 150, 220, 230, 999, 1000)]
    assert found == pytest.approx([1, 0.5, 0.5, 0.75, 0.8, 0.8, 1])


def test_a_factor_without_a_return_ends_at_once() -> None:
    sudden = rollback(learning_rate=0.5, until_samples=10)
    assert [sudden.eased(0.5, place) for place in (9, 10)] == [0.5, 1.0]


@given(
    seen=st.integers(0, 10**6),
    factor=st.floats(0.01, 1),
    checkpoint=st.integers(0, 10**5),
    length=st.integers(0, 10**5),
)
def test_a_factor_is_never_outside_of_itself_and_1(
    seen: int, factor: float, checkpoint: int, length: int
) -> None:
    each = rollback(
        checkpoint_samples=checkpoint, until_samples=checkpoint + length, return_samples=length
    )
    assert factor <= each.eased(factor, seen) <= 1


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    optim = OptimConfig(
        lr=3e-4,
        schedule=Schedule.wsd,
        min_lr=None,
        decay_samples=10**6,
        batch_ramp=BatchRampConfig(start=4, increment=None, samples=320),
    )
    known = Interventions(
        [EASED, rollback((3, 2**40), time=1664928000.25)],
        [
            EarlierSchedule(64, optim, [[0.0, 0.1], [100.0, 1.0]], 80, 1664928000.5),
            EarlierSchedule(96, OptimConfig(), [[0.0, 1.0]]),
        ],
    )
    (tmp_path / "interventions.json").write_text(known.to_json())
    found = read_interventions(tmp_path)
    assert found == known
    assert isinstance(found.schedules[0].optim.schedule, Schedule)
    assert found.schedules[0].optim.batch_ramp == optim.batch_ramp
    assert json.loads(known.to_json())["schedules"][0]["optim"]["schedule"] == "wsd"


def test_a_run_without_the_file_has_none(tmp_path: Path) -> None:
    assert (
        read_interventions(tmp_path) == read_interventions(tmp_path / "no run") == Interventions()
    )
    config = load_config(["data.skip_samples=[[8,16]]"])
    assert skipped_by(config, None) == skipped_by(config, tmp_path) == [[8, 16]]
    (tmp_path / "interventions.json").write_text(Interventions([rollback((10, 40))]).to_json())
    assert skipped_by(config, tmp_path) == [[8, 16], [16, 40]]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", '{"rollbacks": 3}', '{"rollbacks": [{}]}', '{"schedules": [{"until_samples": -1}]}',
        '{"schedules": [{"until_samples": 8, "optim": {"schedule": "zigzag"}, "embedding_shrink": []}]}',
        "[" * 10**5,
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "interventions.json").write_text(content)
    with pytest.raises(RecordError, match=r"^\S*interventions\.json is (damaged|nested)") as caught:
        read_interventions(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "interventions.json").write_text('{"format_version": 2}')
    with pytest.raises(RecordError, match="format version 2; this program knows 1"):
        read_interventions(tmp_path)
