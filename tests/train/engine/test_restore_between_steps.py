"""A running engine that is set back to a checkpoint goes on exactly like a fresh one that starts there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import (
    allow_fp16,
    config_of,
    held_state,
    progress_after,
    rank_session,
    save_after,
    saver_of,
    train,
)


def save_after_two_steps(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> Path:
    """A checkpoint of this layout."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        _, folder = save_after(engine, session, config, checkpoints, 0, 2)
        engine.close()
    return folder


def go_back(
    rank: int, world_size: int, overrides: tuple[str, ...], folder: Path, checkpoints: Path
) -> dict[str, Any]:
    """Five steps, back to the checkpoint of step 2 twice, four steps; and a fresh engine from there."""
    from train.checkpoint import restore, verify_together
    from train.engine import build_engine
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        fresh: Any = build_engine(config, session, draws_weights=False)
        manifest = verify_together(folder, session)
        first = restore(fresh, folder, manifest).step
        expected = train(fresh, session, config, first, 4)
        expected_state = (held_state(fresh, session, config), fresh.state.numbers())
        fresh.close()

        engine = PipelineEngine(config, session)
        saver = saver_of(engine, session, config, checkpoints)
        train(engine, session, config, 0, 5)
        saver.save(
            progress_after(5)
        )  # its copy of the state must not be mistaken for the later one
        restore(engine, folder, manifest)
        train(engine, session, config, first, 1)
        restore(engine, folder, manifest)
        found = train(engine, session, config, first, 4)
        found_state = (held_state(engine, session, config), engine.state.numbers())
        saver.finish()
        engine.close()
    return {"curves": (expected, found), "states": (expected_state, found_state)}


@pytest.mark.parametrize(
    "precision, source, target",
    [
        ("fp32", (1, ()), (1, ())),
        ("fp32", (1, ()), (1, ("parallel.zero_stage=0",))),
        ("fp32", (2, ("parallel.tp=2",)), (2, ("parallel.pp=2",))),
        ("bf16", (2, ()), (2, ())),
        ("bf16", (1, ()), (4, ("parallel.tp=2", "parallel.pp=2"))),
        ("fp16", (2, ()), (2, ())),
        ("fp16", (1, ()), (2, ("parallel.tp=2",))),
    ],
)
def test_going_back_equals_starting_there(
    tmp_path: Path,
    precision: str,
    source: tuple[int, tuple[str, ...]],
    target: tuple[int, tuple[str, ...]],
) -> None:
    size, layout = source
    precision_key = f"precision={precision}"
    folder = run_distributed(
        save_after_two_steps, size, (precision_key, *layout), tmp_path / "source"
    )[0]
    size, layout = target
    for result in run_distributed(
        go_back, size, (precision_key, *layout), folder, tmp_path / "target"
    ):
        expected, found = result["curves"]
        assert found == expected, "losses and gradient norms, to the last bit"
        (state, numbers), (found_state, found_numbers) = result["states"]
        assert found_numbers == numbers
        for group, twin in zip(state["groups"], found_state["groups"], strict=True):
            assert group["step"] == twin["step"] == numbers["step"]
            for kind in ("master", "exp_avg", "exp_avg_sq"):
                np.testing.assert_array_equal(group[kind], twin[kind])
        for name, (_, values) in state["weights"].items():
            np.testing.assert_array_equal(values, found_state["weights"][name][1])
