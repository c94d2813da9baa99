"""Which checkpoint a start continues from, where the newest that it finds is not the one."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.killing import KilledAtCall
from tests.helpers.whole_runs import command, compared, resumed_at, run_attempt

SAVES = ("checkpoint.save_every_samples=16", "checkpoint.keep_last=9")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, stopped after 64 samples with a checkpoint every 2 steps, and `whole`, which was not."""
    folder = tmp_path_factory.mktemp("runs")
    overrides = command(folder, *SAVES)
    assert run_attempt(1, (*overrides, f"run.dir={folder / 'whole'}")) == [0]
    stop = "run.stop_after_samples=64"
    assert run_attempt(1, (*overrides, f"run.dir={folder / 'run'}", stop)) == [75]
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run."""
    return shutil.copytree(stopped / "run", tmp_path / "run")


def killed_before_its_fourth_step(rank: int, world_size: int, overrides: tuple[str, ...]) -> None:
    from train.engine.pipeline import PipelineEngine
    from train.main import cli

    KilledAtCall(4).wrap(PipelineEngine, "train_step")
    cli(list(overrides))


def test_a_checkpoint_of_a_history_that_was_left_is_passed_over(
    stopped: Path, run: Path, tmp_path: Path
) -> None:
    overrides = command(stopped, *SAVES, f"run.dir={run}")
    # The second attempt does not see the newest checkpoint of the first, and trains beyond it without a save.
    newest, hidden = run / "checkpoints" / "step_00000008", tmp_path / "hidden"
    newest.rename(hidden)
    ranks = Ranks(
        killed_before_its_fourth_step, 1, (*overrides, "checkpoint.save_every_samples=96")
    )
    assert ranks.wait(120) == [-9]
    hidden.rename(newest)
    assert run_attempt(1, overrides) == [0]
    assert resumed_at(run) == [48, 48]
    assert f"{newest} belongs to a history that the run has left" in (run / "log.txt").read_text()
    assert compared(run) == compared(stopped / "whole")


def test_without_its_last_lines_a_run_goes_back_to_where_they_reach(
    stopped: Path, run: Path
) -> None:
    overrides = command(stopped, *SAVES, f"run.dir={run}")
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40] + b"\0\0\0\n")
    assert run_attempt(1, overrides) == [0]
    assert resumed_at(run) == [32]
    assert compared(run) == compared(stopped / "whole")


def test_without_any_lines_it_is_refused_and_nothing_is_lost(
    stopped: Path, run: Path, tmp_path: Path
) -> None:
    (run / "metrics.jsonl").unlink()
    checkpoints = sorted((run / "checkpoints").rglob("*"))
    overrides, errors = command(stopped, *SAVES, f"run.dir={run}"), tmp_path / "errors.txt"
    assert run_attempt(1, overrides, errors=errors) == [2]
    assert "lines for 0 of the 2 steps" in errors.read_text()
    assert sorted((run / "checkpoints").rglob("*")) == checkpoints


@pytest.mark.parametrize("damage", ["foreign", "binary"])
def test_a_line_that_is_not_its_own_takes_a_run_back_to_before_it(
    stopped: Path, run: Path, damage: str
) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    other = {**json.loads(lines[6]), "train/loss": 1.5}
    lines[6] = b"\0\xff\n" if damage == "binary" else json.dumps(other).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    # What people read is damaged as well, and changes nothing.
    (run / "status.json").write_text("[" * 100_000)
    (run / "events.jsonl").write_text('{"event": 7}\n')
    (run / "generations" / "000001").write_text("3\n")
    (run / f".status.json.{2**22 + 1}-7.part").write_text("{")
    assert run_attempt(1, command(stopped, *SAVES, f"run.dir={run}")) == [0]
    assert compared(run) == compared(stopped / "whole")
    assert (run / "metrics.damaged-1.jsonl").read_bytes() == b"".join(lines)
    assert "is kept as metrics.damaged-1.jsonl, and its lines up to step 6" in (
        (run / "log.txt").read_text()
    )
    assert '"metrics_repaired"' in (run / "events.jsonl").read_text()
    assert not list(run.glob(".*.part"))


def test_a_damaged_history_that_would_cost_much_training_is_refused(
    stopped: Path, run: Path, tmp_path: Path
) -> None:
    path, errors = run / "metrics.jsonl", tmp_path / "errors.txt"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[2]
    path.write_bytes(b"".join(lines))
    before = sorted((run / "checkpoints").rglob("*"))
    overrides = command(stopped, *SAVES, f"run.dir={run}", "checkpoint.keep_last=2")
    assert run_attempt(1, overrides, errors=errors) == [2]
    said = errors.read_text()
    assert "line 4, is of step 3" in said and "checkpoint.resume=" in said
    assert "Traceback" not in said and path.read_bytes() == b"".join(lines)
    assert sorted((run / "checkpoints").rglob("*")) == before


def with_dead_copies(rank: int, world_size: int, overrides: tuple[str, ...]) -> None:
    """An attempt that cannot read its second copies."""
    from train.main import cli

    iterdir = Path.iterdir

    def dead(path: Path) -> Iterator[Path]:
        if "elsewhere" in path.parts:
            raise OSError(errno.ESTALE, "Stale file handle")
        return iterdir(path)

    Path.iterdir = dead
    os._exit(cli(list(overrides)))


def test_a_dead_disk_of_second_copies_does_not_keep_a_run_from_its_own(
    stopped: Path, run: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "elsewhere" / "tiny" / "checkpoints"
    copies.mkdir(parents=True)
    copy_to = f"checkpoint.copy_to={tmp_path / 'elsewhere'}"
    overrides = command(stopped, *SAVES, f"run.dir={run}", "run.name=tiny", copy_to)
    # Without a checkpoint of its own it must not begin again: the copy may have one.
    own, hidden = run / "checkpoints", tmp_path / "hidden"
    own.rename(hidden)
    assert Ranks(with_dead_copies, 1, overrides).wait(120) == [3]
    shutil.rmtree(own)
    hidden.rename(own)
    assert Ranks(with_dead_copies, 1, overrides).wait(120) == [0]
    assert resumed_at(run) == [64]
    said = (run / "log.txt").read_text()
    assert f"{copies} cannot be read: Stale file handle. It is skipped." in said
    assert compared(run) == compared(stopped / "whole")
