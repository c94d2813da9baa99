"""Attempts at a run: who is refused, who may take over, and what an earlier attempt may still do."""

import json
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import DistributedError, RunFolderError
from configs.run_paths import GENERATIONS
from configs.run_state import Machine, this_machine
from train import generations
from train.generations import History, begin
from train.run_folder import RunFolder
from train.world import Launch


def hold(path: Path, ready: multiprocessing.Queue) -> None:
    with RunFolder(path).held(Launch()):
        ready.put(os.getpid())
        signal.pause()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process runs on another machine, and patience is short."""
    here = this_machine()
    monkeypatch.setattr(generations, "this_machine", lambda: replace(here, host="elsewhere"))
    monkeypatch.setattr(generations, "LEASE_SECONDS", 0.5)


def test_a_second_process_learns_who_holds_the_run_and_a_killed_one_releases_it(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    holder = context.Process(target=hold, args=(tmp_path, ready), daemon=True)
    holder.start()
    pid = ready.get(timeout=60)
    with pytest.raises(RunFolderError, match=f"in use by host .*, pid {pid}"):
        begin(tmp_path, Launch())
    holder.kill()
    holder.join()
    attempt = begin(tmp_path, Launch())
    assert attempt.number == 2 and attempt.previous is not None and attempt.previous.pid == pid
    attempt.end("done")
    assert [path.name for path in sorted((tmp_path / GENERATIONS).iterdir())] == [
        "000001",
        "000002",
    ]


def test_of_many_starts_at_once_one_wins(tmp_path: Path) -> None:
    begun, refused = [], []
    ready = threading.Barrier(8)

    def start() -> None:
        ready.wait()
        try:
            begun.append(begin(tmp_path, Launch()))
        except RunFolderError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(begun), len(refused)) == (1, 7)
    assert begun[0].number == 1
    begun[0].end("done")


@pytest.mark.usefixtures("elsewhere")
def test_another_host_is_refused_while_heartbeats_arrive_and_let_in_when_they_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "HEARTBEAT_SECONDS", 0.05)
    before = set(threading.enumerate())
    previous = begin(tmp_path, Launch())
    here = this_machine()
    monkeypatch.setattr(generations, "this_machine", lambda: here)
    with monkeypatch.context() as patch:
        patch.setattr(generations, "LEASE_SECONDS", 60.0)  # the next heartbeat may come late
        with pytest.raises(RunFolderError, match="in use by host elsewhere"):
            begin(tmp_path, Launch())
    previous._has_ended.set()  # the process dies
    for thread in set(threading.enumerate()) - before:
        thread.join()
    attempt = begin(tmp_path, Launch())
    assert attempt.number == 2
    attempt.end("done")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("hours", [-8, 8])
def test_a_clock_that_is_hours_wrong_neither_holds_a_start_up_nor_lets_it_in_too_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    previous = begin(tmp_path, Launch())
    previous._has_ended.set()  # the process dies
    time = (tmp_path / GENERATIONS / "000001").stat().st_mtime + 3600 * hours
    os.utime(tmp_path / GENERATIONS / "000001", (time, time))
    here = this_machine()
    monkeypatch.setattr(generations, "this_machine", lambda: here)
    said: list[str] = []
    begin(tmp_path, Launch(), said.append).end("done")
    assert len(said) == 1 and "did not say how it ended" in said[0] and "elsewhere" in said[0]

    def touched(_: float) -> None:
        os.utime(tmp_path / GENERATIONS / "000003", (time, time))

    begin(tmp_path, Launch(), said.append)._has_ended.set()
    monkeypatch.setattr(generations, "this_machine", lambda: replace(here, host="a third"))
    monkeypatch.setattr(generations.time, "sleep", touched)
    with pytest.raises(RunFolderError, match="in use by host"):
        begin(tmp_path, Launch())


def test_a_process_that_was_killed_while_it_asked_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / GENERATIONS).mkdir()
    for name in (".probe-12-13", ".probe-mine", "notes.txt"):
        (tmp_path / GENERATIONS / name).touch()
    begin(tmp_path, Launch()).end("done")
    left = sorted(path.name for path in (tmp_path / GENERATIONS).iterdir())
    assert left == [".probe-mine", "000001", "notes.txt"]


@pytest.mark.parametrize(
    "content",
    [b"", b"3\n", b"[]\n", b"null\n", b"[" * 10**5 + b"\n", b"\0\xff\n", b'{"pid": -1}\n'],
)
def test_a_damaged_record_is_passed_over_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(generations, "_FIRST_LINE_SECONDS", 0.1)
    first = begin(tmp_path, Launch())
    (tmp_path / GENERATIONS / "000001").write_bytes(content)
    with pytest.raises(RunFolderError, match="does not say which"):  # it holds its lock still
        begin(tmp_path, Launch())
    first.end("failed")
    (tmp_path / GENERATIONS / "000001").write_bytes(content)
    said: list[str] = []
    attempt = begin(tmp_path, Launch(), said.append)
    assert attempt.number == 2 and "cannot be read: it is skipped" in said[0]
    assert History.read(tmp_path).admits(1, 5)
    attempt.end("done")


def test_an_attempt_that_said_how_it_ended_is_not_waited_for(tmp_path: Path) -> None:
    begin(tmp_path, Launch()).end("stopped")
    attempt = begin(tmp_path, Launch())
    assert attempt.previous is not None and attempt.previous.ending == "stopped"
    attempt.end("done")


def test_a_requeued_job_takes_over_from_its_earlier_attempt_which_changes_nothing_any_more(
    tmp_path: Path,
) -> None:
    job = Launch("cluster:7")
    cut_off, folder = RunFolder(tmp_path), RunFolder(tmp_path)
    with cut_off.held(job) as previous:
        cut_off.write_status("running", 10, "training")
        cut_off.event("start")
        with folder.held(replace(job, restarts=1)) as attempt:
            folder.write_status("running", 20, "training")
            folder.event("resume")
            with pytest.raises(DistributedError, match="The run .* was started again"):
                cut_off.write_status("failed", 10, "lost a peer")
            cut_off.fail("lost a peer")
            cut_off.event("error")
            assert previous.is_superseded and not attempt.is_superseded
            status = folder.status_or_none()
            assert status is not None
            assert (status.state, status.samples_seen, status.generation) == ("running", 20, 2)
            kinds = [json.loads(line)["event"] for line in folder.events.read_text().splitlines()]
            assert kinds == ["start", "resume"]
            attempt.fence()


def test_the_heartbeat_finds_a_later_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "HEARTBEAT_SECONDS", 0.02)
    attempt = begin(tmp_path, Launch())
    (tmp_path / GENERATIONS / "000002").touch()
    for _ in range(500):
        if attempt.is_superseded:
            break
        threading.Event().wait(0.02)
    assert attempt.is_superseded
    attempt.end("failed")


def test_the_same_launcher_waits_for_the_attempt_that_it_is_ending(tmp_path: Path) -> None:
    launch = Launch(elastic_run="x")
    previous = begin(tmp_path, launch)
    said: list[str] = []

    def log(text: str) -> None:
        said.append(text)
        previous.end("failed")

    attempt = begin(tmp_path, launch, log)
    assert attempt.number == 2 and f"pid {os.getpid()}" in said[0]
    attempt.end("done")


def test_a_request_to_stop_outlives_a_restart_by_the_launcher_but_no_start_by_hand(
    tmp_path: Path,
) -> None:
    folder, launch = RunFolder(tmp_path), Launch(elastic_run="x")
    with folder.held(launch):
        folder.stop_file.touch()
    with folder.held(launch):
        assert folder.stop_file.exists()
    with folder.held(Launch()):
        assert not folder.stop_file.exists()


def test_what_an_earlier_attempt_saves_after_a_later_one_began_belongs_to_no_history(
    tmp_path: Path,
) -> None:
    for number, step in ((1, 0), (2, 10), (3, 6)):
        attempt = begin(tmp_path, Launch())
        attempt.continue_after(step)
        attempt.end("failed")
        assert attempt.number == number
    begin(tmp_path, Launch()).end("failed")  # it never came to a checkpoint
    history = History.read(tmp_path)
    assert [history.admits(1, step) for step in (4, 6, 8, 10, 12)] == [True, True] + 3 * [False]
    assert [history.admits(2, step) for step in (6, 8, 20)] == [True, False, False]
    assert history.admits(3, 100) and history.admits(4, 1)
    assert History.read(tmp_path / "an older run").admits(0, 5)


def test_an_attempt_that_died_while_it_was_born_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "_FIRST_LINE_SECONDS", 0.1)
    (tmp_path / GENERATIONS).mkdir()
    (tmp_path / GENERATIONS / "000001").write_text('{"machine": {"ho')
    attempt = begin(tmp_path, Launch())
    assert attempt.number == 2
    attempt.end("done")


def test_a_full_disk_is_refused_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunFolderError, match="cannot be written: No space left on device"):
        begin(tmp_path, Launch())


def test_machines_of_one_name_are_distinguished_by_their_kernel() -> None:
    assert Machine("worker-0", "a") != Machine("worker-0", "b")
