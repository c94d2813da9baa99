"""The ranks on their nodes: the last attempt's layout, the newest times, and the ranks that are slow now."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.report.panel import Panel
from train.report.rank_map import panels
from train.report.read import read_run

START = {
    "event": "start",
    "time": 1.0,
    "samples_seen": 8,
    "world_size": 8,
    "tp": 2,
    "pp": 2,
    "dp": 2,
    "nodes": [["a", 0, 3], ["b", 3, 5]],
}


def slow(rank: int, state: str = "slow") -> dict[str, Any]:
    return {
        "event": "slow_rank",
        "time": 2.0,
        "rank": rank,
        "host": "b",
        "state": state,
        "excess": 0.25,
    }


def panels_of(
    folder: Path, events: list[dict[str, Any]], details: list[dict[str, Any]] | None = None
) -> list[Panel]:
    folder.mkdir(exist_ok=True)
    line = {"step": 9, "samples_seen": 72, "tokens_seen": 72}
    for name, lines in (("metrics", [line]), ("events", events), ("details", details or [])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return panels([read_run(folder)])


def test_ranks_stand_on_their_nodes_with_their_times(tmp_path: Path) -> None:
    seconds = [1.0, 1.5, 1.25, 2.0, 3.0, 4.0, "nan", 5.0]
    details = [
        {"step": 1, "samples_seen": 8, "ranks/seconds": [9.0] * 8},  # of the attempt before
        {"step": 8, "samples_seen": 64, "ranks/seconds": seconds},
        {"step": 9, "samples_seen": 72, "ranks/seconds": [1.0]},  # of another layout
    ]
    (panel,) = panels_of(tmp_path, [START, slow(6), slow(1), slow(1, "over")], details)
    assert panel.title == "Ranks on nodes: tp 2 x pp 2 x dp 2"
    assert panel.data["seconds"] == [1.0, 1.5, 1.25, 2.0, 3.0, 4.0, None, 5.0]
    assert panel.data["step"] == 8
    assert panel.data["slow"] == [{"rank": 6, "excess": 0.25}]
    # Ranks 0 to 3 are stage 0: two replicas of two tensor slices.
    assert panel.rows == [
        ["a", "0 to 2", "0", "0 to 1", 1.25, 1.5, ""],
        ["b", "3 to 7", "0 to 1", "0 to 1", 3.5, 5.0, "6 (+25 %)"],
    ]


def test_a_new_attempt_forgets_times_and_slow_ranks(tmp_path: Path) -> None:
    details = [{"step": 8, "samples_seen": 64, "ranks/seconds": [1.0] * 8}]
    resumed = {**START, "event": "resume", "samples_seen": 64}
    (panel,) = panels_of(tmp_path, [START, slow(6), resumed], details)
    assert panel.data["seconds"] is None and panel.data["slow"] == []


@pytest.mark.parametrize(
    "nodes",
    [None, "x", [["a", 0, 7]], [["a", 0, 4], ["b", 5, 4]], [["a", 0, 9]], [[1, 0, 8]], [["a", 0]]],
)
def test_nodes_that_do_not_hold_each_rank_once_are_not_known(tmp_path: Path, nodes: Any) -> None:
    (panel,) = panels_of(tmp_path, [{**START, "nodes": nodes}])
    assert panel.data["nodes"] == [] and "do not name the nodes" in panel.note
    assert [row[:2] for row in panel.rows] == [
        ["not recorded", "0 to 3"],
        ["not recorded", "4 to 7"],
    ]


@pytest.mark.parametrize(
    "sizes",
    [{"tp": 1, "pp": 1, "dp": 1}, {"tp": 0}, {"pp": None}, {"dp": 10**9}, {"tp": True}],
)
def test_one_rank_or_no_layout_has_no_panel(tmp_path: Path, sizes: dict[str, Any]) -> None:
    assert panels_of(tmp_path, [{**START, **sizes}]) == []


def test_names_of_nodes_are_shown_without_control_characters(tmp_path: Path) -> None:
    (panel,) = panels_of(tmp_path, [{**START, "nodes": [["a\x1b[31m", 0, 8]]}])
    assert "\x1b" not in json.dumps([panel.data, panel.rows], ensure_ascii=False)
