"""A run whose gradients overflow from its first step on: it says so, and is not started again."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.distributed import Ranks
from tests.helpers.rank_runs import allow_fp16
from tests.helpers.whole_runs import command, metrics


def overflowing_attempt(
    rank: int, world_size: int, overrides: tuple[str, ...], errors: Path
) -> None:
    """`python -m train` in which every gradient of the first parameter is infinite."""
    import train.engine.pipeline as engine
    from train.main import cli

    allow_fp16()
    build_optimizer = engine.build_optimizer

    def build(kind: Any, module: Any, *arguments: Any) -> Any:
        first = next(module.parameters())
        first.register_hook(lambda gradient: gradient + math.inf)
        return build_optimizer(kind, module, *arguments)

    engine.build_optimizer = build
    if "precision=fp16" in overrides:
        import train.start as start

        start.check_device = lambda config, device_type: None
    with errors.open("a") as file:
        os.dup2(file.fileno(), 2)
    os._exit(cli(list(overrides)))


@pytest.mark.parametrize("precision, last_scale", [("fp16", 1.0), ("fp32", None)])
def test_skipped_steps_in_a_row_end_the_run_with_a_message(
    precision: str, last_scale: float | None, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    overrides = (
        f"run.dir={run}",
        f"precision={precision}",
        "optim.total_samples=480",
        "checkpoint.save_every_samples=480",
        "eval.every_samples=480",
    )
    ranks = Ranks(overflowing_attempt, 2, command(tmp_path, *overrides), errors)
    try:
        codes = ranks.wait(120)
    finally:
        ranks.kill_all()
    said = errors.read_text()
    assert codes == [2, 2], said
    assert said.count("50 steps in a row were skipped for overflow or NaN") == 1
    assert "Traceback" not in said
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed" and "50 steps in a row" in status["message"]
    lines = metrics(run)
    assert len(lines) == 50
    assert lines[-1]["optim/loss_scale"] == last_scale
