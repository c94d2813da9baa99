"""details.jsonl and samples.jsonl: whole lines that follow resume and rollback, and no file where there is no line."""

import errno
import json
import os
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


def test_a_disk_that_refuses_costs_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writing = tracker(tmp_path, 0)
    writing.log_details({"step": 10, "samples_seen": 80})

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("train.full_disk.os.write", refuse)
        writing.log_details({"step": 20, "samples_seen": 160})
    writing.log_details({"step": 30, "samples_seen": 240})
    writing.log_samples({"step": 30, "samples_seen": 240})
    writing.sync()
    writing.close()
    said = capsys.readouterr().err
    assert said.count("details.jsonl cannot be written: Input/output error.") == 1
    assert said.count("\n") == 1
    assert [line["step"] for line in read_details(tmp_path, pytest.fail)] == [10]
    assert [line["step"] for line in read_samples(tmp_path, pytest.fail)] == [30]


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO])
def test_a_file_that_cannot_be_brought_to_the_disk_keeps_no_checkpoint_from_it(
    failure: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writing = tracker(tmp_path, 0)
    writing.log_details({"step": 10, "samples_seen": 80})

    def refuse(_: int) -> None:
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr("train.full_disk.os.fsync", refuse)
    writing.sync()
    assert os.strerror(failure) in capsys.readouterr().err


def test_the_file_of_a_later_attempt_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    superseded = tracker(tmp_path, 0)
    later = tracker(tmp_path, 0)
    later.log_details({"step": 10, "samples_seen": 80})
    superseded.log_details({"step": 10, "samples_seen": 80})
    assert "a later attempt has made it" in capsys.readouterr().err
    later.log_details({"step": 20, "samples_seen": 160})
    assert [line["step"] for line in read_details(tmp_path, pytest.fail)] == [10, 20]
