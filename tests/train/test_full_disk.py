"""Small files on a full disk: lines wait in memory, in order and whole, and nothing is raised."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from train.full_disk import LineFile, said_if_full
from train.small_files import replace_file


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Sets how many bytes the disk still takes; None: any number."""
    left: list[int | None] = [None]
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if left[0] is None:
            return write(descriptor, data)
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    def set_room(num_bytes: int | None) -> None:
        left[0] = num_bytes

    monkeypatch.setattr("train.full_disk.os.write", limited)
    return set_room


@pytest.mark.parametrize("num_bytes", range(8))
def test_lines_wait_for_room_and_none_is_lost_torn_or_doubled(
    tmp_path: Path, room: Callable[[int | None], None], num_bytes: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    file = LineFile(path.open("a"))
    file.write("one")
    room(num_bytes)
    for line in ("two", "three", "four"):
        file.write(line)
    room(None)
    file.write("five")
    file.close()
    assert path.read_text() == "one\ntwo\nthree\nfour\nfive\n"


def test_it_is_said_once(
    tmp_path: Path, room: Callable[[int | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file = LineFile((tmp_path / "log.txt").open("a"))
    for num_bytes in (0, 0, None, 0):
        room(num_bytes)
        file.write("line")
    assert capsys.readouterr().err.count("log.txt cannot be written: No space left on device") == 2


def test_another_error_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("train.full_disk.os.write", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        LineFile((tmp_path / "log.txt").open("a")).write("line")
    with pytest.raises(OSError, match="other"), said_if_full(tmp_path):
        raise OSError(errno.EIO, "other")


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "status.json"
    replace_file(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("train.small_files.os.fsync", refuse)
    with said_if_full(path):
        replace_file(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    assert "status.json cannot be written" in capsys.readouterr().err


def test_lines_are_safe_or_it_is_said_that_they_are_not(
    tmp_path: Path, room: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    file = LineFile(path.open("a"))
    room(0)
    file.write("one")
    with pytest.raises(OSError, match="No space left on device") as caught:
        file.sync()
    assert caught.value.filename == str(path), "who reads the message must know the disk"
    room(None)
    synced: list[str] = []
    monkeypatch.setattr("train.full_disk.os.fsync", lambda _: synced.append(path.read_text()))
    file.sync()
    assert synced == ["one\n"], "what waited is written first"
