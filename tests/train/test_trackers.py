"""Lines, bar and wandb: whole lines only, nothing lost, and no tracker ends a run."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import RunFolderError
from configs.run_paths import RunPaths
from configs.schema import LogConfig, Wandb
from train.background_tracker import BackgroundTracker
from train.small_files import replace_file
from train.terminal.records import printed_lines
from train.terminal.tracker import ConsoleTracker
from train.tracker_wandb import WandbTracker, abandon
from train.trackers import Trackers
from train.wandb_account import offline_words, records_offline, resolve_mode, run_id


def line(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "samples_seen": 8 * step,
        "train/loss": 2.5,
        "train/loss_mask": None,
        "train/loss_gmask": 2.5,
        "train/loss_mip": None,
        "valid/loss": None,
        "valid/loss_mask": None,
        "valid/loss_gmask": None,
        "valid/loss_mip": None,
        "optim/lr": 1e-3,
        "optim/grad_norm": float("inf"),
        "speed/tokens_per_second": 12345.6,
        **values,
    }


def test_wandb_offline_records_every_attempt_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    said: list[str] = []
    identifier = run_id(tmp_path, None, said.append)
    for first in (1, 3):
        assert run_id(tmp_path, "another", said.append) == identifier
        settings = LogConfig(wandb=Wandb.offline)
        tracker = WandbTracker(
            tmp_path, "tiny", identifier, settings, {"optim.lr": 1e-3}, said.append
        )
        for step in (first, first + 1):
            tracker.log_metrics(line(step))
        tracker.close()
    assert said == []
    sync = tmp_path / "wandb" / "sync.sh"
    words = f"wandb records offline. Send it later with: bash {sync}"
    assert offline_words(tmp_path, identifier) == words
    assert records_offline(RunPaths(tmp_path))
    records = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(records) == 2
    assert all(identifier in record.name for record in records)
    assert b"train/loss" in records[0].read_bytes()

    # The script sends them in order, with every wandb: a stand-in records its arguments.
    names = [record.parent.name for record in records]
    tools = tmp_path / "tools"
    tools.mkdir()
    for options, expected in (
        ("--append", [f"sync --append --id {identifier} {name}" for name in names]),
        ("--yes", [f"sync --yes --id {identifier} {' '.join(names)}"]),
    ):
        stand_in = f'[ "$2" = --help ] && echo "{options}" || echo "$@" >> {tmp_path}/sent.txt\n'
        (tools / "wandb").write_text(f"#!/bin/sh\n{stand_in}")
        (tools / "wandb").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        subprocess.run(["bash", str(sync)], check=True)
        assert (tmp_path / "sent.txt").read_text().splitlines() == expected
        (tmp_path / "sent.txt").unlink()

    # The installed wandb takes the options that the script chooses for it.
    (tools / "wandb").write_text(
        f'#!/bin/sh\n[ "$2" = --help ] || set -- "$@" --dry-run\nexec {sys.executable} -m wandb "$@"\n'
    )
    done = subprocess.run(["bash", str(sync)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No such option" not in done.stdout + done.stderr


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o000, 0o666)])
def test_the_umask_says_who_may_read_the_script_that_sends_the_records(
    umask: int, mode: int, tmp_path: Path
):
    before = os.umask(umask)
    try:
        words = offline_words(tmp_path, "abc")
    finally:
        os.umask(before)
    script = tmp_path / "wandb" / "sync.sh"
    assert words == f"wandb records offline. Send it later with: bash {script}"
    assert script.stat().st_mode & 0o777 == mode


def test_the_id_is_made_anew_where_what_is_kept_is_none(tmp_path: Path):
    said: list[str] = []
    kept = tmp_path / "wandb" / "run_id.txt"
    for spoil in (
        lambda: kept.write_bytes(b"\xff"),
        lambda: kept.write_text("../x\n"),
        kept.unlink,
    ):
        first = run_id(tmp_path, None, said.append)
        assert run_id(tmp_path, None, said.append) == first
        spoil()
        assert run_id(tmp_path, None, said.append) != first
    assert run_id(tmp_path / "new", "the-checkpoints", said.append) == "the-checkpoints"
    assert not said
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "wandb").write_text("a file in its place")
    assert run_id(tmp_path / "closed", "the-checkpoints", said.append) == "the-checkpoints"
    assert "cannot be written" in said[0]


def test_who_has_no_home_has_no_login(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert resolve_mode(Wandb.auto) == "offline"


def test_wandb_is_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert resolve_mode(Wandb.auto) == "offline"
    with pytest.raises(RunFolderError, match="log.wandb=offline"):
        resolve_mode(Wandb.online)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert resolve_mode(Wandb.auto) == "online"


def behind_a_thread(folder: Path, mode: Wandb, said: list[str]) -> BackgroundTracker:
    settings = LogConfig(wandb=mode)
    return BackgroundTracker(
        "wandb", lambda say: WandbTracker(folder, "tiny", "id", settings, {}, say), said.append
    )


def test_a_failure_in_wandb_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    def fail(**_: Any) -> None:
        raise RuntimeError("no space left\nmore")

    monkeypatch.setattr(wandb, "init", fail)
    said: list[str] = []
    tracker = behind_a_thread(tmp_path, Wandb.offline, said)
    tracker.log_metrics(line(1))
    tracker.close()
    assert said == ["wandb failed (no space left); training goes on without it."]


class Recorder:
    """Stands in for wandb's run."""

    dir = "/nowhere"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.sent: list[tuple[str, str]] = []
        self.artifacts: list[tuple[Any, list[str]]] = []
        self.fails = False
        self.exit_code: int | None = None

    def define_metric(self, *_: str, **__: str) -> None:
        pass

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code

    def alert(self, title: str, text: str) -> None:
        if self.fails:
            raise RuntimeError("no network")
        self.sent.append((title, text))


