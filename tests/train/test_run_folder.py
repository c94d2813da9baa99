"""The run folder: who holds it, what it says, and what a start does to its metrics."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import DistributedError, RunFolderError
from train.generations import Generation, begin
from train.run_folder import STARTING, RunFolder
from train.stop import StopSignal
from train.world import Launch


def test_the_status_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running", 10, "training")

    def refuse(*_: object) -> None:
        raise OSError("the power failed")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError):
        folder.write_status("done", 20, "all samples seen")
    status = folder.status_or_none()
    assert status is not None and (status.state, status.samples_seen) == ("running", 10)


def test_a_stop_is_asked_for_by_file_or_signal(tmp_path: Path) -> None:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    try:
        stop = StopSignal(tmp_path / "stop").install()
        assert stop.reason is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.reason == "SIGUSR1"
        other = StopSignal(tmp_path / "stop")
        (tmp_path / "stop").touch()
        assert other.reason is not None and "stop" in other.reason
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_killed_processes_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    dead = 2**22 + 1  # beyond any pid
    ours = [f".status.json.{dead}-7.part", f".metrics.jsonl.{os.getpid()}.part"]
    others = [
        f".events.jsonl.{os.getppid()}.part",  # its process is running
        f".notes.txt.{dead}.part",
        f"status.json.{dead}-7.part",
        ".status.json.part",
        "notes.txt",
    ]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    (tmp_path / f".log.txt.{dead}.part").mkdir()
    with RunFolder(tmp_path).held(Launch()):
        left = {path.name for path in tmp_path.iterdir() if ".part" in path.name}
    assert left == {*others[:-1], f".log.txt.{dead}.part"}
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("has_notes", [False, True])
def test_a_first_start_that_fails_for_a_mistake_leaves_no_folder(
    tmp_path: Path, has_notes: bool
) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.create()
    with pytest.raises(RunFolderError), folder.held(Launch(), leaves_nothing=True):
        if has_notes:
            (folder.path / "notes.txt").touch()
        folder.fail("no such corpus")
        raise RunFolderError("no such corpus")
    assert folder.path.exists() == has_notes and (tmp_path / "runs").exists() == has_notes
    assert (folder.path / "notes.txt").exists() == has_notes


def test_an_interrupt_before_the_first_step_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.held(Launch()):
        folder.write_status("done", 96, "all samples seen")
    before = folder.status.read_bytes()
    with folder.held(Launch()):
        folder.write_status("running", 96, STARTING)
        assert folder.take_back_start()
    assert folder.status.read_bytes() == before
    with folder.held(Launch()):
        folder.write_status("running", 104, "training")
        assert not folder.take_back_start()
    status = folder.status_or_none()
    assert status is not None and status.samples_seen == 104


def test_a_first_start_that_is_interrupted_leaves_no_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.create()
    with pytest.raises(KeyboardInterrupt), folder.held(Launch(), leaves_nothing=True):
        assert folder.take_back_start()
        raise KeyboardInterrupt
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_was_there_or_has_trained_stays(tmp_path: Path) -> None:
    there, trained = RunFolder(tmp_path / "there"), RunFolder(tmp_path / "trained")
    there.path.mkdir()
    for folder in (there, trained):
        folder.create()
        with pytest.raises(RunFolderError), folder.held(Launch(), leaves_nothing=True):
            if folder is trained:
                folder.write_source([], "seed: 1\n", 1)
            folder.fail("later")
            raise RunFolderError("later")
        status = folder.status_or_none()
        assert status is not None and status.state == "failed"


def test_a_process_whose_half_written_file_was_swept_away_is_superseded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, job = RunFolder(tmp_path), Launch("cluster:7")
    later: list[Generation] = []

    def swept(*_: object) -> None:
        later.append(begin(tmp_path, replace(job, restarts=1)))
        raise FileNotFoundError(2, "No such file or directory")

    with folder.held(job):
        monkeypatch.setattr("train.run_folder.replace_file", swept)
        with pytest.raises(DistributedError, match="was started again"):
            folder.write_status("running", 1, "training")
        monkeypatch.undo()
    later[0].end("done")
