"""What scripts are told of a run."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.at_work import this_machine
from launch.__main__ import cli
from launch.status_words import age, table
from tests.helpers.places import ROOT

GOOD = {
    "format_version": 1,
    "state": "stopped",
    "samples_seen": 48,
    "message": "two\nlines\x1b[2J",
    "time": 1.5,
    "of a later version": [],
}


def test_a_script_gets_one_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    assert cli(["status", str(tmp_path), "--field", "state"]) == 0
    assert capsys.readouterr().out == "stopped\n"
    for name, value in (
        ("samples_seen", "48"),
        ("message", "two\\x0alines\\x1b[2J"),
        ("time", "1.5"),
    ):
        assert cli(["status", str(tmp_path), "--field", name]) == 0
        assert capsys.readouterr().out == f"{value}\n"
    assert cli(["status", str(tmp_path), "--field", "stat"]) == 2
    assert "--field (stat) is not one of format_version, state" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[1]", b"{}", b"{", b"\xff", b"[" * 100_000,
        b'{"state": 3}', b'{"state": "done", "samples_seen": -1}', b'{"state": "done", "samples_seen": true}',
        b'{"state": "done", "samples_seen": 1e400}', b'{"state": "done", "samples_seen": ' + b"9" * 5000 + b"}",
        b'{"state": "done", "time": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_status_ends_with_2(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_bytes(text)
    assert cli(["status", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "is damaged" in said.err or "not UTF-8" in said.err


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe", "link to itself"])
def test_another_kind_of_file_ends_with_2_at_once(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "status.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    assert cli(["status", str(tmp_path), "--field", "state"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_killed_run_is_interrupted_and_one_at_work_is_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD | {"state": "running"}))

    def state() -> str:
        assert cli(["status", str(tmp_path), "--field", "state"]) == 0
        return capsys.readouterr().out

    assert state() == "interrupted\n"
    path = tmp_path / "generations" / "000001"
    path.parent.mkdir()
    with path.open("w") as file:
        file.write(json.dumps({"machine": this_machine(), "pid": 1}) + "\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert state() == "running\n"
        assert cli(["status", str(tmp_path)]) == 0
        assert "state    running\nsamples  48 seen at the last save\n" in capsys.readouterr().out
    assert state() == "interrupted\n"
    path.unlink()
    path.mkdir()  # not a file of ours: its age tells
    assert state() == "running\n"


def test_it_needs_the_standard_library_alone(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    words = [
        sys.executable,
        "-S",
        "-m",
        "launch",
        "status",
        str(tmp_path),
        "--field",
        "samples_seen",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "48\n"


def test_why_a_run_stopped_is_a_field_of_a_stopped_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    events = tmp_path / "events.jsonl"
    stopped = '{"event": "stop", "reason": "the file runs/x/stop"}\n'
    asked = ["status", str(tmp_path), "--field", "stop_reason"]
    for lines in ("", stopped + '{"event": "resume"}\n', stopped[:-1], '{"event": "stop"}\n[]\n'):
        events.write_text(lines)
        assert cli(asked) == 2, lines
        assert "--field (stop_reason) is not one of" in capsys.readouterr().err
    events.write_text(stopped + '{"event": "checkpoint"}\n\x00\n{"event": "st')
    assert cli(asked) == 0
    assert capsys.readouterr().out == "the file runs/x/stop\n"
    assert cli(["status", str(tmp_path)]) == 0
    assert "\nwhy      the file runs/x/stop\n" in capsys.readouterr().out
    events.unlink()
    os.mkfifo(events)
    assert cli(asked) == 2
    assert "is a pipe" in capsys.readouterr().err
    assert cli([*asked[:-1], "state"]) == 0
    assert capsys.readouterr().out == "stopped\n"


def test_a_status_of_a_newer_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD | {"format_version": 2}))
    assert cli(["status", str(tmp_path)]) == 2
    assert "has format version 2" in capsys.readouterr().err


def _run(folder: Path, **fields: object) -> None:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps(GOOD | fields))


def test_people_read_how_a_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    _run(run, samples_seen=40_960, time=time.time() - 3 * 3600)
    assert cli(["status", str(run)]) == 0
    assert capsys.readouterr().out == (
        f"run      {run}\n"
        "state    stopped: the same command continues\n"
        "samples  40,960 seen\n"
        "written  3 hours ago\n"
        "message  two\\x0alines\\x1b[2J\n"
    )


def test_runs_are_listed_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["status"]) == 0
    assert capsys.readouterr().out == ("There is no run in runs. Start one with: python -m train\n")
    now = time.time()
    _run(tmp_path / "runs" / "old", state="done", samples_seen=4096, time=now - 200_000)
    _run(tmp_path / "runs" / "new\x1b", state="running", time=now - 61)
    _run(tmp_path / "runs" / "bad", state="asleep")
    (tmp_path / "runs" / "old-sweep").mkdir()
    for words in (["status"], ["status", "runs"], ["status", str(tmp_path / "runs")]):
        assert cli(words) == 0
        assert capsys.readouterr().out == (
            "name     state        samples  when\n"
            "new\\x1b  interrupted       48  1 minute ago\n"
            "old      done           4,096  2 days ago\n"
            "bad      unreadable\n"
        )
    assert cli(["status", "--field", "state"]) == 2
    assert "Try python -m launch status runs/default --field state." in capsys.readouterr().err


def test_a_table_that_is_too_wide_has_its_names_on_lines_of_their_own() -> None:
    rows = [("a-name-of-forty-eight-characters-" * 2, "done", "4,096", "2 days ago")]
    assert table(rows, 80).splitlines()[2:] == [rows[0][0], "  done     4,096  2 days ago"]
    assert len(table(rows, None).splitlines()) == 2


def test_ages_are_said_in_whole_units_and_clocks_that_differ_are_said() -> None:
    said = {0: "just now", 59: "just now", 119: "1 minute ago", 7200: "2 hours ago"}
    assert {seconds: age(seconds) for seconds in said} == said
    assert age(-600) == "10 minutes ahead of this clock"


def test_a_script_is_told_of_slow_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(json.dumps(GOOD))

    def told(*events: object) -> str:
        lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
        (tmp_path / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
        assert cli(["status", str(tmp_path), "--field", "slow_hosts"]) == 0
        return capsys.readouterr().out

    def slow(rank: int, host: object, state: str = "slow") -> dict[str, object]:
        return {"event": "slow_rank", "rank": rank, "host": host, "state": state}

    assert told() == "\n"
    assert told(slow(3, "node1"), slow(7, "node2"), slow(8, "node2")) == "node1 node2\n"
    assert told(slow(3, "node1"), slow(7, "node2"), slow(3, "node1", "over")) == "node2\n"
    # Of the last process alone.
    assert told(slow(3, "node1"), {"event": "resume"}, slow(7, "node2")) == "node2\n"
    assert told(slow(3, "node1"), {"event": "start"}) == "\n"
    # What no job script should take for a name.
    assert told(slow(1, "a b"), slow(2, "-w"), slow(3, 5), slow(4, "x" * 300), "{", "[]") == "\n"
    told(slow(7, "node2"))
    assert cli(["status", str(tmp_path)]) == 0
    assert "slow     node2\n" in capsys.readouterr().out
