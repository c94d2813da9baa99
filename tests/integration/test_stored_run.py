"""A run that an earlier program left is continued by today's as that program itself continued it, but for rounding.

tests/data/stored_run/README.md says how it was made. Today's program rounds otherwise (glm/numerics.py), and says so.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.reader import read_manifest
from glm.numerics import NUMERICS
from tests.helpers.distributed import Ranks
from tests.helpers.places import ROOT
from tests.helpers.whole_runs import COMPARED, metrics, resumed_at

STORED = ROOT / "tests" / "data" / "stored_run"
RUN_ID = "020efd9176b9489b"
NUM_STORED_STEPS, NUM_STEPS = 8, 14


def continued(tmp_path: Path, world_size: int, *overrides: str) -> Path:
    """Copy the run and type its command again, without the stop; returns the folder of the copy."""
    folder = Path(shutil.copytree(STORED, tmp_path / "copied"))
    words = (folder / "run" / "overrides.txt").read_text().splitlines()
    assert words.pop() == "run.stop_after_samples=48"
    errors = tmp_path / "errors.txt"
    ranks = Ranks(_continue, world_size, folder, errors, (*words, *overrides))
    try:
        codes = ranks.wait(120)
    finally:
        ranks.kill_all()
    assert codes == [0] * world_size, errors.read_text()
    return folder / "run"


def _continue(
    rank: int, world_size: int, folder: Path, errors: Path, overrides: tuple[str, ...]
) -> None:
    from train.main import cli

    os.chdir(folder)
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
    os._exit(cli(list(overrides)))


def golden() -> list[dict[str, Any]]:
    """The lines that the earlier program wrote when it went on."""
    return [json.loads(line) for line in (STORED / "continued.jsonl").read_text().splitlines()]


def told(line: dict[str, Any]) -> dict[str, Any]:
    """A line without times and memory."""
    names = (*COMPARED, "step", "samples_seen", "tokens_seen", "data/")
    return {key: value for key, value in line.items() if key.startswith(names)}


def is_rounded(key: str) -> bool:
    """True for what depends on the order of floating point sums."""
    return "loss" in key.split("/")[-1].split("_") or "grad_norm" in key


def check_lines(run: Path) -> None:
    """Compare what today's program has added with what the earlier one had."""
    stored = (STORED / "run" / "metrics.jsonl").read_bytes()
    assert (run / "metrics.jsonl").read_bytes().startswith(stored)
    lines = [told(line) for line in metrics(run)[NUM_STORED_STEPS:]]
    for line, expected in zip(lines, map(told, golden()), strict=True):
        assert line.keys() == expected.keys()
        for key, value in expected.items():
            if value is None or not is_rounded(key):
                assert line[key] == value, key
            else:
                rtol = 1e-4 if "grad_norm" in key else 1e-5
                np.testing.assert_allclose(line[key], value, rtol=rtol, err_msg=key)


def check_numerics(run: Path) -> None:
    """That the bits differ from here on is an event, and its checkpoints keep the number of today's program."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (change,) = (event for event in events if event["event"] == "numerics_change")
    assert f"numerics {NUMERICS}" in change["message"] and "numerics 1)" in change["message"]
    assert change["message"] in (run / "log.txt").read_text()
    newest = run / "checkpoints" / f"step_{NUM_STEPS:08d}"
    assert read_manifest(newest).extra["numerics"] == NUMERICS


def test_it_goes_on_as_with_the_program_that_left_it(tmp_path: Path) -> None:
    run = continued(tmp_path, 1)
    check_lines(run)
    assert resumed_at(run) == [48]
    check_numerics(run)

    # It is the same run, and only what it had written itself was removed.
    assert json.loads((run / "identity.json").read_text())["run_id"] == RUN_ID
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["generation"], status["samples_seen"]) == ("done", 2, 96)
    for name in ("tokenizer.json", "spec.txt"):
        kept = STORED / "run" / "tokenizer" / name
        assert (run / "tokenizer" / name).read_bytes() == kept.read_bytes()
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert checkpoints == [f"step_{step:08d}" for step in (NUM_STEPS - 1, NUM_STEPS)]
    manifest = read_manifest(run / "checkpoints" / checkpoints[-1])
    assert (manifest.run_id, manifest.generation) == (RUN_ID, 2)


def test_it_goes_on_with_another_layout(tmp_path: Path) -> None:
    run = continued(tmp_path, 2, "parallel.tp=2")
    check_lines(run)
    assert resumed_at(run) == [48]


def test_it_is_small_and_of_the_first_format() -> None:
    for path in (STORED / "run" / "checkpoints").glob("*/manifest.json"):
        assert json.loads(path.read_text())["format_version"] == 1
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 1_000_000
