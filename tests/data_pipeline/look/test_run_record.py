"""A run is looked at while it trains: the checkpoint that is read may be deleted under the reader's hands."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_pipeline.look import run_record


def test_the_next_checkpoint_is_taken_where_retention_deletes_the_newest_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(step: int) -> Path:
        manifest = tmp_path / "checkpoints" / f"step_{step:08d}" / "manifest.json"
        manifest.parent.mkdir(parents=True)
        body = {"data_state": {"dataset": {"step": step}}, "progress": {"samples_drawn": 8}}
        manifest.write_text(json.dumps(body))
        return manifest

    read = run_record.read_record
    write(1)

    def overtaken(path: Path, *arguments: Any) -> Any:
        """The run goes on: the next checkpoint appears, and this one goes."""
        if "00000001" in str(path):
            write(2)
            shutil.rmtree(path.parent)
        return read(path, *arguments)

    monkeypatch.setattr(run_record, "read_record", overtaken)
    monkeypatch.setattr(run_record, "compare", lambda stored, *_: SimpleNamespace(breaks=[stored]))
    monkeypatch.setattr(run_record, "changes_since", lambda *_: SimpleNamespace(damage=[]))
    training: Any = SimpleNamespace(describe=lambda: {})
    assert run_record.changed_data(tmp_path, training) == [{"step": 2}]
    shutil.rmtree(tmp_path / "checkpoints")
    assert run_record.changed_data(tmp_path, training) == []
