"""What the panels hold of a run with everything on."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_runs import BATCH, COUNTED, LAYERS, make_run
from train.metrics import metric_keys
from train.report.panel import GROUPS, Panel
from train.report.read import RunData, read_run, with_own_names
from train.report.subjects import all_panels

STEPS = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(make_run(tmp_path_factory.mktemp("runs") / "one", STEPS))


@pytest.fixture(scope="module")
def panels(run: RunData) -> dict[str, Panel]:
    found = all_panels([run])
    assert len({panel.key for panel in found}) == len(found)
    return {panel.key: panel for panel in found}


def curve(panel: Panel, label: str, *, is_cut: bool = False) -> dict[str, Any]:
    (found,) = [
        each
        for each in panel.data["series"]
        if each["label"] == label and each["cut"] == is_cut and each["run"] == 0
    ]
    return found


def test_all_metrics_of_the_trainer_are_shown(panels: dict[str, Panel]) -> None:
    shown = {
        series["label"]
        for panel in panels.values()
        if panel.kind == "lines"
        for series in panel.data["series"]
    }
    elsewhere = {"step", "samples_seen", "tokens_seen", "data/samples_drawn"}
    assert set(metric_keys(COUNTED)) - shown == elsewhere
    assert len(shown) > 30


def test_panels_are_json_and_stand_in_known_groups(panels: dict[str, Panel]) -> None:
    json.dumps([panel.to_json() for panel in panels.values()], allow_nan=False)
    places = [GROUPS.index(panel.group) for panel in panels.values()]
    assert places == sorted(places)
    assert {"Overview", "Losses", "Layers", "Data", "Filled blanks", "Configuration"} <= {
        panel.group for panel in panels.values()
    }


def test_what_a_rollback_cut_off_is_a_curve_of_its_own(panels: dict[str, Panel]) -> None:
    cut = curve(panels["losses/train"], "train/loss", is_cut=True)
    assert (cut["x"][0], cut["x"][-1], cut["total"]) == (BATCH * 181, BATCH * 205, 25)
    kept = curve(panels["losses/train"], "train/loss")
    assert kept["total"] == STEPS
    assert kept["y"][0] < cut["y"][0] + 7  # another curve: two nats higher at its samples
    assert cut["y"][0] == pytest.approx(kept["y"][180] + 2, abs=1e-5)


def test_heat_maps_hold_every_layer(panels: dict[str, Panel]) -> None:
    panel = panels["layers/gradient_norm"]
    values, x = panel.data["values"], panel.data["x"]
    assert len(values) == LAYERS and {len(row) for row in values} == {len(x)} == {100}
    assert values[0][0] is None and values[1][0] is not None  # inf of the first layer
    assert (x[0], x[-1]) == (BATCH, BATCH * 397)
    assert panel.rows[1][0] == 1 and panel.rows[1][3] == min(values[1])


def test_the_parts_of_a_step_add_up(panels: dict[str, Panel]) -> None:
    panel = panels["throughput/split"]
    assert panel.data["stacked"]
    sums = [
        sum(each) for each in zip(*(series["y"] for series in panel.data["series"]), strict=True)
    ]
    assert sums == pytest.approx([0.25] * 100)


def test_the_mixture_turns_where_its_stages_do(panels: dict[str, Panel]) -> None:
    books = curve(panels["data/mixture"], "books")
    shares = dict(zip(books["x"], books["y"], strict=True))
    middle = BATCH * STEPS // 2
    assert (shares[0], shares[middle], shares[middle + 80], shares[BATCH * STEPS]) == (
        0.5,
        0.5,
        0.75,
        0.75,
    )
    assert shares[middle + 40] == pytest.approx(0.625)


def test_filled_blanks_keep_their_order(panels: dict[str, Panel]) -> None:
    blanks = panels["blanks"].data["blanks"]
    assert len(blanks) == 2 * 8
    assert blanks[0] == {
        "at": BATCH,
        "objective": "mask",
        "text": "The [MASK] of the run is shown to everybody.",
        "truth": "report",
        "filled": "everybody of",
    }
    assert blanks[-2]["filled"] == "report"


def test_changes_of_the_configuration_have_their_sample(panels: dict[str, Panel]) -> None:
    assert panels["configuration/changes"].rows == [
        ["one", BATCH * 100, "optim.lr: 0.003 -> 0.0006 everybody"]
    ]
    assert "total_samples: 3200" in panels["configuration/text"].data["text"]


def test_several_runs_are_compared_name_by_name(run: RunData, tmp_path: Path) -> None:
    other = read_run(make_run(tmp_path / "two", STEPS // 2, shift=1.0))
    found = {panel.key: panel for panel in all_panels([run, other])}
    panel = found["losses/train/0"]
    assert panel.title == "Training loss: train/loss"
    assert {series["run"] for series in panel.data["series"]} == {0, 1}
    assert {series["label"] for series in panel.data["series"]} == {"train/loss"}
    assert found["optimisation/lr"].title == "Learning rate"
    assert found["configuration/differences"].rows[0][0] == "optim.total_samples"
    assert found["configuration/differences"].columns == ("key", "one", "two")
    assert {"layers/gradient_norm/0", "layers/gradient_norm/1"} <= found.keys()


def test_runs_of_one_name_are_told_apart(run: RunData, tmp_path: Path) -> None:
    other = read_run(make_run(tmp_path / "one", 40))
    third = read_run(make_run(tmp_path / "three", 40))
    names = [each.name for each in with_own_names([run, other, third, other])]
    assert names == [str(run.folder), str(other.folder), "three", f"{other.folder} (2)"]


def test_parts_of_a_long_run_still_add_up(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 40)
    lines = (
        {
            "step": n,
            "samples_seen": 8 * n,
            "time/forward": 1.0,
            "time/rest": 0.5 if n != 77 else "inf",
        }
        for n in range(1, 9_001)
    )
    (folder / "details.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (panel,) = [each for each in all_panels([read_run(folder)]) if each.key == "throughput/split"]
    forward, rest = panel.data["series"]
    assert forward["x"] == rest["x"] and len(rest["x"]) == 2_000
    assert set(forward["y"]) == {1} and set(rest["y"]) == {0.5}
    assert "9,000 measurements: the means of 2,000 stretches." in panel.note


def test_damaged_details_and_samples_are_passed_over(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 40)
    lines = [
        {"step": 1, "samples_seen": 8, "layers/gradient_norm": "x", "time/data": [1], "parts/weight_norm": 3},
        {"step": 2, "samples_seen": 16, "layers/gradient_norm": [1, {"a": 2}, "nan", None, True, 2]},
        {"step": 3, "samples_seen": 24, "layers/gradient_norm": [1]},
    ]  # fmt: skip
    (folder / "details.jsonl").write_text(
        "".join(json.dumps(each) + "\n" for each in lines) + "[]\n"
    )
    blanks = [{"text": 5}, 7, {"text": "a [MASK]", "filled": None, "index": "x"}]
    samples = [
        {"step": 1, "samples_seen": 8, "blanks": blanks},
        {"step": 2, "samples_seen": 16, "blanks": 3},
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    said = list[str]()
    run = read_run(folder, said.append)
    found = {panel.key: panel for panel in all_panels([run])}
    assert len(said) == 1 and "details.jsonl, line 4" in said[0]
    values = found["layers/gradient_norm"].data["values"]
    assert values == [[1], [None], [None], [None], [None], [2]]
    (blank,) = found["blanks"].data["blanks"]
    assert (blank["text"], blank["filled"]) == ("a [MASK]", "")
