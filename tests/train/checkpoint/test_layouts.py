"""A checkpoint of any layout continues on any other: every tensor bit for bit, and the losses that follow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glm.checkpoint.reader import load_full_tensors, read_manifest
from tests.helpers.distributed import run_distributed
from tests.helpers.lives import (
    allow_fp16,
    assemble,
    config_of,
    held_state,
    progress_after,
    rank_session,
    saver_of,
    train,
)

Layout = tuple[int, int, int]


def overrides_of(layout: Layout, precision: str, *more: str) -> tuple[str, ...]:
    tp, pp, _ = layout
    return (f"precision={precision}", f"parallel.tp={tp}", f"parallel.pp={pp}", *more)


def world_of(layout: Layout) -> int:
    tp, pp, dp = layout
    return tp * pp * dp


def train_and_save(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> dict[str, Any]:
    """Two steps, a checkpoint, two more steps."""
    from train.engine import Engine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = Engine(config, session)
        train(engine, session, config, 0, 2)
        saver = saver_of(engine, session, config, checkpoints)
        saver.save(progress_after(2))
        (outcome,) = saver.finish()
        assert outcome.error is None
        state = held_state(engine, session, config)
        numbers = engine.optimizer_state.numbers()
        following = train(engine, session, config, 2, 2)
        engine.close()
    return {"folder": outcome.folder, "following": following, "numbers": numbers, **state}


def load_and_train(
    rank: int, world_size: int, overrides: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """A fresh engine of another seed continues; looks at its state before any step."""
    from train.checkpoint import restore, verify_together
    from train.engine import Engine

    allow_fp16()
    config = config_of((*overrides, "seed=99"), world_size)
    with rank_session(rank, world_size, config) as session:
        engine = Engine(config, session)
        progress = restore(engine, folder, verify_together(folder, session))
        state = held_state(engine, session, config)
        numbers = engine.optimizer_state.numbers()
        following = train(engine, session, config, progress.step, 2)
        engine.close()
    return {"progress": progress, "following": following, "numbers": numbers, **state}


def check_pair(
    tmp_path: Path, source: Layout, target: Layout, precision: str, tolerance: float
) -> None:
    saved = run_distributed(
        train_and_save, world_of(source), overrides_of(source, precision), tmp_path
    )
    folder = saved[0]["folder"]
    assert {result["folder"] for result in saved} == {tmp_path / "step_00000002"}
    loaded = run_distributed(
        load_and_train, world_of(target), overrides_of(target, precision), folder
    )
    expected, found = assemble(saved), assemble(loaded)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))
    moments = [np.abs(values).max() for (_, kind), values in found.items() if kind == "exp_avg_sq"]
    assert min(moments) > 0
    for result in loaded:
        assert result["progress"] == progress_after(2)
        assert result["numbers"] == saved[0]["numbers"]
        assert {group["step"] for group in result["groups"]} == {2.0}
        np.testing.assert_allclose(
            [loss for loss, _ in result["following"]],
            [loss for loss, _ in saved[0]["following"]],
            rtol=tolerance,
        )
    check_files(folder, expected, precision)


def check_files(folder: Path, expected: dict[tuple[str, str], np.ndarray], precision: str) -> None:
    """What can be read without a process group is what the ranks held."""
    kinds = {"master": "master", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
    assert ("parameter" in read_manifest(folder).kinds) == (precision != "fp32")
    for kind, held in {**kinds, "parameter": "weights"}.items():
        stored = load_full_tensors(folder, kind)
        assert {(name, held) for name in stored} == {key for key in expected if key[1] == held}
        for name, values in stored.items():
            np.testing.assert_array_equal(values.float().numpy(), expected[name, held])


@pytest.mark.parametrize(
    "source, target",
    [
        ((1, 1, 1), (2, 2, 1)),
        ((2, 1, 1), (1, 1, 2)),
        ((1, 2, 1), (2, 1, 1)),
        ((1, 1, 2), (1, 2, 1)),
        ((2, 2, 1), (1, 1, 1)),
    ],
)
def test_fp32_continues_on_another_layout(tmp_path: Path, source: Layout, target: Layout) -> None:
    check_pair(tmp_path, source, target, "fp32", 1e-5)


def test_bf16_continues_on_another_layout(tmp_path: Path) -> None:
    check_pair(tmp_path, (1, 1, 2), (2, 1, 1), "bf16", 5e-3)


def test_fp16_continues_on_another_layout_with_its_loss_scale(tmp_path: Path) -> None:
    check_pair(tmp_path, (1, 1, 2), (1, 2, 1), "fp16", 5e-3)


def test_unsharded_and_sharded_optimizers_read_each_other(tmp_path: Path) -> None:
    plain = overrides_of((1, 1, 2), "fp32", "parallel.zero_stage=0")
    saved = run_distributed(train_and_save, 2, plain, tmp_path)
    loaded = run_distributed(load_and_train, 2, overrides_of((1, 1, 2), "fp32"), saved[0]["folder"])
    back = run_distributed(
        load_and_train, 1, overrides_of((1, 1, 1), "fp32", *plain[-1:]), saved[0]["folder"]
    )
    expected = assemble(saved)
    for results in (loaded, back):
        found = assemble(results)
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=str(key))


def resume_twice(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> dict[str, Any]:
    """Six steps at once; then the same in three lives."""
    from train.checkpoint import restore, verify_together
    from train.engine import Engine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = Engine(config, session)
        straight = train(engine, session, config, 0, 6)
        state = held_state(engine, session, config)
        engine.close()
        lives: list[Any] = []
        for life in range(3):
            engine = Engine(config, session)
            first = 2 * life
            if life > 0:
                folder = checkpoints / f"step_{first:08d}"
                first = restore(engine, folder, verify_together(folder, session)).step
            lives += train(engine, session, config, first, 2)
            saver = saver_of(engine, session, config, checkpoints)
            saver.save(progress_after(first + 2))
            saver.finish()
            resumed_state = held_state(engine, session, config)
            engine.close()
    assert lives == straight, "losses and gradient norms, to the last bit"
    for group, resumed in zip(state["groups"], resumed_state["groups"], strict=True):
        assert resumed["step"] == group["step"] == 6.0
        for kind in ("master", "exp_avg", "exp_avg_sq"):
            np.testing.assert_array_equal(group[kind], resumed[kind])
    for name, (_, values) in state["weights"].items():
        np.testing.assert_array_equal(values, resumed_state["weights"][name][1])
    return {"losses": [loss for loss, _ in straight]}


@pytest.mark.parametrize(
    "layout, precision", [((2, 1, 1), "fp32"), ((1, 2, 1), "bf16"), ((1, 1, 2), "fp16")]
)
def test_a_resumed_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, layout: Layout, precision: str
) -> None:
    results = run_distributed(
        resume_twice, world_of(layout), overrides_of(layout, precision), tmp_path
    )
    assert len(set(results[0]["losses"])) == 6


def start_from_weights(
    rank: int, world_size: int, overrides: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """A new run from a checkpoint's weights alone."""
    from train.checkpoint import initialise_from
    from train.engine import Engine

    config = config_of((*overrides, "seed=99"), world_size)
    with rank_session(rank, world_size, config) as session:
        engine = Engine(config, session)
        initialise_from(engine, folder, config)
        state = held_state(engine, session, config)
        numbers = engine.optimizer_state.numbers()
        engine.close()
    return {"numbers": numbers, **state}


def test_a_new_run_may_start_from_the_weights_alone(tmp_path: Path) -> None:
    saved = run_distributed(train_and_save, 1, overrides_of((1, 1, 1), "fp32"), tmp_path)
    begun = run_distributed(
        start_from_weights, 2, overrides_of((2, 1, 1), "fp32"), saved[0]["folder"]
    )
    expected, found = assemble(saved), assemble(begun)
    for (name, kind), values in expected.items():
        if kind in ("master", "weights"):
            np.testing.assert_array_equal(found[name, kind], values)
        else:
            assert not found[name, kind].any()
    assert begun[0]["numbers"]["step"] == 0.0
    assert torch.is_tensor(load_full_tensors(saved[0]["folder"])["final_norm.weight"])
