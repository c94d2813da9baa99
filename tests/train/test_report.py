"""The page of curves: right numbers, one file, one message when there is nothing to draw."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.report.__main__ import cli
from train.report.charts import points, ticks
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


def test_page_is_whole_and_escapes_what_it_shows(run: Path):
    page = render(run)
    assert "<h1>a&lt;b</h1>" in page and "&lt;script&gt;" in page and "<script" not in page
    assert "done - 40 samples" in page and "10,240 tokens, 5 steps" in page
    assert not re.search(r"(src|href)=|https?://|@import|url\(", page)
    for drawing in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(drawing)


def test_curves_hold_the_finite_values_at_their_samples(run: Path):
    # Steps 1, 3, 4 and 5: the loss of step 2 overflowed, and line 6 is torn.
    drawing = next(text for text in re.findall(r"<svg.*?</svg>", render(run)) if "Training" in text)
    path = re.search(r'points="([^"]+)"', drawing)
    assert path is not None
    places = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    assert len(places) == 4
    (x1, y1), (x3, y3), (_, y4), (x5, y5) = places
    assert (x3 - x1) / (x5 - x1) == pytest.approx(0.5, abs=1e-2)
    assert (y3 - y1) / (y5 - y1) == pytest.approx((10 - 10 / 3) / 8, abs=1e-2)
    assert y1 < y3 < y4 < y5  # down the page as the loss falls


def test_long_runs_are_drawn_as_means_of_stretches():
    found = points([{"samples_seen": n, "x": n % 2} for n in range(1, 4001)], "x")
    assert len(found) == 400
    assert found[-1][0] == 4000
    assert all(value == 0.5 for _, value in found)


def test_command_writes_the_page_beside_the_run(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text() == render(run)


def test_folder_without_metrics_is_answered_with_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli([str(tmp_path)]) == 2
    assert "python -m train.report runs/default" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_ticks_are_round():
    assert ticks(0.0, 10.0) == pytest.approx([0, 2, 4, 6, 8, 10])
    assert ticks(4.144, 5.384) == pytest.approx([4.2, 4.4, 4.6, 4.8, 5.0, 5.2])
    assert ticks(8217, 11950) == pytest.approx([9000, 10000, 11000])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_within_the_range(low: float, width: float):
    found = ticks(low, low + width)
    assert 3 <= len(found) <= 8
    assert min(found) >= low - 1e-6 * width and max(found) <= low + width * (1 + 1e-6)


def test_losses_of_instructions_are_shown(run: Path) -> None:
    values = {"samples_seen": 48, "tokens_seen": 1, "train/loss_mip": 2.5, "valid/loss_mip": 1.25}
    (run / "metrics.jsonl").write_text(json.dumps({"step": 6, **values}) + "\n")
    page = render(run)
    assert "train/loss_mip" in page and "<td>valid/loss_mip</td><td>1.25</td>" in page


def test_damaged_lines_are_left_out_with_a_word(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "metrics.jsonl"
    damaged = [{"step": "6"}, {"samples_seen": None}, {"train/loss": [1]}, {"tokens_seen": 1.5}]
    path.write_text("".join(json.dumps(each) + "\n" for each in damaged) + path.read_text())
    (run / "status.json").write_text("[]")
    assert cli([str(run)]) == 0
    said = capsys.readouterr().err
    assert "metrics.jsonl, line 1" in said and "So are 3 other lines" in said
    assert "status.json is damaged" in said
    assert "5 steps" in (run / "report.html").read_text()


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
