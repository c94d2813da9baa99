"""The dashboard that would be sent to wandb: all that a run reports is on it, over samples_seen, and nothing is markup."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.load import load_config, to_stored_yaml
from train.dashboard import __main__ as command
from train.dashboard import workspace
from train.dashboard.pages import SAMPLES, pages
from train.metrics import metric_keys

KEYS = metric_keys(("mask", "gmask", "mip", "own"))
DETAILS = {
    "layers/gradient_norm": [1.0, 2.0],
    "layers/weight_norm": [1.0, 2.0],
    "layers/activation_rms": [1.0, 2.0],
    "parts/weight_norm": {"embedding": 1.0},
    "time/step": 1.0,
    "time/data": 0.2,
    "time/rest": 0.8,
    "memory/weights_gib": 1.0,
    "memory/rest_gib": 1.0,
    "train/loss_source/web": 2.0,
    "valid/loss_source/web": None,
    "ranks/seconds": [1.0, 2.0],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    (run / "wandb").mkdir(parents=True)
    (run / "wandb" / "run_id.txt").write_text("abc123\n")
    words = ["run.name=<b>$1 \u00e9", "log.wandb_project=mine", "log.wandb_entity=team"]
    (run / "config.yaml").write_text(to_stored_yaml(load_config(words)))
    position = {"step": 1, "samples_seen": 8}
    metrics = {**dict.fromkeys(KEYS), **position, "tokens_seen": 8, "train/loss": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    (run / "details.jsonl").write_text(json.dumps({**position, **DETAILS}) + "\n")
    (run / "samples.jsonl").write_text(json.dumps({**position, "blanks": []}) + "\n")
    event = {"event": "error", "time": 1.0, "message": "<script>\x1b[31m**x**"}
    (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    return run


def printed(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert command.cli([str(run), "--print"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def panels_of(specification: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_the_specification_has_every_page_and_every_metric(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(run, capsys)
    assert (found["entity"], found["project"]) == ("team", "mine")
    assert found["displayName"] == "b  1 \u00e9", "wandb refuses signs"
    sections = panels_of(found)
    assert list(sections) == [
        *("Loss by objective", "Stability", "Throughput", "Data mixture", "Reliability")
    ]
    panels = [panel["config"] for each in sections.values() for panel in each]
    curves = [panel for panel in panels if "xAxis" in panel]
    assert {panel["xAxis"] for panel in curves} == {"samples_seen"}
    settings = found["spec"]["section"]["settings"]
    assert (settings["xAxis"], settings["xAxisActive"]) == ("samples_seen", True)
    drawn = {key for panel in curves for key in panel["metrics"]}
    assert set(KEYS) - drawn == {"samples_seen"}
    assert drawn - set(KEYS) == {
        "time/step",
        *("time/data", "time/rest", "memory/weights_gib", "memory/rest_gib"),
    }
    assert {panel.get("metricRegex") for panel in curves} - {None} == {
        r"layers/gradient_norm/\d+",
        r"layers/weight_norm/\d+",
        r"layers/activation_rms/\d+",
        "parts/weight_norm/.+",
        "train/loss_source/.+",
        "ranks/seconds/(min|median|max)",
    }
    titles = [panel["chartTitle"] for panel in curves]
    assert "Loss: own" in titles and "Training loss by objective" in titles
    stacked = [panel["chartTitle"] for panel in curves if panel["plotType"] == "stacked-area"]
    assert stacked == ["Parts of a step (seconds)", "Memory by part (GiB)"]
    assert {"mediaKeys": [SAMPLES], "chartTitle": "Filled blanks"} in panels
    # This run alone.
    (runs,) = found["spec"]["section"]["runSets"]
    assert [(f["key"]["name"], f["value"]) for f in runs["filters"]["filters"]] == [
        ("name", "abc123")
    ]


def test_what_happened_is_shown_as_lines_of_code(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (events,) = (
        panel["config"]["value"]
        for panel in panels_of(printed(run, capsys))["Reliability"]
        if panel["viewType"] == "Markdown Panel"
    )
    lines = events.splitlines()[2:]
    assert any("<script>" in line for line in lines) and "\x1b" not in events
    assert all(line.startswith("    ") for line in lines)


def test_panels_of_what_a_run_does_not_report_are_left_out() -> None:
    found = pages(["samples_seen", "train/loss", "optim/lr"])
    assert [[panel.title for panel in page.panels] for page in found] == [
        ["Loss"],
        ["Learning rate"],
        [],
        [],
        [],
    ]
    assert not any(page.has_samples for page in found)


def test_a_run_that_does_not_report_to_wandb_can_be_printed_but_not_saved(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "wandb" / "run_id.txt").unlink()
    (runs,) = printed(run, capsys)["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"] == []
    assert command.cli([str(run)]) == 2
    assert "log.wandb=auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: None, "wandb login"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl"),
        (shutil.rmtree, "There is no"),
    ],
)
def test_what_is_missing_is_said_in_one_message(
    spoil: Any, said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert command.cli([str(run)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err and err.count("\n") == 1


def test_without_the_library_the_message_says_what_to_install(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_PACKAGE", "absent")
    assert command.cli([str(run), "--print"]) == 2
    assert "pip install 'glm-pretraining[dashboard]'" in capsys.readouterr().err


def test_the_same_specification_is_saved_and_its_address_printed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb_workspaces.workspaces.interface as interface

    views: list[Any] = []

    def upsert(view: Any) -> dict[str, Any]:
        views.append(view)
        return {"upsertView": {"view": {"name": "nw-name-v", "id": "1"}}}

    monkeypatch.setattr(interface.internal, "upsert_view2", upsert)
    monkeypatch.setattr(interface.wandb, "Api", lambda: None)
    monkeypatch.setattr(interface, "get_app_url", lambda _: "https://wandb.example")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert command.cli([str(run)]) == 0
    assert capsys.readouterr().out.startswith("https://wandb.example/team/mine?nw=")
    sent = json.loads(views[0].spec.model_dump_json(by_alias=True, exclude_none=True))
    expected = printed(run, capsys)["spec"]
    assert _without_ids(sent) == _without_ids(expected)

    monkeypatch.setattr(interface.internal, "upsert_view2", lambda _: 1 / 0)
    assert command.cli([str(run)]) == 3
    assert capsys.readouterr().err == "wandb did not take the dashboard: division by zero\n"


def _without_ids(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_ids(value) for key, value in tree.items() if key != "__id__"}
    return [_without_ids(each) for each in tree] if isinstance(tree, list) else tree
