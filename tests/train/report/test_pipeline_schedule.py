"""The measured pipeline schedule: its bubble by hand, beside that of equal passes, and only what was really measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.report.panel import Panel
from train.report.pipeline_schedule import Pass, busy, panels, schedule_in
from train.report.read import read_run


def passed(kind: str, micro_batch: int, start: float, end: float, chunk: int = 0) -> dict[str, Any]:
    return {"kind": kind, "micro_batch": micro_batch, "chunk": chunk, "start": start, "end": end}


# Two stages, two micro-batches; forward 1 s, backward 2 s, 1F1B; the step begins half a second before the first pass.
STAGES = [
    [
        passed("forward", 0, 0.5, 1.5),
        passed("forward", 1, 1.5, 2.5),
        passed("backward", 0, 4.5, 6.5),
        passed("backward", 1, 7.5, 9.5),
    ],
    [
        passed("forward", 0, 1.5, 2.5),
        passed("backward", 0, 2.5, 4.5),
        passed("forward", 1, 4.5, 5.5),
        passed("backward", 1, 5.5, 7.5),
    ],
]
LINE = {"step": 3, "samples_seen": 24, "pipeline/passes": {"stages": STAGES, "step": 3}}


def panels_of(folder: Path, details: list[dict[str, Any]]) -> list[Panel]:
    line = {"step": 9, "samples_seen": 72, "tokens_seen": 72}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "details.jsonl").write_text("".join(json.dumps(each) + "\n" for each in details))
    return panels([read_run(folder)])


def test_the_bubble_by_hand(tmp_path: Path) -> None:
    (panel,) = panels_of(tmp_path, [LINE, {"step": 4, "samples_seen": 32}])
    # 9 seconds from the first pass to the last; each stage is busy for 6 of them.
    assert panel.data["seconds"] == 9.0
    assert panel.data["bubble"] == pytest.approx(1 / 3)
    assert panel.data["ideal"] == pytest.approx(1 / 3)  # (pp - 1) / (m + pp - 1)
    assert panel.title == "Pipeline schedule: bubble 33.3 %"
    assert panel.rows == [[0, 2, 2, 6.0, 3.0, 33.33], [1, 2, 2, 6.0, 3.0, 33.33]]
    # stage, kind, micro-batch, chunk, and seconds since the first pass
    assert panel.data["passes"][0] == [0, 0, 0, 0, 0.0, 1.0]
    assert [0, 1, 1, 0, 7.0, 9.0] in panel.data["passes"]


def test_chunks_shorten_the_ideal_bubble(tmp_path: Path) -> None:
    stages = [[{**each, "chunk": each["micro_batch"]} for each in stage] for stage in STAGES]
    (panel,) = panels_of(tmp_path, [{**LINE, "pipeline/passes": {"stages": stages, "step": 3}}])
    assert panel.data["chunks"] == 2
    assert panel.data["ideal"] == pytest.approx(0.5 / 2.5)


def test_the_newest_attempt_is_shown(tmp_path: Path) -> None:
    newer = {"step": 8, "samples_seen": 64, "pipeline/passes": {"stages": STAGES, "step": 8}}
    (panel,) = panels_of(tmp_path, [LINE, newer])
    assert panel.data["step"] == 8


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"stages": [STAGES[0]], "step": 3},  # one stage has no pipeline
        {"stages": [[], []], "step": 3},
        {"stages": [STAGES[0], "x"], "step": 3},
        {"stages": [STAGES[0], [{**STAGES[1][0], "end": 0.0}]], "step": 3},
        {"stages": [STAGES[0], [{**STAGES[1][0], "start": "nan"}]], "step": 3},
        {"stages": [STAGES[0], [{**STAGES[1][0], "kind": "<script>"}]], "step": 3},
        {"stages": [STAGES[0], [{**STAGES[1][0], "micro_batch": -1}]], "step": 3},
    ],
)
def test_what_was_not_measured_is_not_drawn(tmp_path: Path, value: Any) -> None:
    assert panels_of(tmp_path, [{"step": 3, "samples_seen": 24, "pipeline/passes": value}]) == []
    assert panels_of(tmp_path, [{"step": 3, "samples_seen": 24}]) == []


def test_many_passes_are_drawn_in_part_and_counted_as_a_whole(tmp_path: Path) -> None:
    own = [passed("forward", n, float(n), n + 0.5) for n in range(4000)]
    (panel,) = panels_of(tmp_path, [{**LINE, "pipeline/passes": {"stages": [own, own], "step": 3}}])
    assert len(panel.data["passes"]) == 6000
    assert panel.data["bubble"] == pytest.approx(1 - 2000 / 3999.5)
    assert "first 6,000 of 8,000 passes" in panel.note


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12))
def test_busy_seconds_are_those_of_the_union(spans: list[tuple[int, int]]) -> None:
    passes = [Pass("forward", 0, 0, start, start + length) for start, length in spans]
    covered = {second for start, length in spans for second in range(start, start + length)}
    assert busy(passes) == len(covered)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists))
def test_any_value_is_taken_or_passed_over(value: Any) -> None:
    assert schedule_in({"step": 1, "pipeline/passes": {"stages": value, "step": 1}}) is None
