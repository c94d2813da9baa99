"""A start that finds a finished run: what it says, and when it does not count as finished."""

from pathlib import Path

import pytest

from configs.load import load_config, to_stored_yaml
from tests.helpers.checkpoints import save
from train.run_folder import RunFolder
from train.start import inspect_folder


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """A run of 800 samples that has shown what it learnt."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config.write_text(to_stored_yaml(load_config(["optim.total_samples=800"])))
    folder.write_status("done", 800, "all samples seen")
    folder.summary.write_text("{}")
    save(folder.checkpoints, 50, seed=1)
    return folder


def message(folder: RunFolder, total: int) -> str | None:
    return inspect_folder(folder, load_config([f"optim.total_samples={total}"])).finished_message


@pytest.mark.parametrize("total", [400, 800])
def test_what_would_train_it_further_is_more_than_it_has_seen(
    finished: RunFolder, total: int
) -> None:
    text = message(finished, total)
    assert text is not None and "is finished: 800 samples." in text
    assert "  optim.total_samples=1600\n" in text


def test_one_that_has_lost_its_checkpoints_is_not_called_finished(finished: RunFolder) -> None:
    (manifest,) = finished.checkpoints.glob("*/manifest.json")
    manifest.unlink()
    assert message(finished, 800) is None
