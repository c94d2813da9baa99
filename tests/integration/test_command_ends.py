"""`python -m train` as a command whose output goes through a pipe: what it leaves when it ends."""

import importlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command, metrics


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    return subprocess.run(
        [sys.executable, "-m", "train", *overrides],
        cwd=ROOT,
        env={**environment, "HOME": str(folder)},
        capture_output=True,
        text=True,
    )


def test_a_stopped_and_a_finished_run_leave_everything(tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(tmp_path, f"run.dir={run}", "log.wandb=offline", "optim.total_samples=24")
    stopped = train(tmp_path, *overrides, "run.stop_after_samples=16")
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stdout.splitlines()[-1].endswith(f"continues from {run}")
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"

    finished = train(tmp_path, *overrides)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].strip().startswith("send wandb ")
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert [line["step"] for line in metrics(run)] == [1, 2, 3]
    assert (run / "checkpoints/step_00000003/manifest.json").exists()
    records = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert [steps_in(record) for record in records] == [[1, 2], [3]]


def test_a_mistake_is_told_and_ends_with_2(tmp_path: Path) -> None:
    done = train(tmp_path, "optim.lr=-1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("optim.lr (-1") and "Traceback" not in done.stderr


def steps_in(file: Path) -> list[int]:
    """The steps whose metrics a file of wandb holds, once it is known to be complete."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    steps, kinds = [], []
    for content in records_in(file.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        kinds.append(record.WhichOneof("record_type"))
        if kinds[-1] == "history":
            items = {"".join(item.nested_key) or item.key: item for item in record.history.item}
            steps.append(int(items["step"].value_json))
    assert "exit" in kinds, "the file has no end"
    return steps


def records_in(content: bytes) -> list[bytes]:
    """The records of a file in LevelDB's log format, which wandb writes behind a header of 7 bytes."""
    records, pieces, place = [], b"", 7
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:  # the rest of a block is padding
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            records.append(pieces)
            pieces = b""
    return records
