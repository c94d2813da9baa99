"""The identity of a run: made once, found again, and never guessed."""

import os
from pathlib import Path

import pytest

from configs.errors import RunFolderError
from tests.helpers.checkpoints import forge, save
from train import identity
from train.identity import Identity

ONE, OTHER = "1" * 16, "2" * 16


def of_run(folder: Path, run_id: str) -> Path:
    """Let a checkpoint be of a run."""
    return forge(folder, extra={"run_id": run_id})


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    first = identity.settle(tmp_path)
    assert identity.settle(tmp_path) == first == identity.read(tmp_path)
    assert not first.has_checkpoint
    (tmp_path / "other").mkdir()
    assert identity.settle(tmp_path / "other").run_id != first.run_id
    assert not list(tmp_path.glob(".*.part"))


def test_a_committed_checkpoint_is_recorded_and_a_new_beginning_is_another_run(
    tmp_path: Path,
) -> None:
    first = identity.settle(tmp_path)
    identity.record_checkpoint(tmp_path, OTHER)
    assert identity.settle(tmp_path) == first
    identity.record_checkpoint(tmp_path, first.run_id)
    assert identity.settle(tmp_path) == Identity(first.run_id, has_checkpoint=True)
    assert identity.begin_anew(tmp_path).run_id != first.run_id
    assert not identity.settle(tmp_path).has_checkpoint


@pytest.mark.parametrize("evidence", ["checkpoint", "hint", "event", "none"])
def test_an_older_run_folder_gets_one_and_what_it_has_saved_is_known(
    tmp_path: Path, evidence: str
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (tmp_path / "events.jsonl").write_text('{"time": 1.0, "event": "start"}\n')
    if evidence == "checkpoint":
        save(checkpoints, 1, seed=1)
    if evidence == "hint":
        (checkpoints / "latest").write_text("step_00000001\n")
    if evidence == "event":
        (tmp_path / "events.jsonl").write_text('{"time": 1.0, "event": "checkpoint"}\n')
    assert identity.settle(tmp_path).has_checkpoint == (evidence != "none")


def test_a_lost_file_is_taken_from_the_checkpoints_unless_they_are_of_several_runs(
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    save(checkpoints, 1, seed=1)  # older than identities
    of_run(save(checkpoints, 2, seed=2), ONE)
    said: list[str] = []
    assert identity.settle(tmp_path, said.append) == Identity(ONE, has_checkpoint=True)
    assert "identity.json is missing" in said[0] and ONE in said[0]
    (tmp_path / "identity.json").unlink()
    of_run(save(checkpoints, 3, seed=3), OTHER)
    with pytest.raises(RunFolderError, match=f"2 runs.*{ONE}, {OTHER}.*Move"):
        identity.settle(tmp_path)
    assert not (tmp_path / "identity.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"run_id": "../x"}', '{"run_id": 3}', "\0", None])
def test_a_file_that_is_none_of_ours_is_refused_and_stays(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "identity.json"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(content)
    with pytest.raises(RunFolderError, match=r"identity\.json.*Move it away"):
        identity.settle(tmp_path)
    assert path.exists()


def test_one_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text(f'{{"run_id": "{ONE}", "format_version": 2}}')
    with pytest.raises(RunFolderError, match="format version 2"):
        identity.settle(tmp_path)
