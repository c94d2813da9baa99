"""The command and its page: one file, what it may do, and one message when there is nothing to draw."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_pages import data_of, panel_of
from tests.helpers.report_runs import make_run
from train.report.__main__ import cli
from train.report.page import render


def lines(number: int) -> list[dict[str, object]]:
    return [
        {
            "step": step,
            "samples_seen": 8 * step,
            "tokens_seen": 2048 * step,
            "train/loss": "inf" if step == 2 else 10.0 / step,
            "train/loss_mask": None,
            "valid/loss": 5.0 if step == number else None,
            "optim/lr": 1e-3,
        }
        for step in range(1, number + 1)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a<b"
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines(5))
    (folder / "metrics.jsonl").write_text(text + '{"step": 6, "samp')
    (folder / "status.json").write_text('{"state": "done"}')
    (folder / "events.jsonl").write_text('{"event": "start", "time": 1.0, "note": "<script>"}\n')
    (folder / "config.yaml").write_text("optim:\n  lr: 0.001\n")
    return folder


def test_the_page_says_where_the_run_is(run: Path) -> None:
    (facts,) = data_of(render([run]))["runs"]
    assert (facts["name"], facts["state"]) == ("a<b", "done")
    assert (facts["samples_seen"], facts["tokens_seen"], facts["step"]) == (40, 10_240, 5)
    figures = {figure["key"]: figure["value"] for figure in facts["figures"]}
    assert figures == {"train/loss": 2.0, "valid/loss": 5.0, "optim/lr": 1e-3}


def test_curves_hold_the_values_at_their_samples(run: Path) -> None:
    # The loss of step 2 overflowed, and line 6 is torn.
    panel = panel_of(render([run]), "losses/train")
    (series,) = panel["data"]["series"]
    assert (series["x"], series["total"]) == ([8, 16, 24, 32, 40], 5)
    assert series["y"] == [10, None, 3.333333, 2.5, 2]
    assert "1 value not finite" in panel["note"]


def test_command_writes_the_page_beside_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"

    def timeless(page: str) -> dict[str, Any]:
        return {**data_of(page), "written": 0}

    assert timeless((run / "report.html").read_text()) == timeless(render([run]))


def test_several_runs_share_a_page_in_the_first_ones_folder(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = "".join(json.dumps({**line, "optim/lr": 2e-3}) + "\n" for line in lines(7))
    (other / "metrics.jsonl").write_text(text)
    assert cli([str(run), str(other)]) == 0
    page = (run / "report.html").read_text()
    assert not (other / "report.html").exists()
    assert [each["name"] for each in data_of(page)["runs"]] == ["a<b", "other"]
    assert data_of(page)["axis"] == {"min": 0, "max": 56}
    series = panel_of(page, "optimisation/lr")["data"]["series"]
    assert [(each["run"], len(each["x"]), each["y"][0]) for each in series] == [
        (0, 5, 1e-3),
        (1, 7, 2e-3),
    ]


def test_a_longer_run_has_hardly_a_larger_page(tmp_path: Path) -> None:
    pages = [
        render([make_run(tmp_path / str(steps), steps, is_full=True)]) for steps in (6_000, 18_000)
    ]
    curves = [
        series
        for page in pages
        for panel in data_of(page)["panels"]
        for series in panel["data"].get("series", [])
        if series["total"] > 5_000
    ]
    assert len(curves) == 2 * 33
    assert len(pages[1]) < 1.2 * len(pages[0])
    # What 30 curves of any length take is far below the page's limit of 20 MB.
    assert len(pages[1]) < 6e6


def test_folder_without_metrics_is_answered_with_what_to_type(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    (empty / "within").mkdir(parents=True)
    for folders in ([empty / "within"], [run, empty / "within"]):
        assert cli([str(folder) for folder in folders]) == 2
        assert "python -m train.report runs/default" in capsys.readouterr().err
        assert not (folders[0] / "report.html").exists()


def test_losses_of_instructions_are_shown(run: Path) -> None:
    values = {"samples_seen": 48, "tokens_seen": 1, "train/loss_mip": 2.5, "valid/loss_mip": 1.25}
    (run / "metrics.jsonl").write_text(json.dumps({"step": 6, **values}) + "\n")
    page = render([run])
    (facts,) = data_of(page)["runs"]
    assert facts["figures"] == [
        {"key": "valid/loss_mip", "label": "Held-out loss, MIP", "value": 1.25}
    ]
    for part in ("train", "valid"):
        (series,) = panel_of(page, f"losses/{part}")["data"]["series"]
        assert series["label"] == f"{part}/loss_mip"


def test_damaged_lines_are_left_out_with_a_word(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "metrics.jsonl"
    damaged = [{"step": "6"}, {"samples_seen": None}, {"train/loss": [1]}, {"tokens_seen": 1.5}]
    path.write_text("".join(json.dumps(each) + "\n" for each in damaged) + path.read_text())
    (run / "status.json").write_text("[]")
    (run / "config.yaml").write_text("optim: [\n")
    assert cli([str(run)]) == 0
    said = capsys.readouterr().err
    assert "metrics.jsonl, line 1" in said and "So are 3 other lines" in said
    assert "status.json is damaged" in said and "config.yaml cannot be read" in said
    data = data_of((run / "report.html").read_text())
    assert data["runs"][0]["step"] == 5
    assert len(data["remarks"]) == 3


def test_a_page_that_cannot_be_written_names_the_key(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("train.report.page.replace_file", refuse)
    assert cli([str(run)]) == 2
    assert "Read-only file system. Choose another place with --output" in capsys.readouterr().err


def test_a_file_that_is_no_page_of_ours_is_not_replaced(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").write_text("<html>my notes")
    assert cli([str(run)]) == 2
    assert "it is not replaced" in capsys.readouterr().err
    assert (run / "report.html").read_text() == "<html>my notes"
    other = run / "other.html"
    assert [cli([str(run), "--output", str(other)]) for _ in range(2)] == [0, 0]
