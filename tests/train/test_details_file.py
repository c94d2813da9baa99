"""details.jsonl and samples.jsonl: whole lines that follow resume and rollback, and no file where there is no line."""

import json
from pathlib import Path

import pytest

from configs.run_files import read_details, read_samples
from train.details_file import IntervalTracker


def tracker(folder: Path, step: int, keeps: bool = False) -> IntervalTracker:
    def kept(path: Path) -> Path | None:
        return folder / "rolled_back" / f"rollback_1_{path.name}" if keeps else None

    return IntervalTracker(folder / "details.jsonl", folder / "samples.jsonl", step, kept)


def written(folder: Path) -> None:
    first = tracker(folder, 0)
    for step in (10, 20, 30):
        first.log_details({"step": step, "samples_seen": 8 * step, "norms": [1.5, float("nan")]})
        first.log_samples({"step": step, "samples_seen": 8 * step, "blanks": [{"text": "a"}]})
    first.sync()
    first.close()


def test_without_lines_there_are_no_files(tmp_path: Path) -> None:
    of_nothing = tracker(tmp_path, 0)
    of_nothing.sync()
    of_nothing.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keeps", [False, True])
def test_a_start_keeps_the_lines_up_to_its_checkpoint(keeps: bool, tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "details.jsonl").open("a") as file:
        file.write('{"step": 40, "samples_s')  # cut off by a kill
    again = tracker(tmp_path, 20, keeps)
    again.log_details({"step": 25, "samples_seen": 200})
    again.close()
    assert [line["step"] for line in read_details(tmp_path, pytest.fail)] == [10, 20, 25]
    assert [line["step"] for line in read_samples(tmp_path, pytest.fail)] == [10, 20]
    cut = tmp_path / "rolled_back" / "rollback_1_details.jsonl"
    assert cut.exists() == keeps
    if keeps:
        (line,) = map(json.loads, cut.read_text().splitlines())
        assert line == {"step": 30, "samples_seen": 240, "norms": [1.5, "nan"]}


def test_damaged_lines_are_left_out_and_said(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "details.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "no JSON\n" + '{"step": -1}\n' + lines[2])
    said: list[str] = []
    assert [line["step"] for line in read_details(tmp_path, said.append)] == [10, 30]
    assert len(said) == 1 and "line 2" in said[0]
    tracker(tmp_path, 100).close()
    assert [line["step"] for line in read_details(tmp_path, pytest.fail)] == [10, 30]
