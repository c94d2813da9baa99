"""Run folders that were lost, copied or mixed up: whole runs, and what they say."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.whole_runs import command, compared, metrics, resumed_at, run_attempt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, stopped after 48 of 64 samples, with second copies in `copies/a`; `whole`, which was not stopped."""
    folder = tmp_path_factory.mktemp("runs")
    assert run_attempt(
        1, words(folder, f"run.dir={folder / 'run'}", "run.stop_after_samples=48")
    ) == [75]
    assert run_attempt(
        1, (*command(folder), "optim.total_samples=64", f"run.dir={folder / 'whole'}")
    ) == [0]
    return folder


def words(folder: Path, *overrides: str) -> tuple[str, ...]:
    copies = ("run.name=a", f"checkpoint.copy_to={folder / 'copies'}", "optim.total_samples=64")
    return command(folder, *copies, "checkpoint.save_every_samples=16", *overrides)


def refused(folder: Path, *overrides: str) -> str:
    """The message of a start that is refused."""
    errors = folder / "errors.txt"
    errors.write_text("")
    assert run_attempt(1, words(folder, *overrides), errors=errors) == [2]
    assert "Traceback" not in errors.read_text()
    return errors.read_text()


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_identity_stands_in_checkpoints_copies_and_events(folder: Path) -> None:
    run = folder / "run"
    known = json.loads((run / "identity.json").read_text())
    assert known["has_checkpoint"]
    for place in (run, folder / "copies" / "a"):
        for manifest in place.glob("checkpoints/*/manifest.json"):
            assert json.loads(manifest.read_text())["extra"]["run_id"] == known["run_id"]
    assert json.loads((folder / "copies/a/identity.json").read_text())["run_id"] == known["run_id"]
    (start,) = [json.loads(line) for line in (run / "events.jsonl").open()][:1]
    assert start["run_id"] == known["run_id"]
    said = (run / "log.txt").read_text()
    assert "run.stop_after_samples (48) is reached: the same command without it" in said
    assert str(folder) not in (run / "identity.json").read_text()


def test_another_run_of_the_same_name_is_refused_and_the_owner_of_the_copies_is_named(
    folder: Path,
) -> None:
    before = everything_in(folder / "copies")
    message = refused(folder, f"run.dir={folder / 'other'}", "optim.lr=1e-3")
    assert f"holds the second copy of the run {folder / 'run'}" in message
    assert "run.name=NAME" in message
    assert everything_in(folder / "copies") == before
    assert not list((folder / "other" / "checkpoints").iterdir())


def test_a_lost_run_folder_is_begun_again_from_its_copy_as_the_message_says(
    folder: Path, tmp_path: Path
) -> None:
    run = folder / "run"
    kept = shutil.move(run, tmp_path / "kept")
    message = refused(folder, f"run.dir={run}")
    assert f"cp -r {folder / 'copies/a'}/. {run}, and type the same command again" in message
    shutil.copytree(folder / "copies" / "a", run, dirs_exist_ok=True)
    assert run_attempt(1, words(folder, f"run.dir={run}")) == [0]
    assert resumed_at(run) == [48] and compared(run) == compared(folder / "whole")
    assert not (run / "second_copy.json").exists()
    shutil.rmtree(run)
    shutil.move(kept, run)


def test_without_its_checkpoints_it_is_refused_until_it_is_asked_to_begin_again(
    folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    before = everything_in(run)
    overrides = (f"run.dir={run}", "checkpoint.copy_to=null")
    assert "its checkpoints are gone" in refused(folder, *overrides)
    after = everything_in(run)
    kept = ("metrics.jsonl", "config.yaml", "overrides.txt", "identity.json")
    assert all(after[run / name] == before[run / name] for name in kept)
    again = words(folder, *overrides, "checkpoint.resume=never", "run.stop_after_samples=8")
    assert run_attempt(1, again) == [75]
    assert [line["samples_seen"] for line in metrics(run)] == [8]
    assert (run / "rolled_back" / "metrics_1.jsonl").read_bytes() == before[run / "metrics.jsonl"]


def test_a_lost_config_does_not_make_it_another_model_and_words_left_out_are_named(
    folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    alone = (f"run.dir={run}", "checkpoint.copy_to=null")
    for path in run.iterdir():
        if path.name not in ("checkpoints", "metrics.jsonl"):
            shutil.rmtree(path) if path.is_dir() else os.unlink(path)
    assert "model.num_heads is 4 there and 2 now" in refused(folder, *alone, "model.num_heads=2")
    longer = words(folder, *alone, "optim.total_samples=640", "run.stop_after_samples=56")
    assert run_attempt(1, (*longer, "optim.clip=2")) == [75]
    said = (run / "log.txt").read_text()
    assert "is missing: its checkpoints say that this is the run" in said
    assert "learning rate at sample 48: " in said and "(warm-up ends at sample 64" in said
    assert "optim.schedule_samples=64" in said
    assert run_attempt(1, (*longer, "run.stop_after_samples=64")) == [75]
    assert "The last start was given optim.clip=2 as well." in (run / "log.txt").read_text()
