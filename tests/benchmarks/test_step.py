"""The benchmark of steps reads the times of the run that it starts, without those of the first steps."""

from pathlib import Path

import pytest

from benchmarks.step import FIRST_STEPS, step_seconds

# Stands for a tree: its first steps are slow, and one later is too.
TRAIN = """
import json, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv[1:])
run = pathlib.Path(words["run.dir"])
run.mkdir(parents=True)
seconds = [9.0] * FIRST + [0.25, 7.0, 0.25, 0.5, 0.25]
lines = [json.dumps({"speed/seconds_per_step": each, "precision": words["precision"]}) for each in seconds]
(run / "metrics.jsonl").write_text("".join(line + "\\n" for line in lines))
sys.exit(CODE)
"""


def tree(tmp_path: Path, code: int) -> Path:
    """A tree whose command ends with `code`."""
    package = tmp_path / "tree" / "train"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    text = TRAIN.replace("CODE", str(code)).replace("FIRST", str(FIRST_STEPS))
    (package / "__main__.py").write_text(text)
    return tmp_path / "tree"


def test_the_first_steps_are_left_out_and_the_median_is_taken(tmp_path: Path) -> None:
    assert step_seconds(tree(tmp_path, 75), tmp_path / "runs", "0", "bf16") == 0.25
    assert "bf16" in (tmp_path / "runs" / "0" / "metrics.jsonl").read_text()


def test_a_run_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 1 instead of 75"):
        step_seconds(tree(tmp_path, 1), tmp_path / "runs", "0", "fp32")
