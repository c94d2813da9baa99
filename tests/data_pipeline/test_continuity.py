"""What may change when a run goes on, what must not, and that the advice given is taken and works."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import ObjectiveConfig
from data_pipeline.continuity import compare
from data_pipeline.dataset import GLMDataset, Source
from data_pipeline.instructions import NAME as INSTRUCTIONS
from data_pipeline.mixing.mixture import stages_of
from tests.helpers.streams import CountingStream
from tests.helpers.tiny import SPECIAL

SIZES = {"a": 20_000, "b": 31_000, "c": 7_000, "d": 3_000}


def open_dataset(
    names: str, stages: list[list[float]] | None = None, ramp: int = 0, **sizes: int
) -> GLMDataset:
    sources = [Source(name, CountingStream({**SIZES, **sizes}[name])) for name in names]
    typed = None if stages is None else stages_of(stages, len(names))
    return GLMDataset(sources, SPECIAL, ObjectiveConfig(), 128, 1, stages=typed, ramp_samples=ramp)


def described(*arguments: Any, **sizes: int) -> dict[str, Any]:
    return open_dataset(*arguments, **sizes).describe()


def typed_stages(advice: str) -> list[list[float]]:
    """The rows that a message says to type."""
    found = re.search(r"data\.stages=\[(\S*)\]", advice)
    assert found
    return [list(map(float, row.split(","))) for row in re.findall(r"\[([\d.,]+)\]", found[1])]


def test_the_same_data_go_on():
    found = compare(described("ab"), described("ab"), 100)
    assert (found.breaks, found.advice, found.ahead) == ([], "", [])


def test_a_source_and_stages_ahead_are_accepted_and_told():
    before = described("ab", [[0, 0.5, 0.5]])
    now = described("acb", [[0, 0.5, 0, 0.5], [100, 0.4, 0.2, 0.4]])
    found = compare(before, now, 100)
    assert found.breaks == []
    assert found.ahead == [
        "new source c of 7,000 tokens",
        "weights ahead: from 100 a 0.4, c 0.2, b 0.4",
    ]
    assert compare(now, before, 100).breaks == []
    assert compare(now, before, 101).breaks != []


def test_a_stage_in_the_past_is_refused():
    before = described("ab", [[0, 0.5, 0.5]])
    found = compare(before, described("ab", [[0, 0.5, 0.5], [99, 0.4, 0.6]]), 100)
    assert found.breaks == [
        "the weights before sample 100 were from 0 a 0.5, b 0.5, and are now from 0 a 0.5, b 0.5; from 99 a 0.4, b 0.6"
    ]
    assert typed_stages(found.advice) == [[0, 1, 1], [100, 2, 3]]


def test_another_share_of_instructions_is_refused_with_the_share_that_begins_here():
    def with_instructions(*stages: list[float]) -> dict[str, Any]:
        described_now = described("abc", list(stages))
        described_now["sources"][2]["name"] = INSTRUCTIONS
        return described_now

    before = with_instructions([0, 57, 38, 5])
    found = compare(before, with_instructions([0, 54, 36, 10]), 100)
    assert found.advice.endswith("type data.instruction_share=[[0,0.05],[100,0.1]]")
    found = compare(before, with_instructions([0, 45, 45, 10]), 100)
    assert found.advice.endswith(
        "type data.stages=[[0,3,2],[100,1,1]] data.weights=null "
        "data.instruction_share=[[0,0.05],[100,0.1]]"
    )


def test_stretches_of_instructions_alone_leave_the_texts_their_weights() -> None:
    def with_instructions(*stages: list[float]) -> dict[str, Any]:
        described_now = described("abc", list(stages))
        described_now["sources"][2]["name"] = INSTRUCTIONS
        return described_now

    before = with_instructions([0, 0, 0, 1])
    found = compare(before, with_instructions([0, 57, 38, 5]), 100)
    assert found.advice.endswith("type data.instruction_share=[[0,1],[100,0.05]]")
    found = compare(with_instructions([0, 57, 38, 5]), before, 100)
    assert found.advice.endswith(
        "type data.stages=[[0,3,2]] data.weights=null data.instruction_share=[[0,0.05],[100,1]]"
    )


def test_one_more_set_of_instructions_is_refused_with_what_accepting_it_means():
    stages = [[0, 1, 1, 1]]
    before, now = described("abc", stages), described("abc", stages, c=30_000)
    for each in (before, now):
        each["sources"][2]["name"] = INSTRUCTIONS
    (found,) = compare(before, now, 100).breaks
    assert found.startswith(f"source {INSTRUCTIONS} had ")
    assert "share one order" in found and "some repeat in the current epoch" in found
    assert "share one order" not in compare(described("ab"), described("ab", b=30_000), 1).breaks[0]


def test_instructions_that_are_gone_are_refused_with_the_share_that_ends_them():
    before = described("abc")
    before["sources"][2]["name"] = INSTRUCTIONS
    (found,) = compare(before, described("ab"), 100).breaks
    assert found.endswith("keep it and add the point [100,0] at the end of data.instruction_share")


@pytest.mark.parametrize("after", ["abc", "cab"])
def test_source_added_by_size_is_refused_with_the_line_that_adds_it_from_here(after: str):
    before, drawn = open_dataset("ab"), 777
    found = compare(before.describe(), open_dataset(after).describe(), drawn)
    assert "the weights before sample 777 were from 0 a 0.39" in found.breaks[0]
    now = open_dataset(after, typed_stages(found.advice))
    taken = compare(before.describe(), now.describe(), drawn)
    assert taken.breaks == []
    for index in [*range(0, drawn, 50), drawn - 1]:
        assert before[index].tokens.tolist() == now[index].tokens.tolist()
    assert now.shares_at(drawn) == pytest.approx(open_dataset(after).shares_at(0), abs=1e-4)


def test_changed_ramp_is_refused_once_a_stage_has_begun():
    stages = [[0, 1, 1], [50, 1, 2]]
    before, now = described("ab", stages, 10), described("ab", stages, 20)
    assert compare(before, now, 50).breaks == []
    found = compare(before, now, 51)
    assert found.breaks
    assert found.advice.endswith("data.stage_ramp_samples=10")


def test_changed_source_is_named_with_what_changed():
    found = compare(described("ab"), described("ab", b=30_000), 100)
    assert found.breaks[0].startswith("source b had 31,000 tokens with fingerprint ")
    assert "and has 30,000 with" in found.breaks[0]
    assert "share one order" not in found.breaks[0]  # which is of instructions
    assert found.has_new_tokens


def test_source_that_was_never_drawn_may_change_or_go():
    before = described("abc", [[0, 1, 1, 0], [500, 1, 1, 1]])
    assert (
        compare(before, described("abc", [[0, 1, 1, 0], [500, 1, 1, 1]], c=9000), 100).breaks == []
    )
    assert compare(before, described("ab", [[0, 1, 1]]), 100).breaks == []
    assert compare(before, described("abc", [[0, 1, 1, 0], [500, 1, 1, 1]], 0, c=9000), 501).breaks


def test_source_that_was_drawn_must_stay():
    found = compare(described("abc"), described("ab"), 100)
    assert found.breaks[0].startswith("source c (7,000 tokens) is missing from data.paths")


def test_another_order_of_sources_is_refused():
    # Equals are served in the order of data.paths.
    stages = [[0, 1, 1]]
    assert compare(described("ab", stages), described("ba", stages), 100).breaks


def test_another_order_of_sources_is_refused_with_the_order_that_goes_on():
    found = compare(described("ab"), described("ba"), 1)
    assert len(found.breaks) == 1 and "in a different order" in found.breaks[0]
    assert found.advice == "Name data.paths in the order a, b"
    found = compare(described("ab"), described("cba"), 100)
    assert found.advice.startswith(
        "Name data.paths in the order a, b, c. To continue with the new w"
    )
    taken = described("abc", typed_stages(found.advice))
    assert compare(described("ab"), taken, 100).breaks == []


def test_settings_of_the_samples_must_be_the_same():
    before = described("ab")
    found = compare(before, {**before, "seed": 2, "seq_length": 64}, 100)
    assert found.breaks == ["seed: 1 -> 2", "seq_length: 128 -> 64"]


ROWS = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@given(
    st.lists(st.tuples(st.integers(1, 200), ROWS), max_size=3),
    st.lists(st.tuples(st.integers(1, 200), ROWS), max_size=3),
    ROWS,
    st.integers(1, 220),
    st.sampled_from([0, 30]),
)
@settings(max_examples=60)
def test_what_is_accepted_draws_the_same(
    old: list[tuple[int, list[int]]],
    new: list[tuple[int, list[int]]],
    first: list[int],
    drawn: int,
    ramp: int,
):
    def open_stages(changes: list[tuple[int, list[int]]]) -> GLMDataset:
        rows = [[0, *first], *([start, *row] for start, row in sorted(dict(changes).items()))]
        return open_dataset("abcd", rows, ramp)

    # A change of what is ahead alone, and one that may reach into the past.
    ahead = [change for change in old if change[0] < drawn] + [c for c in new if c[0] >= drawn]
    assert compare(open_stages(old).describe(), open_stages(ahead).describe(), drawn).breaks == []
    for changes in (ahead, new):
        before, now = open_stages(old), open_stages(changes)
        found = compare(before.describe(), now.describe(), drawn)
        if found.advice:
            now = open_dataset("abcd", typed_stages(found.advice), ramp)
            assert compare(before.describe(), now.describe(), drawn).breaks == []
        elif found.breaks:
            continue
        for index in range(drawn):
            assert before.locate(index) == now.locate(index)


def test_stage_at_which_nothing_changes_is_none():
    assert described("ab", [[0, 1, 2], [10, 2, 4]]) == described("ab", [[0, 1, 2]])
