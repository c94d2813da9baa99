"""Lines, bar and wandb: whole lines only, nothing lost, and no tracker ends a run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.errors import RunFolderError
from configs.run_paths import RunPaths
from configs.schema import LogConfig, Wandb
from train.terminal.records import printed_lines
from train.terminal.tracker import ConsoleTracker
from train.tracker_wandb import WandbTracker, records_offline, resolve_mode, run_id
from train.trackers import Trackers


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
    sync = tmp_path / "wandb" / "sync.sh"
    assert said == [f"wandb records offline. Send it later with: bash {sync}"] * 2
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
    umask: int, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(umask)
    try:
        said: list[str] = []
        settings = LogConfig(wandb=Wandb.offline)
        WandbTracker(tmp_path, "tiny", "abc", settings, {}, said.append).close()
    finally:
        os.umask(before)
    script = tmp_path / "wandb" / "sync.sh"
    assert said == [f"wandb records offline. Send it later with: bash {script}"]
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


def test_a_failure_in_wandb_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import wandb

    def fail(**_: Any) -> None:
        raise RuntimeError("no space left\nmore")

    monkeypatch.setattr(wandb, "init", fail)
    said: list[str] = []
    settings = LogConfig(wandb=Wandb.offline)
    tracker = WandbTracker(tmp_path, "tiny", "id", settings, {}, said.append)
    tracker.log_metrics(line(1))
    tracker.close()
    assert said == ["wandb failed (no space left); training goes on without it."]


@pytest.mark.parametrize("fails", [False, True])
def test_alerts_reach_wandb_and_the_log(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import wandb

    sent: list[tuple[str, str]] = []

    class Run:
        def define_metric(self, *_: str, **__: str) -> None:
            pass

        def alert(self, title: str, text: str) -> None:
            if fails:
                raise RuntimeError("no network")
            sent.append((title, text))

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    said: list[str] = []
    log = tmp_path / "log.txt"
    settings = LogConfig(wandb=Wandb.online)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with printed_lines():
        console = ConsoleTracker(log, 1, None)
        wandb_tracker = WandbTracker(tmp_path, "tiny", "id", settings, {}, said.append)
        Trackers([console, wandb_tracker]).alert("Slow rank", "Rank 3 is slow.")
        console.close()
    assert log.read_text().endswith("Rank 3 is slow.\n") and "Rank 3" in capsys.readouterr().out
    assert sent == ([] if fails else [("Slow rank", "Rank 3 is slow.")])
    assert said == (["wandb failed (no network); training goes on without it."] if fails else [])
