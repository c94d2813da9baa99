"""A checkpoint of any layout continues on any other: every tensor bit for bit, and the losses that follow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glm.checkpoint.reader import load_full_tensors, read_manifest
from glm.load import load_model
from tests.helpers.distributed import run_distributed
from tests.helpers.rank_runs import (
    BATCH,
    allow_fp16,
    assemble,
    config_of,
    held_state,
    progress_after,
    rank_session,
    save_after,
    train,
)

Layout = tuple[int, int, int]


LAYOUTS: list[Layout] = [
    (1, 1, 1),
    (2, 1, 1),
    (4, 1, 1),
    (1, 2, 1),
    (1, 4, 1),
    (1, 1, 2),
    (2, 2, 1),
    (2, 2, 2),
]
SAVED, FOLLOWING = 2, 5


def overrides_of(layout: Layout, precision: str, *more: str) -> tuple[str, ...]:
    tp, pp, _ = layout
    # Sizes that tp 4 can cut; the borders of dp still fall inside rows.
    sizes = ("model.num_heads=4", "model.hidden_size=24", "model.vocab_size=384")
    return (f"precision={precision}", f"parallel.tp={tp}", f"parallel.pp={pp}", *sizes, *more)


def world_of(layout: Layout) -> int:
    tp, pp, dp = layout
    return tp * pp * dp


def train_and_save(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> dict[str, Any]:
    """Two steps, a checkpoint, five more steps."""
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        _, folder = save_after(engine, session, config, checkpoints, 0, SAVED)
        state = held_state(engine, session, config)
        numbers = engine.state.numbers()
        rows: list[list[bytes]] = []
        following = train(engine, session, config, SAVED, FOLLOWING, rows)
        engine.close()
    return {
        "folder": folder,
        "following": following,
        "rows": rows,
        "numbers": numbers,
        **state,
    }


def load_and_train(
    rank: int, world_size: int, overrides: tuple[str, ...], folders: list[Path]
) -> list[dict[str, Any]]:
    """Fresh engines of another seed, whose weights are not drawn, continue from each checkpoint; looks at their state before any step."""
    from train.checkpoint import restore, verify_together
    from train.engine import build_engine

    allow_fp16()
    config = config_of((*overrides, "seed=99"), world_size)
    results = []
    with rank_session(rank, world_size, config) as session:
        for folder in folders:
            engine: Any = build_engine(config, session, draws_weights=False)
            progress = restore(engine, folder, verify_together(folder, session))
            state = held_state(engine, session, config)
            numbers = engine.state.numbers()
            rows: list[list[bytes]] = []
            following = train(engine, session, config, progress.step, FOLLOWING, rows)
            engine.close()
            results.append(
                {
                    "progress": progress,
                    "following": following,
                    "rows": rows,
                    "numbers": numbers,
                    **state,
                }
            )
    return results


def rows_of(results: list[dict[str, Any]]) -> list[list[bytes]]:
    """The rows of each step, of all replicas, in an order that does not depend on the layout."""
    readers = [result for result in results if result["place"][:2] == (0, 0)]
    return [
        sorted(row for result in readers for row in result["rows"][step])
        for step in range(FOLLOWING)
    ]


def check_continues(
    saved: list[dict[str, Any]], loaded: list[dict[str, Any]], tolerance: float
) -> None:
    """What was loaded is what was saved, and goes on like it."""
    expected, found = assemble(saved), assemble(loaded)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=str(key))
    moments = [np.abs(values).max() for (_, kind), values in found.items() if kind == "exp_avg_sq"]
    assert min(moments) > 0
    assert rows_of(loaded) == rows_of(saved)
    assert len({row for step in rows_of(saved) for row in step}) == FOLLOWING * BATCH
    for result in loaded:
        assert result["progress"] == progress_after(SAVED)
        assert result["numbers"] == saved[0]["numbers"]
        assert {group["step"] for group in result["groups"]} == {float(SAVED)}
        np.testing.assert_allclose(
            [loss for loss, _ in result["following"]],
            [loss for loss, _ in saved[0]["following"]],
            rtol=tolerance,
        )


@pytest.fixture(scope="module")
def saved_on(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, list[dict[str, Any]]]:
    """A run of each layout, saved in fp32."""
    return {
        layout: run_distributed(
            train_and_save,
            world_of(layout),
            overrides_of(layout, "fp32"),
            tmp_path_factory.mktemp("saved"),
        )
        for layout in LAYOUTS
    }


def check_target(
    saved_on: dict[Layout, list[dict[str, Any]]], sources: list[Layout], target: Layout
) -> None:
    folders = [saved_on[source][0]["folder"] for source in sources]
    ranks = run_distributed(load_and_train, world_of(target), overrides_of(target, "fp32"), folders)
    for number, source in enumerate(sources):
        check_continues(saved_on[source], [results[number] for results in ranks], 1e-5)


@pytest.mark.parametrize("target", LAYOUTS, ids=str)
def test_every_layout_continues_on_every_other(
    saved_on: dict[Layout, list[dict[str, Any]]], target: Layout
) -> None:
    check_target(saved_on, [source for source in LAYOUTS if source != target], target)


def test_a_border_between_replicas_falls_inside_a_row(
    saved_on: dict[Layout, list[dict[str, Any]]],
) -> None:
    widths: dict[str, set[int]] = {}
    for part in read_manifest(saved_on[1, 1, 2][0]["folder"]).fragments:
        if len(part.box.shape) == 2:
            widths.setdefault(part.tensor, set()).add(part.box.shape[1])
    assert any(len(found) > 1 for found in widths.values())


def check_pair(
    tmp_path: Path, source: Layout, target: Layout, precision: str, tolerance: float
) -> None:
    saved = run_distributed(
        train_and_save, world_of(source), overrides_of(source, precision), tmp_path
    )
    folder = saved[0]["folder"]
    ranks = run_distributed(
        load_and_train, world_of(target), overrides_of(target, precision), [folder]
    )
    check_continues(saved, [results[0] for results in ranks], tolerance)
    check_files(folder, assemble(saved), precision)


def check_files(folder: Path, expected: dict[tuple[str, str], np.ndarray], precision: str) -> None:
    """What can be read without a process group is what the ranks held."""
    kinds = {"master": "master", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
    slots = read_manifest(folder).slots.values()
    assert {"parameter" in known for known in slots} == {precision != "fp32"}
    for kind, held in {**kinds, "parameter": "weights"}.items():
        stored = load_full_tensors(folder, kind)
        assert {(name, held) for name in stored} == {key for key in expected if key[1] == held}
        for name, values in stored.items():
            np.testing.assert_array_equal(values.float().numpy(), expected[name, held])


def test_the_files_hold_what_the_ranks_held(
    saved_on: dict[Layout, list[dict[str, Any]]],
) -> None:
    for saved in saved_on.values():
        check_files(saved[0]["folder"], assemble(saved), "fp32")


@pytest.mark.parametrize(
    "source, target", [((1, 1, 2), (2, 1, 1)), ((2, 2, 1), (1, 1, 1)), ((1, 2, 1), (2, 1, 2))]
)
def test_bf16_continues_on_another_layout(tmp_path: Path, source: Layout, target: Layout) -> None:
    check_pair(tmp_path, source, target, "bf16", 5e-3)


def test_fp16_continues_on_another_layout_with_its_loss_scale(tmp_path: Path) -> None:
    check_pair(tmp_path, (1, 1, 2), (1, 2, 1), "fp16", 5e-3)


ALL_NORMS = ("model.norm=sandwich", "model.embedding_norm=true", "model.qk_norm=true")
INTERLEAVED = ("parallel.schedule=interleaved",)


@pytest.mark.parametrize(
    "precision, tolerance, source, target",
    [
        ("fp32", 1e-5, ((1, 2, 1), *INTERLEAVED), ((1, 1, 1),)),
        ("fp32", 1e-5, ((2, 1, 1),), ((1, 2, 1), *INTERLEAVED, "parallel.chunks=3")),
        ("bf16", 5e-3, ((1, 2, 1), *INTERLEAVED), ((1, 2, 2), *INTERLEAVED, "parallel.chunks=3")),
        ("fp16", 5e-3, ((1, 2, 1),), ((1, 2, 1), *INTERLEAVED)),
    ],
    ids=str,
)
def test_chunks_are_a_matter_of_the_layout(
    tmp_path: Path, precision: str, tolerance: float, source: Any, target: Any
) -> None:
    check_words(tmp_path, precision, tolerance, source, target)


@pytest.mark.parametrize(
    "precision, tolerance, source, target",
    [
        ("fp32", 1e-5, ((2, 2, 1), *ALL_NORMS), ((1, 1, 2), *ALL_NORMS)),
        ("fp32", 1e-5, ((1, 1, 1), "model.norm=pre"), ((2, 1, 1), "model.norm=pre")),
        ("bf16", 5e-3, ((1, 2, 1), *INTERLEAVED, *ALL_NORMS), ((2, 1, 2), *ALL_NORMS)),
    ],
    ids=str,
)
def test_norms_are_stored_and_restored(
    tmp_path: Path, precision: str, tolerance: float, source: Any, target: Any
) -> None:
    folder = check_words(tmp_path, precision, tolerance, source, target)
    # In one process, as generation reads it.
    names = load_model(folder).stable_parameters().keys()
    assert names == read_manifest(folder).tensors.keys()
    if ALL_NORMS[0] in source:
        assert {
            *("embedding_norm.weight", "layers.3.attention.key_norm.bias"),
            "layers.0.mlp_output_norm.weight",
        } <= names


def check_words(tmp_path: Path, precision: str, tolerance: float, source: Any, target: Any) -> Path:
    """Save on one layout, each given with its words, and continue on another; returns the checkpoint."""
    (layout, *more), (other, *their_more) = source, target
    saved = run_distributed(
        train_and_save, world_of(layout), overrides_of(layout, precision, *more), tmp_path
    )
    folder = saved[0]["folder"]
    ranks = run_distributed(
        *(load_and_train, world_of(other)),
        *(overrides_of(other, precision, *their_more), [folder]),
    )
    check_continues(saved, [results[0] for results in ranks], tolerance)
    check_files(folder, assemble(saved), precision)
    return folder


def test_unsharded_and_sharded_optimizers_read_each_other(tmp_path: Path) -> None:
    plain = overrides_of((1, 1, 2), "fp32", "parallel.zero_stage=0")
    saved = run_distributed(train_and_save, 2, plain, tmp_path)
    folders = [saved[0]["folder"]]
    loaded = run_distributed(load_and_train, 2, overrides_of((1, 1, 2), "fp32"), folders)
    unsharded = overrides_of((1, 1, 1), "fp32", *plain[-1:])
    back = run_distributed(load_and_train, 1, unsharded, folders)
    expected = assemble(saved)
    for results in (loaded, back):
        found = assemble([result for (result,) in results])
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=str(key))


def resume_twice(
    rank: int, world_size: int, overrides: tuple[str, ...], checkpoints: Path
) -> dict[str, Any]:
    """Six steps at once; then the same in three attempts."""
    from train.checkpoint import restore, verify_together
    from train.engine.pipeline import PipelineEngine

    allow_fp16()
    config = config_of(overrides, world_size)
    with rank_session(rank, world_size, config) as session:
        engine = PipelineEngine(config, session)
        straight = train(engine, session, config, 0, 6)
        state = held_state(engine, session, config)
        engine.close()
        trained: list[Any] = []
        for attempt in range(3):
            engine = PipelineEngine(config, session)
            first = 2 * attempt
            if attempt > 0:
                folder = checkpoints / f"step_{first:08d}"
                first = restore(engine, folder, verify_together(folder, session)).step
            steps, _ = save_after(engine, session, config, checkpoints, first, 2)
            trained += steps
            resumed_state = held_state(engine, session, config)
            engine.close()
    assert trained == straight, "losses and gradient norms, to the last bit"
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
    from train.engine import build_engine

    config = config_of((*overrides, "seed=99"), world_size)
    with rank_session(rank, world_size, config) as session:
        engine: Any = build_engine(config, session, draws_weights=False)
        initialise_from(engine, folder, config, session, print)
        state = held_state(engine, session, config)
        numbers = engine.state.numbers()
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