@pytest.mark.parametrize("fails", [False, True])
def test_alerts_reach_wandb_and_the_log(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import wandb

    run = Recorder()
    run.fails = fails
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    said: list[str] = []
    log = tmp_path / "log.txt"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with printed_lines():
        console = ConsoleTracker(log, 1, None)
        trackers = Trackers([console, behind_a_thread(tmp_path, Wandb.online, said)])
        trackers.alert("Slow rank", "Rank 3 is slow.")
        trackers.close()
    assert log.read_text().endswith("Rank 3 is slow.\n") and "Rank 3" in capsys.readouterr().out
    assert run.sent == ([] if fails else [("Slow rank", "Rank 3 is slow.")])
    assert said == (["wandb failed (no network); training goes on without it."] if fails else [])


def test_details_samples_and_checkpoints_reach_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    run = Recorder()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    said: list[str] = []
    tracker = WandbTracker(tmp_path, "tiny", "id", LogConfig(wandb=Wandb.online), {}, said.append)
    position = {"step": 3, "samples_seen": 24}
    tracker.log_details({**position, "layers/gradient_norm": [0.5, 1.5]})
    assert run.rows == [
        {**position, "layers/gradient_norm/00": 0.5, "layers/gradient_norm/01": 1.5}
    ]
    blank = {"index": 7, "objective": "mask", "text": "a [MASK]", "truth": "b", "filled": "<c>"}
    tracker.log_samples({**position, "blanks": [blank]})
    table = run.rows[1].pop("samples/blanks")
    assert run.rows[1] == position
    assert (table.columns, table.data) == (list(blank), [list(blank.values())])

    folder = tmp_path / "checkpoints" / "step_00000003"
    tracker.log_checkpoint(folder, 24)
    assert run.artifacts == [], "it is gone by now"
    folder.mkdir(parents=True)
    (folder / "rank.safetensors").write_bytes(b"x" * 1000)
    tracker.log_checkpoint(folder, 24)
    ((artifact, aliases),) = run.artifacts
    assert artifact.name == "checkpoint-id" and aliases == ["latest", "step_00000003"]
    assert artifact.metadata == {"samples_seen": 24, "folder": "step_00000003"}
    entries = artifact.manifest.entries
    assert {name: entry.ref for name, entry in entries.items()} == {
        "step_00000003/rank.safetensors": f"{folder.as_uri()}/rank.safetensors"
    }
    assert not said


def test_where_the_server_cannot_be_reached_wandb_records_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    modes: list[str] = []

    def init(mode: str, **_: Any) -> Recorder:
        modes.append(mode)
        if mode == "online":
            raise wandb.Error("no answer\nin 60 seconds")
        return Recorder()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    said: list[str] = []
    WandbTracker(tmp_path, "tiny", "id", LogConfig(wandb=Wandb.online), {}, said.append)
    assert modes == ["online", "offline"]
    assert said == [
        "wandb cannot be reached (no answer). wandb records offline. Send it later with: "
        f"bash {tmp_path / 'wandb' / 'sync.sh'}"
    ]


def test_a_script_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "wandb").write_text("a file in its place")
    words = offline_words(tmp_path, "abc")
    assert words.startswith("wandb records offline, but ") and "cannot be written" in words


