"""Events stand at the samples at which they happened, whether they say so or not, and are told in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.run_files import Event
from tests.helpers.report_runs import BATCH, make_run
from train.report.columns import Columns
from train.report.events import LANES, events_of
from train.report.positions import exact_positions, placed
from train.report.read import read_run
from train.report.timeline import panels

METRICS = Columns([{"step": step, "samples_seen": 8 * step} for step in range(1, 101)])


def places(*events: tuple[str, dict[str, object]]) -> list[tuple[float, float | None]]:
    found = placed([(Event(kind, 1.0), details) for kind, details in events], METRICS)
    return [(each.at, each.until) for each in found]


def test_an_event_says_where_it_is_or_names_its_step() -> None:
    assert places(
        ("start", {"samples_seen": 0}),
        ("checkpoint", {"samples_seen": 80}),
        ("skip", {"samples_seen": [88, 96]}),
        ("spike", {"step": 20}),
        ("rollback", {"checkpoint_samples": 80, "found_samples": 200}),
    ) == [(0, None), (80, None), (96, None), (160, None), (80, 200)]


def test_an_end_stands_where_its_attempt_ended() -> None:
    found = places(
        ("start", {"samples_seen": 0}),
        ("checkpoint", {"samples_seen": 160}),
        ("error", {"message": "killed"}),
        ("resume", {"samples_seen": 160, "repeated_samples": [160, 240]}),
        ("config_change", {"changes": ["x"]}),
        ("stop", {"reason": "asked"}),
        ("resume", {"samples_seen": 400}),
        ("done", {"samples_seen": 800}),
    )
    assert [at for at, _ in found] == [0, 160, 240, 160, 160, 400, 400, 800]
    assert found[3] == (160, 240)  # it trains the stretch again
    # The last attempt ends with the last line of metrics.
    assert places(("start", {"samples_seen": 0}), ("hang", {})) == [(0, None), (800, None)]


@pytest.mark.parametrize(
    "details",
    [{"samples_seen": -1}, {"samples_seen": "5"}, {"samples_seen": [1]}, {"step": 10**9}, {"step": True}, {"samples_seen": 2**70}],
)  # fmt: skip
def test_a_damaged_position_is_that_of_the_event_before(details: dict[str, object]) -> None:
    assert places(("start", {"samples_seen": 16}), ("spike", details))[1] == (16, None)


def test_rare_events_have_their_exact_rows_first() -> None:
    many = [("skip", {"samples_seen": [8 * n, 8 * n + 8]}) for n in range(500)]
    events = placed(
        [
            (Event(kind, 1.0), details)
            for kind, details in [
                *many,
                ("checkpoint", {"samples_seen": 7}),
                ("rollback", {"checkpoint_samples": 80, "found_samples": 200}),
            ]
        ],
        METRICS,
    )
    found = exact_positions(events)
    assert found[:2] == [80, 200] and len(found) == 120 and 7 not in found


def test_events_are_told_in_words(tmp_path: Path) -> None:
    found = events_of(read_run(make_run(tmp_path / "run", 400)), 0)
    words = {each["kind"]: each["text"] for each in found}
    assert words["config_change"] == "changed: optim.lr: 0.003 -> 0.0006 everybody"
    assert words["skip"] == "step 100 left out: overflow everybody"
    assert words["layout_change"] == "layout changes from tp 1 x pp 1 x dp 2 to tp 2 x pp 1 x dp 1"
    assert "back to the checkpoint of step 180" in words["rollback"]
    assert words["error"] == "error: killed everybody"
    assert words["everybody"] == "everybody: note everybody"
    (back,) = [each for each in found if each["kind"] == "rollback"]
    assert (back["at"], back["until"], back["lane"]) == (BATCH * 180, BATCH * 205, "rollbacks")
    assert [each["lane"] for each in found if each["kind"] not in LANES] == ["others"]
    assert all(each["run"] == 0 for each in found)


def test_frequent_events_are_thinned_out_and_rare_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.report.events.MAX_EVENTS", 40)
    run = read_run(make_run(tmp_path / "run", 400))
    before = events_of(run, 0)
    assert len(before) == 19
    saved = [(Event("checkpoint", 5.0), {"samples_seen": 8 * step}) for step in range(1, 401)]
    found = events_of(replace(run, events=[*run.events, *saved]), 0)
    assert len(found) <= 40
    rare = [each for each in before if each["kind"] != "checkpoint"]
    assert [each for each in found if each["kind"] != "checkpoint"] == rare
    assert sum(each["kind"] == "checkpoint" for each in found) == 40 - len(rare)
    (panel,) = panels([replace(run, events=[*run.events, *saved])])
    assert panel.note.endswith(f"40 of {len(run.events) + 400} events.")
