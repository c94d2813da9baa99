"""A checkpoint is read beside a run that deletes old ones."""

from pathlib import Path

import pytest

import glm.load
from configs.errors import CheckpointError
from configs.run_checkpoints import committed, step_folder
from glm.checkpoint.folder import remove
from glm.checkpoint.manifest import MANIFEST
from glm.load import read_checkpoint


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with two checkpoints, of which the newest is taken unverified."""
    for step in (1, 2):
        commit(tmp_path, step)
    monkeypatch.setattr(glm.load, "newest_good", lambda places, report: committed(places[0])[0])
    return tmp_path


def commit(run: Path, step: int) -> None:
    folder = step_folder(run / "checkpoints", step)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")


def test_the_next_one_is_read_if_retention_deletes_it(run: Path) -> None:
    tried: list[str] = []

    def read(folder: Path) -> str:
        tried.append(folder.name)
        if len(tried) < 3:  # training has gone on, twice
            commit(run, 2 + len(tried))
            remove(folder)
            raise CheckpointError(f"{folder} is not a complete checkpoint")
        return folder.name

    assert read_checkpoint(run, read) == "step_00000004"
    assert tried == ["step_00000002", "step_00000003", "step_00000004"]


def test_a_damaged_one_is_tried_once(run: Path) -> None:
    tried: list[Path] = []

    def read(folder: Path) -> None:
        tried.append(folder)
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(run, read)
    assert len(tried) == 1


def test_one_that_was_named_is_not_exchanged(run: Path) -> None:
    named = step_folder(run / "checkpoints", 1)

    def read(folder: Path) -> None:
        remove(folder)
        raise CheckpointError("gone")

    with pytest.raises(CheckpointError, match="gone"):
        read_checkpoint(named, read)