def stored(folder: Path, *damaged: int) -> None:
    """A history of three steps that wandb has nothing of."""
    lines = [json.dumps({**line(step), "optim/grad_norm": "inf"}) for step in (1, 2, 3)]
    for number in damaged:
        lines[number] = "{"
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_a_history_that_cannot_be_read_is_said_and_the_attempt_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    run = Recorder()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    said: list[str] = []
    for damaged, steps in (((), [1, 2]), ((1,), [])):
        run.rows.clear()
        stored(tmp_path, *damaged)
        settings = LogConfig(wandb=Wandb.offline)
        tracker = WandbTracker(tmp_path, "tiny", "id", settings, {}, said.append, step=2)
        assert [row["step"] for row in run.rows] == steps
        tracker.log_metrics(line(3))
        assert [row["step"] for row in run.rows] == [*steps, 3]
    assert len(said) == 1 and "is not known, and not reported again (" in said[0]
    assert "line 2" in said[0]


def test_a_rollback_that_is_faster_than_wandb_leaves_it_the_history_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    run = Recorder()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    stored(tmp_path)
    history = (tmp_path / "metrics.jsonl").open("rb")
    # The rows that are trained after it are reported as they are trained.
    replace_file(tmp_path / "metrics.jsonl", json.dumps(line(1)) + "\n")
    settings, said = LogConfig(wandb=Wandb.offline), list[str]()
    WandbTracker(tmp_path, "tiny", "id", settings, {}, said.append, step=2, history=history)
    assert [(row["step"], row["optim/grad_norm"]) for row in run.rows] == [
        (1, float("inf")),
        (2, float("inf")),
    ]
    assert history.closed and not said


def test_a_history_is_not_waited_for_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import wandb

    stored(tmp_path)
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/process\nexec sleep 600\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("it begins after the end"))
    said: list[str] = []
    settings = LogConfig(wandb=Wandb.offline)

    def make(say: Callable[[str], None]) -> WandbTracker:
        return WandbTracker(tmp_path, "tiny", "id", settings, {}, say, step=2)

    before = set(threading.enumerate())
    tracker = BackgroundTracker("wandb", make, said.append, abandon, close_seconds=0.1)
    (thread,) = set(threading.enumerate()) - before
    while not (tmp_path / "process").exists() or not (tmp_path / "process").read_text():
        time.sleep(0.01)
    tracker.close()
    thread.join(60)
    assert not thread.is_alive()
    assert not Path(f"/proc/{(tmp_path / 'process').read_text().strip()}").exists()
    assert len(said) == 1 and "is not waited for" in said[0]
