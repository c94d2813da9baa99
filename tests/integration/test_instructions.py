"""A run with instructions learns from them: losses of all three objectives, from training to `show`."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command, metrics, run_attempt


def test_instructions_are_learnt_measured_and_shown(tmp_path: Path) -> None:
    records = tmp_path / "questions.jsonl"
    # Always the same answer: what falls is the loss of the answers, not only that of the text.
    lines = (json.dumps({"prompt": f"{n} or {n + 1}?", "target": "yes"}) for n in range(400))
    records.write_text("".join(f"{line}\n" for line in lines))
    overrides = command(
        tmp_path,
        f"run.dir={tmp_path / 'run'}",
        f"data.instructions=[{records}]",
        "data.instruction_share=[[0,0.25]]",
    )
    assert run_attempt(2, overrides) == [0, 0]
    lines_of_run = metrics(tmp_path / "run")
    for prefix in ("train", "valid"):
        found = [line[f"{prefix}/loss_mip"] for line in lines_of_run]
        losses = [loss for loss in found if loss is not None]
        assert mean(losses[-2:]) < 0.5 * losses[0], (prefix, losses)
    last = lines_of_run[-1]
    assert all(last[f"valid/loss_{name}"] is not None for name in ("mask", "gmask", "mip"))

    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "data_pipeline",
            "show",
            str(tmp_path / "run"),
            "--objective",
            "mip",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "MIP" in shown.stdout
    assert "?[MASK]" in shown.stdout and "<sop> -> yes<eop>" in shown.stdout
    assert "questions.jsonl" in shown.stdout
