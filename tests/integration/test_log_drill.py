"""The log of GLM-130B's run as a drill, on one seed: with rollback it ends as the clean run does, without it worse."""

from pathlib import Path

import pytest

from benchmarks.drill.figures import NEAR, WORSE, failures
from benchmarks.drill.timeline import TIMELINE, Variant
from benchmarks.log_drill import SEEDS, drilled
from configs.run_checkpoints import committed
from configs.run_paths import RunPaths
from tests.helpers.whole_runs import metrics


@pytest.mark.slow
def test_one_seed_of_the_drill(tmp_path: Path) -> None:
    outcomes = drilled(tmp_path, [SEEDS[0]], list(Variant))
    assert failures(outcomes) == []
    clean, back, warn = outcomes
    assert clean.valid_loss and back.valid_loss
    assert back.valid_loss <= (1 + NEAR) * clean.valid_loss
    assert warn.valid_loss is None or warn.valid_loss >= (1 + WORSE) * clean.valid_loss
    # Nobody typed anything but the timeline: one attempt an act, and one without a file of the corpus.
    assert back.starts == clean.starts == len(TIMELINE) + 1
    assert "text.bin" in back.lost_file
    # The history is one, whatever was killed and cut off.
    for variant in (Variant.clean, Variant.rollback):
        run = tmp_path / f"{SEEDS[0]}_{variant.value}" / "run"
        lines = metrics(run)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        assert committed(RunPaths(run).checkpoints)
